"""What is said of a training before it starts, whole: each line from numbers that all differ."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from camoxpert_nb import __version__
from camoxpert_nb.network.backbone import Start
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import banner as module
from camoxpert_nb.training import budget
from camoxpert_nb.training.banner import banner
from camoxpert_nb.training.own import Own
from camoxpert_nb.training.prepare import Training, prepare
from camoxpert_nb.training.schedule import Origin, Stage


@pytest.fixture
def training(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> Training:
    """26 images train and 6 validate, in steps of 3 x 2 and 2 x 2; 20 million weights."""
    monkeypatch.setattr(budget.shutil, "disk_usage", lambda folder: SimpleNamespace(free=5e9))
    monkeypatch.setattr(module, "lr_warnings", lambda config, devices: [f"rates on {devices}"])
    monkeypatch.setattr(module, "recipe_lines", lambda *how: ["first", "second", "third"])
    config = tiny.replace(
        epochs=10,
        stage1_epochs=3,
        lr=2e-3,
        stage2_lr=1e-3,
        batch_size=3,
        stage2_batch_size=2,
        accumulation_steps=2,
        target_iou=0.85,
        top_k=2,
        keep_best=3,
        gradient_checkpointing=True,
        deep_supervision=False,
    )
    found = prepare(config)
    found.state.net = nn.Linear(9_999, 2_000, device="meta")
    found.data = dataclasses.replace(
        found.data,
        left_out={"left behind": ["a", "b", "c"], "odd": ["d"] * 4},
        notes=["what is read is odd"],
        leaks=["one"],
        near_leaks=["two", "three"],
    )
    found.device_lines = ["CPU: of this machine", "CPU: of another"]
    found.workers, found.workers_reason = 7, "as many as it likes"
    found.changes = ["other images train"]
    return found


def test_a_banner_is_told_line_by_line(training: Training) -> None:
    """Disk: weights, average and two moments twice, best.pt and four epochs, of 80 MB each."""
    folder, place = training.config.checkpoint_dir, training.config.cache_dir
    assert banner(training).split("\n") == [
        f"CamoXpert {__version__}, preset tiny",
        "-" * 78,
        f"run               {folder}",
        "device            CPU: of this machine",
        "device            CPU: of another",
        "                  --device cpu was asked for",
        "precision         float32: the CPU gains nothing by less",
        f"data              {training.data.root}",
        "                  26 to train, 6 held out for validation",
        "                  left out: 3 (a, b, c) left behind",
        "                  left out: 4 odd",
        f"disk              images under 0.1 GB in {place} (5 GB free), "
        f"checkpoints 1.0 GB in {folder} (5 GB free)",
        "loading           7 workers: as many as it likes",
        "backbone          test_resnet",
        "weights           none: trains from scratch (no weights were asked for)",
        "experts           7, the best 2 in each cell of the image",
        "parameters        20.00 million",
        "resolution        64 x 64 px",
        "stage one         3 epochs, decoder alone, learning rate 0.002",
        "                  batch 3 per CPU x 1 CPU x 2 accumulated = 6 effective, "
        "4 steps an epoch of 24 of 26 images, chosen anew each epoch",
        "stage two         7 epochs, decoder and backbone, learning rate 0.001",
        "                  batch 2 per CPU x 1 CPU x 2 accumulated = 4 effective, "
        "6 steps an epoch of 24 of 26 images, chosen anew each epoch",
        "epochs            10, 54 steps",
        "recipe            first",
        "                  second",
        "                  third",
        "deep supervision  off",
        "checkpointing     on",
        "progressive       two (block 4) from epoch 4, two (blocks 3-4) from epoch 6, "
        "two (all) from epoch 8",
        "EMA               decay 0.9, looks back about 1.7 epochs",
        "target            IoU 0.85 (mean over validation images, threshold 0.5)",
        "NOTE: the backbone starts from random weights. Expect a much lower IoU.",
        "NOTE: rates on 1.",
        "NOTE: 6 images validate: which epoch is the best is mostly chance. Hold out more "
        "(--val-share 0.2), or add images.",
        "NOTE: other images train.",
        "NOTE: what is read is odd.",
        "WARNING: 1 (one) training images are test images too.",
        "WARNING: 2 training images are nearly the same picture as a test or validation image: "
        "two, three. Scores there are too good.",
    ]


def lines(training: Training) -> dict[str, str]:
    """Return the last of a banner's lines by their names."""
    rows = banner(training).split("\n")[2:]
    return {row[:18].strip(): row[18:] for row in rows if row[:18].strip()}


