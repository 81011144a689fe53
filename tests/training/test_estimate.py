"""What a training will cost, told before it starts: from made-up costs, by hand."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import estimate as module
from camoxpert_nb.training.cost import Costs, StepCost
from camoxpert_nb.training.estimate import dry_run_text, estimate, fitted
from camoxpert_nb.training.prepare import Training, prepare

GIB = 2**30
COSTS = Costs(
    {
        0: StepCost(images=4, seconds=2.0, fixed_bytes=GIB, bytes_per_image=GIB // 4),
        4: StepCost(images=2, seconds=5.0, fixed_bytes=2 * GIB, bytes_per_image=GIB // 2),
    },
    validation=6.0,
    saving=1.0,
    decoding=30.0,
)


@pytest.fixture
def training(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> Training:
    """Three epochs of 6 steps of 4 of 26 images, and two of 13 steps of 2."""
    monkeypatch.setattr(module, "measure_costs", lambda training: COSTS)
    monkeypatch.delenv("CAMOXPERT_DEADLINE", raising=False)
    config = tiny.replace(epochs=5, stage1_epochs=3, batch_size=4, stage2_batch_size=2)
    return prepare(config.replace(progressive_unfreeze=False))


def test_each_stage_costs_its_steps_and_what_follows_an_epoch(training: Training) -> None:
    """6 x 2 + 7 and 13 x 5 + 7 seconds an epoch."""
    found = estimate(training)
    assert found["stages"] == [
        {
            "name": "one",
            "epochs": 3,
            "seconds_per_epoch": 19.0,
            "seconds": 57.0,
            "gib_per_device": 2.0,
        },
        {
            "name": "two",
            "epochs": 2,
            "seconds_per_epoch": 72.0,
            "seconds": 144.0,
            "gib_per_device": 3.0,
        },
    ]
    assert (found["decoding_seconds"], found["seconds"], found["fits"]) == (30.0, 231.0, None)
    assert found["text"].split("\n") == [
        "estimate, from real steps on this machine, with validation and saving",
        "  stage one               19 s an epoch, 57 s in all, 2.0 GiB per device",
        "  stage two               72 s an epoch, 2 min in all, 3.0 GiB per device",
        "  images                  30 s to decode, once",
        "  in all about 4 min",
    ]


def test_what_is_over_costs_nothing(training: Training) -> None:
    """13 of 26 images of the second epoch are done: one and a half of stage one are left."""
    training.state.epoch, training.state.seen = 1, 13
    rows = estimate(training)["stages"]
    assert [(row["epochs"], row["seconds"]) for row in rows] == [(1.5, 28.5), (2, 144.0)]
    training.state.epoch, training.state.seen = 3, 0
    (row,) = estimate(training)["stages"]
    assert (row["name"], row["epochs"]) == ("two", 2)
    training.state.epoch = 5
    assert estimate(training)["stages"] == []


def test_gpus_of_one_process_share_its_memory(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them: 8 images are 1 + 8 / 4 GiB of both, and 4 are 2 + 4 / 2."""
    monkeypatch.setattr(type(training.devices), "own", 2)
    rows = estimate(training)["stages"]
    assert [row["gib_per_device"] for row in rows] == [1.5, 2.0]
    text = module._estimate_text({"stages": [{**rows[0], "gib_per_device": 0.0}],
        "decoding_seconds": 0.0, "seconds": 57.0, "fits": "as far as it comes"})  # fmt: skip
    assert text.split("\n")[1:] == [
        "  stage one               19 s an epoch, 57 s in all, memory not measured",
        "  in all about 57 s",
        "  as far as it comes",
    ]


