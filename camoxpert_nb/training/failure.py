"""Why a training ended before its time, left in its folder for people and dashboards."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from ..errors import PeerLost, TrainingError
from ..runs.run import Onlooker, Run

FULL = (errno.ENOSPC, errno.EDQUOT)


def full_disk(run: Run, error: Exception) -> TrainingError | None:
    """Return the sentence for a disk on which nothing fits any more, if it was that."""
    if not isinstance(error, OSError) or error.errno not in FULL:
        return None
    return TrainingError(
        f"{error.filename or run.folder} could not be written ({error.strerror}). What was saved "
        f"before is untouched. Free some space, then go on with `camoxpert resume {run.folder}`."
    )


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
def graceful(run: Run) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; the second one acts as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        run.request("stop")
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
