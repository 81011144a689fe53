"""How a run is, from what its folder says and who is alive: no process is started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.runs import process
from camoxpert_nb.runs.process import Status, going_on, status, tail
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config

END, STOP, EPOCH = ({"kind": kind, "time": 100.0} for kind in ("end", "stop", "epoch"))
BEFORE, AFTER = {"pid": 5, "started": 90.0}, {"pid": 5, "started": 110.0}
KILLED = {**BEFORE, "trainer": 6}


def made(tmp_path: Path, **parts: Any) -> Run:
    """A run of which these are known: last record, process.json, who lives, requests, failure."""
    run = Run(tmp_path)
    found = {"last": {}, "known": {}, "trainer": None, "starter": None, "asked": "", **parts}
    for name in found["asked"].split():
        run.request(name)
    if failure := found.get("failure"):
        run.save_json("failure", {"message": failure})
    run.newest = lambda: found["last"]  # type: ignore[method-assign]
    run.process = lambda: found["known"]  # type: ignore[method-assign]
    run.training_pid = lambda: found["trainer"]  # type: ignore[method-assign]
    run.starter_pid = lambda: found["starter"]  # type: ignore[method-assign]
    return run


@pytest.mark.parametrize(
    ("parts", "name", "pid"),
    [
        ({}, "empty", None),
        ({"trainer": 6, "last": EPOCH, "known": KILLED}, "running", 6),
        ({"trainer": 6, "asked": "pause"}, "paused", 6),
        ({"trainer": 6, "asked": "save"}, "running", 6),
        ({"trainer": 6, "asked": "pause stop"}, "stopping", 6),  # what it comes to
        ({"starter": 5, "known": BEFORE}, "starting", 5),
        ({"starter": 5, "known": BEFORE, "last": EPOCH}, "running", 5),
        ({"starter": 5, "known": AFTER, "last": EPOCH}, "starting", 5),  # of a stretch before
        ({"starter": 5, "known": BEFORE, "last": END}, "finished", 5),  # it draws figures
        ({"known": BEFORE, "last": END}, "finished", None),
        ({"known": BEFORE, "last": STOP}, "stopped", None),
        ({"starter": 5, "known": AFTER, "last": END}, "starting", 5),  # it goes on
        ({"known": AFTER, "last": END}, "died", None),  # before it went on
        ({"known": BEFORE, "last": EPOCH}, "died", None),
        ({"known": BEFORE, "last": END, "failure": "no disk"}, "died", None),
        ({"known": BEFORE, "asked": "stop"}, "stopped", None),  # before it began
        ({"known": KILLED, "asked": "stop"}, "died", None),
    ],
)
def test_a_status_follows_from_records_and_who_lives(
    tmp_path: Path, parts: dict[str, Any], name: str, pid: int | None
) -> None:
    found = status(made(tmp_path, **parts))
    assert (found.name, found.pid) == (name, pid)
    if "failure" in parts:
        assert found.cause == "no disk"


def test_only_what_has_a_process_and_no_end_trains() -> None:
    alive = [Status(name, 3) for name in ("starting", "running", "paused", "stopping")]
    ended = [Status(name, 3) for name in ("stopped", "finished", "died", "gone")]
    assert all(each.trains and not each.ended for each in alive)
    assert all(each.ended and not each.trains for each in ended)
    assert not Status("starting").trains and not Status("empty").ended


@pytest.mark.parametrize(
    ("killed", "said", "newer", "cause"),
    [
        (False, "a\nb\ncamoxpert: c\nd\n", False, "b\nc\nd"),
        (False, "", False, "the process ended before the training began, without a word."),
        (True, "last words\n", True, "last words"),
        (True, "of another one\n", False, "the process was killed without a word"),
        (True, "", True, "the process was killed without a word"),
    ],
)
def test_a_cause_is_the_last_words_of_this_process(
    tmp_path: Path, killed: bool, said: str, newer: bool, cause: str
) -> None:
    """Words older than the training are those of a process before."""
    run = Run(tmp_path)
    run.save_json("process", {"pid": 5})
    (tmp_path / "stderr.txt").write_text(said)
    moment = (tmp_path / "process.json").stat().st_mtime + (10 if newer else -10)
    os.utime(tmp_path / "stderr.txt", (moment, moment))
    assert process._cause(run, killed).startswith(cause)


def test_the_last_lines_are_whole_whatever_their_length(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    assert tail(path, 3) == []
    path.write_text("\n".join(str(number) * 900 for number in range(10)) + "\n")
    assert tail(path, 2) == ["8" * 900, "9" * 900]
    path.write_text("one\ntwo")
    assert tail(path, 3) == ["one", "two"]


def test_of_several_trainings_the_one_with_these_settings_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the one that began last; a run that ended is none."""
    runs = []
    for place, (epochs, began, alive) in enumerate([(3, 50.0, 1), (9, 99.0, 1), (9, 200.0, 0)]):
        run = Run(tmp_path / str(place))
        run.folder.mkdir()
        run.save_config(make_config("tiny", epochs=epochs))
        run.save_json("process", {"pid": 5, "started": began})
        run.training_pid = lambda alive=alive: alive or None  # type: ignore[method-assign, misc]
        runs.append(run)
    monkeypatch.setattr(process, "_alive_runs", lambda: runs)
    assert going_on(make_config("tiny", epochs=3)) is runs[0]
    assert going_on(make_config("tiny", epochs=5)) is runs[1]
    monkeypatch.setattr(process, "_alive_runs", lambda: runs[2:])
    assert going_on(make_config("tiny", epochs=9)) is None