def test_where_time_is_short_it_is_told_how_far_it_comes(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device's time for one image, where it is, and how long later sessions are."""
    asked: list[Any] = []

    def far(*how: Any, **more: Any) -> str:
        asked.append((*how, more))
        return "so far"

    monkeypatch.setattr(module, "how_far", far)
    monkeypatch.setattr(module, "minutes_gone", lambda: 11.0)
    training.state.epoch, training.state.seen = 1, 4
    training.config = training.config.replace(time_budget=2.0)
    found = estimate(training)
    assert found["fits"] == "so far" and found["text"].endswith("\n  so far")
    how = {"between": 7.0, "place": (1, 4), "elapsed": 11.0}
    per_image = {0: 0.5, 4: 2.5}
    assert asked.pop() == (training.plan, per_image, 2.0, {**how, "session": 2.0})
    training.config = training.config.replace(time_budget=705.0)  # a session has 700
    estimate(training)
    assert asked.pop()[-1]["session"] == 700.0
    training.config = training.config.replace(time_budget=0.0)
    monkeypatch.setenv("CAMOXPERT_DEADLINE", str(time.time() + 80 * 60))
    estimate(training)
    *_, minutes, more = asked.pop()
    assert minutes == pytest.approx(60, abs=0.1) and more == how


def test_what_differs_from_the_preset_is_listed(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates by hand: a cosine over three epochs of 6 steps, and over two of 13."""
    monkeypatch.setattr(module, "doubts_about", lambda pairs, require: [f"{len(pairs)} {require}"])
    monkeypatch.setattr(module, "told", lambda config: {"width": 48, "lr": 0.5})
    low, high = 1e-5, 2e-3

    def rate(share: float) -> str:
        return f"{low + (high - low) * 0.5 * (1 + math.cos(math.pi * share)):.2e}"

    ends = [rate(share) for share in (0.5 / 18, 17.5 / 18, 0.5 / 26, 25.5 / 26)]
    block = [f"{0.1 * float(ends[2]) * 0.5 / 13:.2e}", f"{0.1 * float(ends[3]):.2e}"]
    said = dry_run_text(training, {"text": "what it costs"}).split("\n")
    highest = said[8].split(" / ")[1]
    assert said == [
        "NOTE: of the masks looked at, 32 True.",
        "",
        "learning rates (first, highest and last step of each stage)",
        "  stage one, epochs 1-3",
        f"    head       {ends[0]} / {ends[0]} / {ends[1]}",
        "    backbone   0.00e+00 / 0.00e+00 / 0.00e+00",
        "  stage two, epochs 4-5",
        f"    head       {ends[2]} / {ends[2]} / {ends[3]}",
        f"    backbone   {block[0]} / {highest} / {block[1]}",
        "",
        "what it costs",
        "",
        "settings that differ from the preset",
        "  width = 48",
        "  lr = 0.5",
    ]
    assert 0.8e-4 < float(highest) < 1.3e-4  # it opens over one epoch: half of 2e-4 then
    training.state.epoch = 3
    assert "  stage one, epochs 1-3" not in dry_run_text(training, {"text": ""}).split("\n")
    training.config = training.config.replace(preset="")
    assert dry_run_text(training, {"text": ""}).endswith("from the preset\n  none")


def test_what_auto_chose_for_the_machine_is_told_apart(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user gave another width than it would take, and a rate that it does not decide."""
    asked: list[Any] = []

    def auto(device: str, **how: Any) -> Any:
        asked.append((device, how))
        return SimpleNamespace(changes={"width": 32, "img_size": 96})

    monkeypatch.setattr(module, "doubts_about", lambda pairs, require: [])
    monkeypatch.setattr(module, "told", lambda config: {"width": 48, "lr": 0.5, "img_size": 96})
    monkeypatch.setattr(module, "auto_preset", auto)
    training.config = training.config.replace(preset="auto")
    said = dry_run_text(training, {"text": "costs"}).split("\n")
    assert said[0] == "" and said[-7:] == [
        "",
        "settings that preset auto chose for this machine",
        "  img_size = 96",
        "",
        "settings that differ from the preset",
        "  width = 48",
        "  lr = 0.5",
    ]
    assert asked == [("cpu", {"own_images": True})]
    monkeypatch.setattr(module, "told", lambda config: {})
    said = dry_run_text(training, {"text": "costs"}).split("\n")
    assert said[-5:] == [
        "settings that preset auto chose for this machine",
        "  none",
        "",
        "settings that differ from the preset",
        "  none",
    ]


def test_epochs_that_fit_are_counted_with_all_that_takes_time(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20 minutes 5 are over, and half a minute goes for decoding."""
    asked: list[Any] = []
    monkeypatch.setattr(module, "fit_to_budget", lambda *how: asked.append(how))
    monkeypatch.setattr(module.time, "time", lambda: 10_000.0)
    monkeypatch.setattr(type(training.devices), "own", 2)
    training.asked = training.asked.replace(time_budget=20.0, epochs=77)
    fitted(training, 10_000.0 - 300)
    ((config, images, devices, per_image, minutes, between),) = asked
    assert config == training.asked and (images, devices) == (26, training.devices.count)
    assert per_image == {0: 1.0, 4: 5.0} and (minutes, between) == (14.5, 7.0)
