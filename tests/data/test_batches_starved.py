"""Loading that dies or starves is noticed, and says what to do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from slow_images import Endless

from camoxpert_nb.data import batches
from camoxpert_nb.data.batches import Batches, Feed, LoadingError, shared_memory_short
from camoxpert_nb.errors import TrainingError
from camoxpert_nb.runs.run import Run
from camoxpert_nb.training.failure import refused


def feed(good: int, workers: int) -> Feed:
    dataset: Any = Endless(good)
    made = Feed(dataset, Batches(64, 4), workers=workers, pin_memory=False)
    made.begin(0)
    return made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batches.POLL + batches.PATIENCE <= 60  # noticed within a minute
    monkeypatch.setattr(batches, "POLL", 0.5)
    monkeypatch.setattr(batches, "PATIENCE", 1.0)


@pytest.mark.parametrize("good", [0, 2])
def test_a_data_set_that_never_returns_is_noticed(good: int, impatient: None) -> None:
    hanging = feed(good, workers=1)
    coming, started = hanging._coming, time.monotonic()
    with pytest.raises(LoadingError, match=r"--num-workers 0") as caught:
        list(hanging)
    assert "/dev/shm" in str(caught.value) and "--cache-dir" in str(caught.value)
    assert time.monotonic() - started < 60
    for worker in coming._workers:  # type: ignore[union-attr]
        worker.join(10)
        assert not worker.is_alive()  # though it listens to no request to stop


def test_a_worker_that_the_system_kills_is_noticed(impatient: None) -> None:
    living = feed(3, workers=1)
    coming: Any = living._coming
    steps = iter(living)
    next(steps)
    os.kill(coming._workers[0].pid, signal.SIGKILL)
    with pytest.raises((LoadingError, RuntimeError)) as caught:
        list(steps)
    told = refused(Run("runs/x"), caught.value)
    assert isinstance(told, TrainingError) and "resume runs/x --num-workers 0" in str(told)
    assert "a loading process died" in str(told)


def test_a_hang_in_this_process_is_said(impatient: None) -> None:
    said: list[str] = []
    slow = feed(2, workers=0)
    slow.say = said.append
    thread = threading.Thread(target=lambda: list(slow), daemon=True)
    thread.start()
    until = time.monotonic() + 10
    while not said and time.monotonic() < until:
        time.sleep(0.05)
    assert said and "--cache-dir" in said[0]


def test_shared_memory_that_is_too_small_is_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared_memory_short(2, 1) == ""
    assert "--shm-size" in shared_memory_short(2, 2**60)
    assert "--num-workers 0" in shared_memory_short(1, 2**60, 2)
    assert shared_memory_short(0, 2**60) == ""
    monkeypatch.setattr(batches, "SHARED", str(tmp_path / "none"))
    assert shared_memory_short(2, 2**60) == ""


def test_workers_end_when_the_feed_is_closed_whoever_still_holds_it() -> None:
    """A process waits at its end for its workers, for ever if they are not told to end."""
    before = {*multiprocessing.active_children()}
    made = feed(good=64, workers=1)
    begun = iter(made)
    next(begun)  # suspended within an epoch, as at a stop
    (worker,) = {*multiprocessing.active_children()} - before
    made.close()
    assert not worker.is_alive()
    made.close()  # once more does no harm
