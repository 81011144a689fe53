"""A terminal as people have it: closed early, lost, or of another encoding than UTF-8.

What is printed there may be lost; the work goes on, and files hold what matters.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

LEFT = (errno.EPIPE, errno.EIO, errno.EBADF)  # whoever read has gone: `| head`, a lost terminal


class Patient:
    """A stream that takes everything, also when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lost = stream, False
        self.failure: OSError | None = None  # why it was lost, where nobody wanted that
        with suppress(AttributeError, OSError, ValueError):  # characters it lacks are spelled out
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        """Write, or do nothing once the stream is lost."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing once the stream is lost."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Say whether somebody may watch."""
        return not self._lost and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, function: Any) -> None:
        if self._lost:
            return
        try:
            function()
        except (OSError, ValueError) as error:  # a closed pipe, a lost terminal, a full disk
            self._lost = True
            if isinstance(error, OSError) and error.errno not in LEFT:
                self.failure = error
            self._drop()

    def _drop(self) -> None:
        """Let what is left in the buffer go nowhere, else Python complains of it at its end."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def patient() -> Iterator[list[OSError]]:
    """Have both standard streams take everything while a command works.

    The list holds afterwards why the output could not be written, unless nobody reads it any more.
    """
    _fill()
    before = sys.stdout, sys.stderr
    own, failures = [Patient(each or _nowhere()) for each in before], list[OSError]()
    sys.stdout, sys.stderr = own
    try:
        yield failures
    finally:
        for stream in own:
            stream.flush()
        failures += [stream.failure for stream in own if stream.failure]
        sys.stdout, sys.stderr = before


def _fill() -> None:
    """Open what was closed (`>&-`), else the next file that is opened would be the output."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 (lives as long as we)
