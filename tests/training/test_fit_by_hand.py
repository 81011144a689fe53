"""Which weights a training judges, keeps and shows, and when it saves: with scores made up."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from camoxpert_nb.machine.distributed import ALONE
from camoxpert_nb.runs.best_epochs import best_epochs
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import fit as module
from camoxpert_nb.training import score
from camoxpert_nb.training.fit import _Trainer, fit
from camoxpert_nb.training.resume import resumed_config
from camoxpert_nb.training.saving import Saver
from camoxpert_nb.training.validate import Validation

HIGH = Validation(0.6, 0.1, (0.5, 0.6, 0.7), 4, True, 1.0)
LOW = Validation(0.3, 0.2, (0.2, 0.3, 0.4), 4, True, 2.0)


@pytest.mark.parametrize("better", ["raw", "ema"])
def test_the_weights_that_score_best_are_kept_told_and_shown(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, better: str
) -> None:
    coming = iter(2 * ([HIGH, LOW] if better == "raw" else [LOW, HIGH]))  # raw, then average
    shown: list[Any] = []
    whole = score.preview
    monkeypatch.setattr(score, "validate", lambda *args, **how: next(coming))
    monkeypatch.setattr(
        score, "preview", lambda *args, **how: (shown.append(args), whole(*args))[1]
    )
    run = fit(tiny.replace(keep_best=1))
    last, best, (kept,) = run.load("last"), run.load("best"), best_epochs(run.folder)
    wanted = last["net" if better == "raw" else "ema"]
    other = last["ema" if better == "raw" else "net"]
    one = run.load(kept.name)
    for found in (best["net"], one["net"], shown[-1][0].state_dict()):
        assert all(torch.equal(value, wanted[name]) for name, value in found.items())
        assert not all(torch.equal(value, other[name]) for name, value in found.items())
    assert (kept.epoch, kept.iou) == (2, 0.6)  # of equals the later one
    for found in (best, one):
        assert (found["epoch"], found["iou"], found["weights"]) == (2, 0.6, better)
        assert found["config"] == last["config"] == Config.load(run.config_path).as_dict()
    for record in run.records("epoch"):
        raw, average = (0.6, 0.3) if better == "raw" else (0.3, 0.6)
        assert (record["iou"], record["iou_ema"], record["weights"]) == (raw, average, better)
        assert (record["mae"], record["val_loss"], record["empty_masks"]) == (0.1, 1.0, 4)
        assert record["best"] is True
    names = [path.stem for path in sorted(Path(tiny.dataset_path).rglob("Image/*"))]
    assert {*run.load_preview()["names"]} <= {*names}


@pytest.mark.parametrize(("keep", "epoch"), [("best", 1), ("last", 2)])
def test_what_best_holds_is_what_the_settings_ask_for(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, keep: str, epoch: int
) -> None:
    coming = iter([HIGH, LOW])
    monkeypatch.setattr(score, "validate", lambda *args, **how: next(coming))
    run = fit(tiny.replace(keep=keep, use_ema=False))
    assert run.load("best")["epoch"] == run.load_json("summary")["best"]["epoch"] == epoch
    assert [record["best"] for record in run.records("epoch")] == [True, keep == "last"]


def test_a_stop_that_comes_with_the_last_epoch_is_the_end(tiny: Config) -> None:
    def report(record: dict[str, Any]) -> None:
        if record["kind"] == "validating" and record["epoch"] == 2:
            Run(tiny.checkpoint_dir).request("stop")

    run = fit(tiny, report=report)
    assert run.records()[-1]["kind"] == "end" and run.load_json("summary")["finished"]


def test_a_run_that_goes_on_says_after_its_first_epoch_how_far_it_comes(tiny: Config) -> None:
    def report(record: dict[str, Any]) -> None:
        if record["kind"] == "epoch" and record["epoch"] == 2:
            Run(tiny.checkpoint_dir).request("stop")

    run = fit(tiny.replace(epochs=4, time_budget=60), report=report)
    assert len(run.records("note")) == 1
    run = fit(resumed_config(run.folder, {}), resume=True)
    assert [note["step"] for note in run.records("note")] == [
        run.records("epoch")[place]["step"] for place in (0, 2)
    ]


# --- a trainer that is nothing but what one method asks for


def trainer(tmp_path: Path, **parts: Any) -> Any:
    told: list[Any] = []
    made: dict[str, Any] = {"run": Run(tmp_path), "ranks": ALONE, "end": math.inf, "saved": 0.0}
    made |= {"settle": lambda: True, "save": lambda **how: told.append(how), "told": told}
    made |= {"wants_save": lambda: False, "note": told.append}
    made["callbacks"] = SimpleNamespace(asked="")
    made["training"] = SimpleNamespace(config=SimpleNamespace(save_minutes=1.0))
    return SimpleNamespace(**made | parts)


@pytest.mark.parametrize(("seconds", "saves"), [(59.0, 0), (61.0, 1)])
def test_a_save_is_overdue_after_so_many_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, saves: int
) -> None:
    monkeypatch.setattr(module.time, "monotonic", lambda: seconds)
    found = trainer(tmp_path)
    assert _Trainer.between_steps(found) == ""
    assert len(found.told) == saves


def test_a_paused_training_is_saved_once_and_goes_on_when_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, slept = Run(tmp_path), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 4:
            run.request("pause", wanted=False)

    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setattr(module.time, "monotonic", lambda: 0.0)
    run.request("pause")
    found = trainer(tmp_path, run=run)
    assert _Trainer.between_steps(found, save=True) == ""
    assert len(slept) == 4 and found.told == [{"last": False, "epoch_ends": True}]


@pytest.mark.parametrize("ends", [False, True])
def test_a_stop_saves_for_the_last_time_and_says_why(tmp_path: Path, ends: bool) -> None:
    run = Run(tmp_path)
    run.request("stop")
    found = trainer(tmp_path, run=run, saved=time.monotonic())
    assert _Trainer.between_steps(found, save=ends) == "asked to stop"
    assert found.told == [{"last": True, "epoch_ends": ends}]
    run.clear()
    late = trainer(tmp_path, end=time.time() - 1, saved=time.monotonic())
    assert _Trainer.between_steps(late) == "the time budget is used up"


def test_how_far_a_session_comes_is_told_from_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "how_far", lambda *args, **how: asked.append((args, how)) or "far")
    monkeypatch.setattr(module, "minutes_gone", lambda: 34.0)
    state = SimpleNamespace(epoch=3, seen=40)
    found = trainer(tmp_path, plan="plan", state=state, end=time.time() + 600)
    _Trainer.forecast(found, {4: 0.5}, 7.0)
    ((plan, seconds, left), how) = asked[0]
    assert (plan, seconds, round(left)) == ("plan", {4: 0.5}, 10)  # in minutes
    assert how == {"between": 7.0, "place": (3, 40), "elapsed": 34.0}
    assert found.told == ["far"]


def test_an_epochs_gpus_are_those_of_all_processes(tmp_path: Path) -> None:
    readings = [{"gpu_percent": [90.0], "gpu_memory_gib": [8.0]}, {"gpu_percent": [10.0, 20.0]}]
    ranks = SimpleNamespace(gather=lambda own: readings)
    found = trainer(tmp_path, ranks=ranks, gauge=SimpleNamespace(read=dict))
    assert _Trainer.utilisation(found) == {
        "gpu_percent": [90.0, 10.0, 20.0],
        "gpu_memory_gib": [8.0],
    }


def test_a_save_counts_from_when_it_was_made(tiny: Config, tmp_path: Path) -> None:
    """And a state that is no good is not written, nor its request taken back."""
    from camoxpert_nb.training.prepare import prepare

    training, run = prepare(tiny), Run(tmp_path)
    saver = Saver(run, beside=False)
    found = trainer(tmp_path, training=training, state=training.state, run=run, saver=saver)
    run.request("save")
    before = time.monotonic()
    training.state.skipped_in_row = 1
    _Trainer.save(found, epoch_ends=True)  # an epoch may not end on a step that was skipped
    assert "is not saved" in found.told[0] and not run.has("last") and run.wants("save")
    _Trainer.save(found)  # within an epoch one more step tells
    assert run.has("last") and not run.wants("save") and found.saved >= before
    saver.close()
