"""Files that are visible whole or not at all, written beside themselves and renamed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ..errors import TrainingError

ENDING = ".part"


def drop_parts(folder: Path) -> None:
    """Remove the halves of a run's files that a killed process left in its folder."""
    for path in folder.glob(f"*{ENDING}"):
        if path.with_suffix("").suffix in (".pt", ".json", ".jsonl", ".csv", ".npz"):
            path.unlink(missing_ok=True)


def in_place(path: Path) -> Path:
    """Return the path of a file of a run, to be written there; a link or pipe there is removed.

    Written through, a link would change a file elsewhere, whosever folder this was, and a pipe
    would wait for a reader for ever.
    """
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            path.unlink()
    return path


def inside(folder: Path, *parts: str) -> Path:
    """Return the path of what is written below a run's folder, rid of links as `in_place`."""
    for part in parts:
        folder = in_place(folder / part)
    return folder


def write_whole(
    path: Path, write: Callable[[IO[bytes]], Any], instead_of: Callable[[], None] = lambda: None
) -> None:
    """Write a run's file beside itself, flush it to disk, and rename it.

    `instead_of` is called when it is whole, just before it gets its name. Raises TrainingError when
    the disk is full; what was saved before stays as it was.
    """
    part = in_place(path.with_name(path.name + ENDING))
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        instead_of()
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        part.unlink(missing_ok=True)
        other = isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT)
        if other or "DataLoader worker" in str(error):  # PyTorch tells of its end anywhere
            raise
        raise TrainingError(
            f"{path} could not be written ({error}): the disk is probably full. What was "
            "saved before is untouched. Free some space, then go on with "
            f"`camoxpert resume {path.parent}`."
        ) from error
