"""Wherever a training ends, by itself or by force, it goes on as if it had not.

The middle of an epoch and of a schedule, and `kill -9`, are in test_fit.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from equal_runs import assert_equal_runs

from camoxpert_nb.errors import TrainingError
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training import fit as fit_module
from camoxpert_nb.training import score
from camoxpert_nb.training.fit import fit


class Killed(BaseException):
    """The end of a process: nothing that training does after it happens."""


@pytest.fixture(scope="module")
def config(camouflage: Path, cache: Path) -> Config:
    """Four epochs, each of another stage, of steps of two batches."""
    return make_config(
        "tiny",
        dataset_path=str(camouflage),
        cache_dir=str(cache),
        device="cpu",
        epochs=4,
        stage1_epochs=1,
        accumulation_steps=2,
        progressive_unfreeze=True,
    )


@pytest.fixture(scope="module")
def whole(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(config.replace(checkpoint_dir=str(tmp_path_factory.mktemp("whole") / "run")))


def die_before_validation(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Have the process end when the epoch, from 1, has taken its last step."""
    end = fit_module._Trainer.end_epoch

    def killed(*rest: Any, **how: Any) -> None:
        raise Killed

    def end_epoch(self: Any) -> None:
        if self.state.epoch == epoch - 1:
            monkeypatch.setattr(score, "validate", killed)
        end(self)

    monkeypatch.setattr(fit_module._Trainer, "end_epoch", end_epoch)


def die_saving(monkeypatch: pytest.MonkeyPatch, when: str, epoch: int) -> None:
    """Have the process end before, while or after it saves what the epoch, from 1, reached."""
    save = fit_module._Trainer.save

    def half_written(state: Any, file: Any) -> None:
        file.write(b"half of a checkpoint")
        raise Killed

    def save_last(self: Any, **how: Any) -> None:
        if self.state.epoch == epoch and when == "while":
            monkeypatch.setattr(torch, "save", half_written)
        if self.state.epoch != epoch or when != "before":
            save(self, **how)
        if self.state.epoch == epoch:
            raise Killed

    monkeypatch.setattr(fit_module._Trainer, "save", save_last)


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize(
    "place", ["before validation", "before saving", "while saving", "after saving"]
)
def test_a_run_that_dies_at_the_end_of_an_epoch_goes_on(
    config: Config,
    whole: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    epoch: int,
) -> None:
    config = config.replace(checkpoint_dir=str(tmp_path / "run"))
    with monkeypatch.context() as patched:
        if place == "before validation":
            die_before_validation(patched, epoch)
        else:
            die_saving(patched, place.split()[0], epoch)
        with pytest.raises(Killed):
            fit(config)
    run = Run(tmp_path / "run")
    saved = epoch if place == "after saving" else epoch - 1
    assert (run.load("last")["epoch"] if run.has("last") else 0) == saved
    assert_equal_runs(whole, fit(config, resume=True))


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_stopped_at_the_border_of_two_stages_goes_on(
    config: Config, whole: Run, tmp_path: Path, epoch: int
) -> None:
    run = Run(tmp_path / "run")
    config = config.replace(checkpoint_dir=str(run.folder))

    def stop(record: dict[str, Any]) -> None:
        if record["kind"] == "epoch" and record["epoch"] == epoch:
            run.request("stop")

    fit(config, report=stop)
    last = run.load("last")
    assert (last["epoch"], last["samples"]) == (epoch, 0)
    run = fit(config, resume=True)
    assert [record["stage"] for record in run.records("epoch")] == [
        "one",
        "two (block 4)",
        "two (blocks 3-4)",
        "two (all)",
    ]
    assert_equal_runs(whole, run)


@pytest.mark.parametrize("beside", ["first", "last"])
def test_a_run_stopped_beside_the_end_of_an_epoch_goes_on(
    config: Config, whole: Run, tmp_path: Path, beside: str
) -> None:
    """After its first step, and before its last one: each step is a group of two batches."""
    run = Run(tmp_path / "run")
    config = config.replace(checkpoint_dir=str(run.folder))
    ends = [record["step"] for record in whole.records("epoch")]
    step = ends[1] + 1 if beside == "first" else ends[1] - 1

    def stop(record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] == step:
            run.request("stop")

    fit(config, report=stop)
    last = run.load("last")
    assert last["step"] == step
    assert last["samples"] % (2 * config.batch_size) == 0 < last["samples"]
    assert_equal_runs(whole, fit(config, resume=True))


@pytest.mark.parametrize("kind", ["step", "epoch"])
@pytest.mark.parametrize("moved", [False, True])
def test_a_folder_that_goes_away_ends_the_training_with_a_sentence(
    tiny: Config, kind: str, moved: bool
) -> None:
    folder = Path(tiny.checkpoint_dir)
    older = Run(folder.parent / "older")
    older.folder.mkdir()
    older.save_config(tiny)
    older.log("end")

    def remove(record: dict[str, Any]) -> None:
        if record["kind"] == kind and folder.exists():
            if moved:
                folder.rename(folder.parent / "elsewhere")
            else:
                shutil.rmtree(folder)

    with pytest.raises(TrainingError, match="removed or moved while it was trained"):
        fit(tiny, report=remove)
    assert not folder.exists()  # and nothing is made anew where it was
    assert not (folder.parent / "latest").is_symlink()
    newest = folder.parent / ("elsewhere" if moved else "older")
    assert Run(folder.parent / "latest").folder == newest


def test_killed_in_an_epoch_of_one_step_before_its_record_it_begins_anew(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """best.pt is there then, and neither a record of a step nor last.pt."""
    one = config.replace(batch_size=13, accumulation_steps=2, epochs=2)
    expected = fit(one.replace(checkpoint_dir=str(tmp_path / "whole")))
    parts = one.replace(checkpoint_dir=str(tmp_path / "parts"))

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fit_module, "save_preview", killed)
        fit(parts)
    run = Run(parts.checkpoint_dir)
    assert run.has("best") and not run.has("last")
    assert [each["kind"] for each in run.records()] == ["start"]
    assert_equal_runs(expected, fit(parts, resume=True))
