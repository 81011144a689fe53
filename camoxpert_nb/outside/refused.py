"""What the system refuses, as a sentence that says what to change."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM)
_ADVICE = {
    errno.ENOENT: "it is not there (any more)",
    errno.EACCES: "the rights do not allow it",
    errno.EPERM: "the rights do not allow it",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of this path is a file, no folder",
    errno.EISDIR: "it is a folder, no file",
    errno.EEXIST: "something of that name is there already",
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the quota is used up: free some space",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "links lead in a circle",
    errno.ESTALE: "the network disk has lost this file: mount it again",
    errno.EIO: "the disk gives an input/output error: copy the data elsewhere and check the disk",
    errno.EMFILE: "too many files are open: raise the limit (`ulimit -n 4096`)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "there is no memory left",
    errno.ETXTBSY: "the file is in use",
    errno.EBUSY: "the file is in use",
    errno.EFBIG: "the file system takes no file of that size",
}


def sentence(error: OSError, options: Mapping[str, Any] | None = None) -> str:
    """Return what was refused, why, and which flag to change.

    options: the values of the flags by their names as typed ("--json"), of which the one is named
    that holds the path; all that may hold paths where none does.
    """
    path, other = _text(error.filename), _text(error.filename2)
    where = f"{path}: " if path else ""
    why = _ADVICE.get(error.errno or 0, "")
    said = error.strerror or str(error) or type(error).__name__
    reason = f"{why} ({said})" if why else said
    flags = [name for name, value in (options or {}).items() if _holds(value, (path, other))]
    change = f" Change {' or '.join(flags)}." if flags else ""
    if not flags and path and error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        change = " Mend that place, or name another one."
    return f"{where}{reason}.{change}"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have what the system refuses within name the file, as a full disk does not by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _holds(value: Any, paths: tuple[str, ...]) -> bool:
    """Say whether a flag's value is one of the paths, or a folder above one."""
    if isinstance(value, list | tuple):
        return any(_holds(each, paths) for each in value)
    if not isinstance(value, str | os.PathLike) or not str(value):
        return False
    base = os.path.abspath(os.path.expanduser(str(value)))  # noqa: PTH100, PTH111 (never fails)
    return any(
        path and os.path.abspath(path).startswith((base + os.sep, base))  # noqa: PTH100
        for path in paths
    )


def _text(name: Any) -> str:
    return os.fsdecode(name) if isinstance(name, bytes | str | os.PathLike) else ""