def test_other_settings_are_told_in_other_words(training: Training) -> None:
    """On two GPUs, with weights of photos, own parts, and without what is optional."""
    config = training.config.replace(
        checkpoint_dir="", preset="", num_experts=1, top_k=7, use_ema=False, stage1_epochs=0,
        progressive_unfreeze=False, ignore_label=255,
    )  # fmt: skip
    plan = dataclasses.replace(training.plan, stages=training.plan.stages[-1:])
    found = dataclasses.replace(training, config=config, plan=plan)
    found.devices = dataclasses.replace(training.devices, ids=(0, 1))
    found.state.start = Start(True, "photos")
    found.state.own = Own(loss=banner)
    found.data = dataclasses.replace(training.data, leaks=[], near_leaks=[], notes=[])
    said = lines(found)
    assert said["run"] == "runs/DATE-TIME" and said["experts"] == "1: no mixture"
    assert said["stage one"] == "none" and said["EMA"] == "off"
    assert said["progressive"] == "off: stage two opens the whole backbone at once"
    assert said["your own"] == "loss=banner" and said["weights"] == "photos"
    whole = banner(found)
    assert "preset none" in whole and "random weights" not in whole and "WARNING" not in whole
    assert "\n                  read with" in whole
    assert "batch 2 per GPU x 2 GPUs x 2 accumulated" in whole
    assert "checkpoints 1.0 GB in runs (5 GB free)" in said["disk"]


@pytest.mark.parametrize(
    ("experts", "chosen", "said"),
    [
        (1, 7, "1: no mixture"),
        (2, 2, "2, weighed in each cell of the image"),
        (3, 2, "3, the best 2 in each cell of the image"),
        (7, 6, "7, the best 6 in each cell of the image"),
    ],
)
def test_the_choice_of_experts_is_told(experts: int, chosen: int, said: str) -> None:
    assert module._experts(Config(num_experts=experts, top_k=chosen)) == said


@pytest.mark.parametrize(
    ("epoch", "seen", "step", "said"),
    [
        (0, 0, 0, ""),
        (0, 4, 1, "in epoch 1, 4 of its images done; 1 step in all"),
        (3, 0, 12, "in epoch 4; 12 steps in all"),
        (9, 0, 48, "in epoch 10; 48 steps in all"),
        (10, 0, 54, "nowhere: all 10 epochs are done"),
    ],
)
def test_where_a_training_goes_on_is_told(
    training: Training, epoch: int, seen: int, step: int, said: str
) -> None:
    state = training.state
    state.epoch, state.seen, state.step = epoch, seen, step
    assert module._place(training) == said
    assert lines(training).get("goes on", "") == said


def test_stages_that_are_over_are_not_told_again(training: Training) -> None:
    training.state.epoch = 5  # the first of two with blocks 3-4
    assert module._unfreezing(training) == ("two (blocks 3-4) from epoch 6, two (all) from epoch 8")
    training.state.epoch = 10
    assert module._unfreezing(training) == "off"


def test_what_is_left_of_a_changed_rate_is_told(training: Training) -> None:
    """A cosine without warm-up from 0.6 of the rate at 5.0 on, down to the floor at 10."""
    last = training.plan.stages[1:]
    assert module._rate(training, last) == "learning rate 0.001"
    origin = Origin(5.0, 0.6, 4)
    training.plan = dataclasses.replace(training.plan, origin=origin, min_lr=1e-6)
    training.state.epoch = 5
    assert module._rate(training, last) == "learning rate 0.001, from now on at most 0.0006"
    assert module._rate(training, training.plan.stages[:1]) == "learning rate 0.002"  # it is over
    training.state.epoch = 0  # the part begins later: its own highest rate is told
    assert module._rate(training, last) == "learning rate 0.001, from now on at most 0.001"
    training.state.epoch = 10
    assert module._rate(training, last) == "learning rate 0.001"


def test_images_that_grow_are_told_with_their_epochs(tiny: Config) -> None:
    training = prepare(tiny.replace(epochs=9, stage1_epochs=4, img_size=128, start_size=64))
    assert module._resolution(training) == (
        "128 x 128 px; trained with 64 px from epoch 1, 96 px from epoch 4, 128 px from epoch 7"
    )
    assert "two (blocks 3-4), 96 px from epoch 6" in module.banner(training)


@pytest.mark.parametrize(
    ("images", "said"),
    [(24, ""), (25, " of 24 of 25 images, chosen anew each epoch")],
)
def test_images_that_fill_no_step_are_counted(images: int, said: str) -> None:
    stage = Stage("one", 1, 0, 1, 0, 1e-3, 2, 4, 6)
    assert module._of_images(stage, images) == said


@pytest.mark.parametrize(
    ("names", "said"),
    [(["a"], "1 (a)"), (["a", "b", "c"], "3 (a, b, c)"), (["a"] * 4, "4")],
)
def test_a_few_names_are_told(names: list[str], said: str) -> None:
    assert module._some(names) == said


@pytest.mark.parametrize(("device", "asked"), [("cpu", "cpu"), ("auto", "auto"), ("cuda", "auto")])
def test_a_preset_is_chosen_by_the_memory_of_what_will_train(
    monkeypatch: pytest.MonkeyPatch, device: str, asked: str
) -> None:
    seen: list[Any] = []

    def pick(name: str) -> Any:
        seen.append(name)
        return SimpleNamespace(memory=lambda: "memory")

    def suggest(memory: Any, **how: Any) -> Any:
        return memory, how

    monkeypatch.setattr(module, "pick_devices", pick)
    monkeypatch.setattr(module, "suggest", suggest)
    found = module.auto_preset(device, own_images=True, given=["lr"])
    assert found == ("memory", {"own_images": True, "given": ["lr"]})
    assert module.auto_preset(device, own_images=False)[1] == {"own_images": False, "given": ()}
    assert seen == [asked, asked]
