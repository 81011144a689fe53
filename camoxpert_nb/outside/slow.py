"""A file that is read for too long is named: it is the disk that hangs, not the training.

Nothing can end such a read; a thread beside it says which file it is and what to do.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 40.0  # seconds for one file
LOOK = 5.0  # seconds between two looks; with PATIENCE less than a minute

_reading: dict[int, tuple[float, Path]] = {}  # of each thread: since when, and which file
_watcher = [0]  # the process whose thread watches: a forked one needs its own


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Have it said where what is done within takes longer than PATIENCE, once a file."""
    if _watcher[0] != os.getpid():
        _watcher[0] = os.getpid()
        _reading.clear()
        threading.Thread(target=_watch, name="slow reads", daemon=True).start()
    own = threading.get_ident()
    _reading[own] = (time.monotonic(), path)
    try:
        yield
    finally:
        _reading.pop(own, None)


def _watch() -> None:
    said: set[tuple[float, Path]] = set()
    while True:
        time.sleep(LOOK)
        now = time.monotonic()
        late = {each for each in [*_reading.values()] if now - each[0] > PATIENCE} - said
        said |= late
        if late:
            logging.getLogger(__package__).warning(_sentence([path for _, path in late]))


def _sentence(paths: list[Path]) -> str:
    more = f" (and {len(paths) - 1} others)" if len(paths) > 1 else ""
    return (
        f"{paths[0]}{more}: reading it takes longer than {PATIENCE:.0f} s. The disk hangs or is "
        "very slow: see whether it is still mounted, or copy the data set to a local disk. This "
        "goes on when the disk answers; Ctrl-C ends it."
    )
