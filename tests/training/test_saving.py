"""Checkpoints written by a thread: the same files, and no failure goes unheard."""

from __future__ import annotations

import threading
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
