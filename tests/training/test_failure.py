"""Why a training ended is said as it was: a folder that never was is not one that was removed."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.data.batches import LoadingError, why_silent
from camoxpert_nb.errors import PeerLost, TrainingError
from camoxpert_nb.runs.run import Onlooker, Run
from camoxpert_nb.training.early import Over
from camoxpert_nb.training.failure import explained, graceful, note_failure, refused


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_could_not_be_made_is_not_called_removed(tmp_path: Path, code: int) -> None:
    run = Run(tmp_path / "run")
    said = str(refused(run, OSError(code, os.strerror(code), str(run.folder))))
    assert said.startswith(f"{run.folder}: ") and os.strerror(code) in said
    assert "--checkpoint-dir" in said and "not there any more" not in said


def test_other_files_that_are_missing_are_named_before_there_is_a_folder(tmp_path: Path) -> None:
    run, image = Run(tmp_path / "run"), str(tmp_path / "data" / "1.jpg")
    said = str(refused(run, FileNotFoundError(errno.ENOENT, "No such file or directory", image)))
    assert said.startswith(f"{image}: it is not there")
    gone = FileNotFoundError(errno.ENOENT, "No such file", str(run.folder / "last.pt.part"))
    assert "removed or moved while it was trained" in str(refused(run, gone))


# --- whole sentences


def saved(run: Run) -> Run:
    run.folder.mkdir()
    (run.folder / "last.pt").write_bytes(b"state")
    return run


def told(run: Run, error: Exception) -> str:
    return str(refused(run, error))


def test_a_loading_process_that_ended_names_the_flag_that_does_without(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    way_on = f"`camoxpert resume {run.folder} --num-workers 0`."
    error = LoadingError("a process is gone.")
    assert told(run, error) == f"a process is gone. Try again: {way_on}"
    saved(run)
    kept = "What was saved before is untouched; go on with"
    assert told(run, error) == f"a process is gone. {kept} {way_on}"
    torchs = RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error.")
    assert told(run, torchs) == f"{why_silent(torchs)} {kept} {way_on}"
    assert refused(run, RuntimeError("anything else")) is None


def test_a_folder_that_was_taken_away_is_told_apart(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    gone = (
        f"{run.folder} is not there any more: it was removed or moved while it was trained, so "
        "the training ended. Moved: go on with `camoxpert resume NEW_PLACE`. Removed: nothing of "
        "it is left; train again, and end a training with its Stop button or Ctrl-C first."
    )
    for code in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
        assert told(run, OSError(code, "gone")) == gone
        assert told(run, OSError(code, "gone", str(run.folder))) == gone
    assert told(run, OSError(errno.ENOSPC, "full")).startswith(f"{run.folder}: the disk is full")
    saved(run)
    assert told(run, OSError(errno.ENOENT, "gone")).startswith(f"{run.folder}: it is not there")


def test_what_the_system_refuses_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(Run(tmp_path / "run"))
    go_on = f"What was saved before is untouched; go on with `camoxpert resume {run.folder}`."
    full = "the disk is full: free some space (No space left)"
    change = "Change --checkpoint-dir."
    assert told(run, OSError(errno.ENOSPC, "No space left")) == (
        f"{run.folder}: {full}. {change} {go_on}"
    )
    monkeypatch.setenv("CAMOXPERT_CACHE", str(tmp_path / "cache"))
    place = str(tmp_path / "cache" / "a.npy")
    assert told(run, OSError(errno.ENOSPC, "No space left", place)) == (
        f"{place}: {full}. Change CAMOXPERT_CACHE. {go_on}"
    )
    copy = f"camoxpert train --resume-from {run.folder} --checkpoint-dir NEW"
    for code in (errno.EROFS, errno.EACCES, errno.EPERM):
        said = told(run, OSError(code, "no", str(run.folder / "last.pt")))
        assert said.endswith(f"{change} Or go on in a copy, in another folder: `{copy}`.")


def reason(run: Run) -> dict[str, Any]:
    return run.load_json("failure")


def test_the_reason_is_left_unless_the_folder_is_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    note_failure(run, TrainingError("too large"))
    assert not run.folder.exists()  # nothing is made for it
    run.folder.mkdir()
    note_failure(Onlooker(run.folder), TrainingError("too large"))
    monkeypatch.setattr(run, "training_pid", lambda: os.getpid() + 1)
    note_failure(run, TrainingError("too large"))
    assert reason(run) == {}
    monkeypatch.setattr(run, "training_pid", os.getpid)
    note_failure(run, TrainingError("too large"))
    assert reason(run) == {"kind": "TrainingError", "message": "too large"}
    monkeypatch.setattr(run, "training_pid", lambda: None)
    note_failure(run, KeyError("what"))
    assert reason(run) == {"kind": "KeyError", "message": "'what'"}
    monkeypatch.setattr(run, "save_json", _fails)
    note_failure(run, KeyError("what"))  # the disk is full: nothing more is raised


def _fails(*how: Any) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_what_another_process_said_is_left_with_its_number_and_host(tmp_path: Path) -> None:
    run = Run(tmp_path / "a" / "run")
    lost = PeerLost("process 3 ended")
    lost.cause = {"kind": "ValueError", "process": 3, "host": "there", "message": "odd"}
    note_failure(run, lost)
    assert reason(run) == {
        "kind": "ValueError",
        "message": "process 3 ended",
        "process": 3,
        "host": "there",
    }
    lost.cause = None
    note_failure(run, lost)
    assert reason(run) == {"kind": "PeerLost", "message": "process 3 ended"}


@pytest.mark.parametrize(
    ("error", "raised", "kind"),
    [
        (ValueError("odd"), ValueError, "ValueError"),
        (OSError(errno.ENOSPC, "full"), TrainingError, "TrainingError"),
        (Over("it is over"), Over, None),
    ],
)
def test_a_training_that_breaks_says_why(
    tmp_path: Path, error: Exception, raised: type[Exception], kind: str | None
) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    with pytest.raises(raised) as caught, explained(run, new=False):
        raise error
    assert reason(run).get("kind") == kind
    assert caught.value is error or caught.value.__cause__ is error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_acts_as_ever(
    tmp_path: Path, number: signal.Signals
) -> None:
    """A lost connection may hang up twice: that acts no more."""
    run, seen = Run(tmp_path), list[int]()
    own: dict[Any, Any] = {signal.SIGHUP: signal.SIG_DFL}  # under nohup it is another one
    own |= {each: lambda n, f: seen.append(n) for each in (signal.SIGINT, signal.SIGTERM)}
    before = {each: signal.signal(each, act) for each, act in own.items()}
    try:
        with graceful(run):
            signal.raise_signal(number)
            assert run.wants("stop") and seen == []
            signal.raise_signal(number)
            assert seen == ([] if number == signal.SIGHUP else [number])
        assert {each: signal.getsignal(each) for each in own} == own
    finally:
        for each, act in before.items():
            signal.signal(each, act)


def test_under_nohup_a_lost_connection_does_nothing(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with graceful(Run(tmp_path)):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_leaves_signals_alone(tmp_path: Path) -> None:
    before, seen = signal.getsignal(signal.SIGTERM), list[Any]()

    def work() -> None:
        with graceful(Run(tmp_path)):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert seen == [before]
