"""What is told of a run to people: each state's sentences, whole."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.runs import records
from camoxpert_nb.runs.process import Status
from camoxpert_nb.runs.records import Watch, in_words, performance
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """runs/a, where commands are typed: 30 steps in 3 epochs, of which 14 are known."""
    monkeypatch.chdir(tmp_path)
    run = Run("runs/a")
    run.folder.mkdir(parents=True)
    return run


def begun(run: Run) -> Run:
    run.save_config(make_config("tiny", epochs=3, target_iou=0.72))
    same: dict[str, Any] = {"steps": 30, "stage": "all"}
    for step, speed in ((5, 10.0), (8, 999.0), (9, 20.0)):
        run.log("step", epoch=1, step=step, images_per_second=speed, **same)
    run.log("epoch", epoch=1, step=10, stage="all", iou=0.5, iou_ema=0.4, best=True)
    for step, speed in ((12, 12.3456), (13, 11.0), (14, 1.0)):
        run.log("step", epoch=2, step=step, images_per_second=speed, **same)
    return run


def watched(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, **more: Any) -> Watch:
    monkeypatch.setattr(records, "status", lambda _: Status(name, **more))
    return Watch(run)


def test_a_run_is_named_as_short_as_it_can_be_written(run: Run, tmp_path: Path) -> None:
    assert Watch(run).name == Watch(Run(tmp_path / "runs" / "a")).name == "runs/a"
    assert Watch(Run("/elsewhere/b")).name == "/elsewhere/b"


def test_the_place_is_that_of_the_newest_record(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watched(begun(run), monkeypatch, "stopped")
    assert watch.share_done() == 14 / 30
    # The median of the last five speeds, to three digits: 999, 20, 12.3, 11, 1.
    assert watch.place() == "epoch 2 of 3, stage all, step 14 of 30, 12.3 images/s"
    run.log("epoch", epoch=2, step=20, stage="late", iou=0.6, iou_ema=0.1)
    watch.refresh()
    assert watch.place() == "epoch 2 of 3, stage late, step 20 of 30, 12.3 images/s"
    assert watch.best() == (
        "best validation IoU 0.500 (epoch 1, within 0.100 of the highest, epoch 2), target 0.72"
    )


def test_before_the_first_step_it_is_told_what_is_done(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(name: str) -> str:
        return watched(run, monkeypatch, name).place()

    assert place("starting") == "loading PyTorch"
    assert place("running") == "reading images and building the network"
    assert place("died") == ""
    watch = watched(run, monkeypatch, "running")
    assert (watch.share_done(), watch.best(), watch.saved()) == (0.0, "", "")
    begun(run)
    again = watched(run, monkeypatch, "starting")  # it goes on
    assert again.place().startswith("loading PyTorch, epoch 2 of 3, stage all, step 14 of 30")
    run.save_json("config", {})
    assert watched(run, monkeypatch, "died").place().startswith("epoch 2 of 1, ")


def test_epochs_alone_have_a_place_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.log("epoch", epoch=1, step=10, iou=0.25, iou_ema=None)
    watch = watched(run, monkeypatch, "died")
    assert watch.place() == "epoch 1 of 1, stage ?" and watch.share_done() == 0.0
    assert watch.best() == "best validation IoU 0.250 (epoch 1), target 0"


def test_how_to_go_on_is_told_for_each_state(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAMOXPERT_KERNEL", raising=False)

    def advice(name: str, **how: Any) -> str:
        return watched(run, monkeypatch, name).advice(**how)

    assert advice("running") == advice("starting") == advice("stopping") == ""
    assert advice("empty") == "No run here yet: runs/a. It is shown as soon as one begins."
    assert advice("gone") == (
        "If it was moved, open it where it is now; if it was deleted, train again."
    )
    assert advice("paused") == "Nothing is lost. To go on: press Resume."
    resumed = "`Dashboard('runs/a').resume()` in a notebook"
    assert advice("paused", buttons=False) == f"Nothing is lost. To go on: {resumed}."
    assert advice("stopped") == (
        "It ended before anything was trained. To start it again: press Resume."
    )
    assert advice("died") == (
        "Nothing was trained yet. Mend the cause, then launch again, or press Resume."
    )
    (run.folder / "last.pt").touch()
    go_on = "press Resume, or type `camoxpert resume runs/a`."
    assert advice("stopped") == f"Everything is saved. To go on: {go_on}"
    assert advice("died") == f"What was saved last is whole. To go on from there: {go_on}"
    assert advice("died", buttons=False) == (
        f"What was saved last is whole. To go on from there: {resumed}, or type "
        "`camoxpert resume runs/a`."
    )


def test_of_a_finished_run_it_is_told_how_to_score_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kernel in ("", "/home/camoxpert-train-not/03_train"):
        monkeypatch.setenv("CAMOXPERT_KERNEL", kernel)
        assert watched(run, monkeypatch, "finished").advice() == (
            "Best weights: `runs/a/best.pt`. Score them: notebook 04_evaluate, or "
            "`camoxpert evaluate --run runs/a`."
        )
    run.log("end", step=3, why="no epoch was better for 5")
    for kernel in ("this notebook", "/kaggle/someone/camoxpert-train"):
        monkeypatch.setenv("CAMOXPERT_KERNEL", kernel)
        assert watched(run, monkeypatch, "finished").advice() == (
            "It ended early: no epoch was better for 5. Best weights: `runs/a/best.pt`. Score "
            "them: the cells below, or `judge`."
        )


def test_of_a_folder_that_is_not_there_it_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.folder.rmdir()
    assert watched(run, monkeypatch, "empty").advice() == (
        "There is no folder runs/a: nothing was trained there, or it was deleted or moved. Name "
        "another run, or train one: notebook 03_train."
    )


@pytest.mark.parametrize("lives", [True, False])
def test_a_run_whose_folder_is_removed_keeps_what_was_seen(
    run: Run, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    pid = os.getpid() if lives else 2**22 + 1  # no process has that number
    watch = watched(begun(run), monkeypatch, "running", pid=pid)
    place = watch.place()
    run.folder.rename("elsewhere")
    monkeypatch.setattr(records, "status", lambda _: Status("empty"))
    for _ in range(2):  # told alike each time
        watch.refresh()
        still = f" Process {pid} still trains and cannot save: `kill {pid}`." if lives else ""
        cause = f"the folder runs/a was deleted or moved.{still}"
        assert watch.status == Status("gone", cause=cause)
    assert place.startswith(watch.place()) and watch.total_epochs == 3


def test_a_run_is_a_line_and_what_follows_from_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = watched(begun(run), monkeypatch, "died", cause="the disk is full")
    (run.folder / "last.pt").touch()
    assert died.line() == (
        "runs/a: died; epoch 2 of 3, stage all, step 14 of 30, 12.3 images/s; best validation "
        "IoU 0.500 (epoch 1), target 0.72\nthe disk is full\nWhat was saved last is whole. To go "
        "on from there: Dashboard('runs/a').resume() in a notebook, or type camoxpert resume "
        "runs/a."
    )
    alive = watched(Run("runs/b"), monkeypatch, "starting", pid=77)
    assert alive.line() == "runs/b: starting (process 77); loading PyTorch"


def test_when_it_was_saved_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.folder / "last.pt").touch()
    moment = time.mktime((2026, 3, 4, 5, 6, 7, 0, 0, -1))
    os.utime(run.folder / "last.pt", (moment, moment))
    run.request("save")
    watch = watched(run, monkeypatch, "died")
    assert watch.saved() == "saved 2026-03-04 05:06:07"  # nobody is there to save
    watch = watched(run, monkeypatch, "running", pid=7)
    assert watch.saved() == "about to save"
    run.request("save", wanted=False)
    assert watch.saved() == "saved 2026-03-04 05:06:07"


def test_the_time_left_is_told_while_it_trains_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    run.log("step", epoch=1, step=1, steps=3, stage="all")  # of a process before
    run.log("start")
    for step in (1, 2, 3):  # ten seconds each, of 30
        run.log("step", epoch=1, step=step, steps=30, stage="all", images_per_second=1.0)
    watch = watched(run, monkeypatch, "running", pid=7)
    assert watch.place() == "epoch 1 of 1, stage all, step 3 of 30, 1 images/s, 0:04:30 left"
    assert "left" not in watched(run, monkeypatch, "paused", pid=7).place()


def test_figures_are_a_row_of_texts() -> None:
    epochs = [
        {"epoch": 1, "seconds": 90.0, "time": 0.0, "images_per_second": 10.0, "iou": 0.2},
        {"epoch": 2, "seconds": 30.0, "time": 60.0, "images_per_second": 30.0, "iou": 0.3},
    ]
    for record, busy in zip(epochs, ([99.4, 50.6], [99.4, 50.6]), strict=True):
        record |= {"gpu_percent": busy, "data_wait_percent": 4.0}
    config = {"batch_size": 8, "target_iou": 0.25}
    assert in_words(performance(epochs, config, ["GPU 0", "GPU 1"])) == {
        "devices": "GPU 0; GPU 1",
        "batch per device": "8",
        "effective batch": "16",
        "epochs": "2",
        "minutes per epoch": "1.00",
        "minutes per epoch, with validation": "1.00",
        "images/s": "15.0",
        "GPU busy": "99 %, 51 %",
        "waiting for data": "4.0 %",
        "training time to IoU 0.25": "2.0 min (epoch 2)",
        "best validation IoU": "0.300 (epoch 2)",
    }
    assert in_words(performance([], config, [])) == {
        "devices": "",
        "batch per device": "8",
        "effective batch": "0",
        "epochs": "0",
        **dict.fromkeys(
            ("minutes per epoch", "minutes per epoch, with validation", "images/s", "GPU busy"),
            "not measured",
        ),
        "waiting for data": "not measured",
        "training time to IoU 0.25": "not reached",
        "best validation IoU": "not measured",
    }
