"""Why a training ended before its time, left in its folder for people and dashboards."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..data.batches import LoadingError, why_silent
from ..errors import PeerLost, TrainingError
from ..outside.refused import LOCKED, sentence
from ..runs.latest import drop_latest
from ..runs.process import begun
from ..runs.run import Onlooker, Run
from .early import Over


def refused(run: Run, error: Exception) -> TrainingError | None:
    """Return the sentence for what the system refused, as a full disk or a process, if it did."""
    saved = "What was saved before is untouched; go on with" if run.has("last") else "Try again:"
    if isinstance(error, LoadingError) or "DataLoader worker" in str(error):
        said = str(error) if isinstance(error, LoadingError) else why_silent(error)
        return TrainingError(f"{said} {saved} `camoxpert resume {run.folder} --num-workers 0`.")
    if not isinstance(error, OSError):
        return None
    if _is_gone(run, error):
        drop_latest(run.folder)
        return TrainingError(
            f"{run.folder} is not there any more: it was removed or moved while it was trained, so "
            "the training ended. Moved: go on with `camoxpert resume NEW_PLACE`. Removed: nothing "
            "of it is left; train again, and end a training with its Stop button or Ctrl-C first."
        )
    if error.filename is None:
        error.filename = str(run.folder)
    where = {"--checkpoint-dir": run.folder, "CAMOXPERT_CACHE": os.environ.get("CAMOXPERT_CACHE")}
    way_on = f" {saved} `camoxpert resume {run.folder}`." if run.has("last") else ""
    if way_on and error.errno in LOCKED:
        anew = f"camoxpert train --resume-from {run.folder} --checkpoint-dir NEW"
        way_on = f" Or go on in a copy, in another folder: `{anew}`."
    return TrainingError(sentence(error, where) + way_on)


def _is_gone(run: Run, error: OSError) -> bool:
    """Say whether the run's folder was taken away: one that was never made is another matter."""
    if run.folder.is_dir() or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
        return False
    return error.filename is None or Path(error.filename).is_relative_to(run.folder)


def note_failure(run: Run, error: Exception) -> None:
    """Leave the reason in failure.json, unless the folder is another training's.

    What another process said is left with its number and host, by the first process alone.
    """
    if isinstance(run, Onlooker) or run.training_pid() not in (None, os.getpid()):
        return
    reason = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, PeerLost) and error.cause:
        reason |= {key: error.cause[key] for key in ("kind", "process", "host")}
        run.folder.mkdir(parents=True, exist_ok=True)  # it ended before the run began
    if run.folder.exists():
        with contextlib.suppress(OSError, TrainingError):  # the reason may be that nothing fits
            run.save_json("failure", reason)


@contextlib.contextmanager
def explained(run: Run, *, new: bool) -> Iterator[None]:
    """Leave why a training broke in its folder; a `new` one in which nothing was trained goes.

    A run that is over already stays as it is. What the system refused is raised as TrainingError.
    """
    with begun(run.folder, new=new):
        try:
            yield
        except Exception as error:
            reason = refused(run, error) or error
            if not isinstance(reason, Over):
                note_failure(run, reason)
            if reason is not error:
                raise reason from error
            raise


@contextlib.contextmanager
def graceful(run: Run) -> Iterator[None]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request to stop; a second one acts as ever.

    A lost connection may hang up twice, so SIGHUP never does more; under nohup it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, hangup)}
    if before[hangup] == signal.SIG_IGN:
        del before[hangup]

    def ask(number: int, frame: Any) -> None:
        with contextlib.suppress(OSError):  # a disk that is full takes no request: asked anew
            run.request("stop")
        again = signal.SIG_IGN if number == hangup else before[signal.Signals(number)]
        signal.signal(number, again)

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
