"""Folders for what is not whole yet; those of a killed process go when the next one comes.

A process that is killed removes nothing. So each such folder holds a file that is locked while its
process lives: the system itself lets go of it, and whoever comes next removes what nobody holds.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

ENDING, LOCK = ".part", "held"
FORGOTTEN = 24 * 3600.0  # seconds after which a folder goes where a disk knows no locks


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """Yield a new folder in `folder`, on its disk, for files of this `name`; it goes at the end.

    Those of the same name that killed processes left go, too. Raises OSError where there can be
    none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, name)
    place, file = _held_folder(folder, name)
    try:
        yield place
    finally:
        _remove(place)
        file.close()


def sweep(folder: Path, name: str) -> None:
    """Remove what killed processes left in `folder` of files of this name."""
    with suppress(OSError):
        there = [each for each in folder.iterdir() if each.name.startswith(f".{name}.")]
        for place in there:
            if place.suffix == ENDING and place.is_dir():
                _remove_if_free(place)


def _held_folder(folder: Path, name: str) -> tuple[Path, IO[str]]:
    """Make and lock a folder; one that was swept before it was locked is made anew."""
    while True:
        place = folder / f".{name}.{uuid.uuid4().hex}{ENDING}"
        place.mkdir()
        with suppress(FileNotFoundError):
            file = (place / LOCK).open("w")
            with suppress(ImportError, OSError):  # Windows; a disk without locks
                _lock(file, wait=True)
            if (place / LOCK).exists():
                return place, file
            file.close()


def _lock(file: IO[str], *, wait: bool) -> None:
    """Lock an open file until it is closed; BlockingIOError if another process has."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _remove_if_free(place: Path) -> None:
    try:
        with (place / LOCK).open("r+") as file:
            _lock(file, wait=False)
            _remove(place)
    except FileNotFoundError:  # just made, or removed but for the folder
        with suppress(OSError):
            place.rmdir()
    except BlockingIOError:
        return
    except (ImportError, OSError):
        if time.time() - place.stat().st_mtime > FORGOTTEN:
            _remove(place)


def _remove(place: Path) -> None:
    """Remove a scratch folder, its lock last: if this process is killed meanwhile, others do."""
    with suppress(OSError):
        for each in [each for each in place.iterdir() if each.name != LOCK]:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        (place / LOCK).unlink()
        place.rmdir()
