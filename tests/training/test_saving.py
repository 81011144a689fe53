"""Checkpoints written by a thread: the same files, and no failure goes unheard."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from training.test_fit import assert_equal_runs, stop_after

from camoxpert_nb.errors import TrainingError
from camoxpert_nb.machine.devices import Devices
from camoxpert_nb.runs.run import Onlooker, Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.saving import Saver, saves_beside


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write in a thread, as where a GPU trains."""
    monkeypatch.setattr("camoxpert_nb.training.fit.saves_beside", lambda run, devices: True)


def test_a_thread_writes_where_a_gpu_trains(tmp_path: Path) -> None:
    gpu, cpu = Devices("one", (0,), ""), Devices("cpu", (), "")
    assert saves_beside(Run(tmp_path), gpu)
    assert not saves_beside(Run(tmp_path), cpu)
    assert not saves_beside(Onlooker(tmp_path), gpu)


def test_what_is_written_is_what_was_handed_over(tmp_path: Path) -> None:
    """Training goes on and changes the tensors while the thread has yet to begin."""
    run, go = Run(tmp_path), threading.Event()
    whole = run.save
    run.save = lambda *args: (go.wait(10), whole(*args))[1]  # type: ignore[method-assign]
    saver, weights, order = Saver(run, beside=True), torch.ones(3), list[str]()
    for name in ("best", "last"):
        state = {"net": {"w": weights}, "list": [weights], "step": 3}
        saver.save(name, state, lambda name=name: order.append(name))  # type: ignore[misc]
    weights.zero_()
    assert order == [] and not run.has("best") and saver.writes("last")
    go.set()
    saver.finish()
    assert order == ["best", "last"] and not saver.writes("last")
    found = run.load("last")
    assert found["net"]["w"].tolist() == found["list"][0].tolist() == [1, 1, 1]
    saver.close()


def slow(run: Run, begun: threading.Event) -> None:
    """Let each checkpoint take a moment."""
    whole = run.save

    def save(*args: Any) -> None:
        begun.set()
        time.sleep(0.2)
        whole(*args)

    run.save = save  # type: ignore[method-assign]


@pytest.mark.parametrize("way", ["finish", "close"])
def test_what_was_begun_is_written_before_the_end(tmp_path: Path, way: str) -> None:
    run, begun = Run(tmp_path), threading.Event()
    slow(run, begun)
    saver = Saver(run, beside=True)
    saver.save("last", {"step": 1})
    begun.wait(10)
    getattr(saver, way)()
    assert run.load("last") == {"step": 1}
    saver.close()


@pytest.mark.parametrize("beside", [False, True])
def test_a_save_is_told_when_it_is_there_and_its_failure_is_raised(
    tmp_path: Path, beside: bool
) -> None:
    """By the next save of that name, or at the end; one that failed is not told."""
    run, told = Run(tmp_path), list[str]()
    saver = Saver(run, beside=beside)
    saver.save("last", {"step": 1}, lambda: told.append(f"there: {run.has('last')}"))
    saver.finish()
    assert told == ["there: True"]

    def fail(state: dict[str, Any]) -> None:
        raise TrainingError("the disk is full")

    for again in (lambda: saver.save("last", {}), saver.finish):
        with pytest.raises(TrainingError, match="is full"):
            saver.save("last", {}, lambda: told.append("never"), fail)
            again()
    assert told == ["there: True"]
    saver.close()


def test_the_processes_beside_the_first_keep_no_epoch(tmp_path: Path) -> None:
    for run, count in ((Onlooker(tmp_path), 3), (Run(tmp_path), 0)):
        Saver(run, beside=False).keep(count, 1, 0.5, {"net": {}})
        assert [*tmp_path.iterdir()] == []


def test_trainings_that_save_beside_are_the_same(
    tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tiny)
    monkeypatch.setattr("camoxpert_nb.training.fit.saves_beside", lambda run, devices: True)
    parts = tiny.replace(checkpoint_dir=str(tmp_path / "parts"))
    run = fit(parts, report=stop_after(5))
    assert run.load("last")["step"] == 5
    assert_equal_runs(whole, fit(parts, resume=True))


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_full_disk_is_told_in_the_usual_words(
    tiny: Config, beside: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = torch.save

    def full(state: Any, file: Any) -> None:
        if Path(file.name).name.startswith(name):
            raise OSError(28, "No space left on device")
        whole(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=rf"{name}.pt could not be written.*disk is probably"):
        fit(tiny.replace(epochs=1))
    assert "could not be written" in Run(tiny.checkpoint_dir).load_json("failure")["message"]
