"""A terminal as people have it: closed early, lost, or of another encoding than UTF-8.

What is printed there may be lost; the work goes on, and files hold what matters.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class Patient:
    """A stream that takes everything, also when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lost = stream, False
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
        except (OSError, ValueError):  # a closed pipe, a lost terminal, a full disk; or closed
            self._lost = True
            self._drop()

    def _drop(self) -> None:
        """Let what is left in the buffer go nowhere, else Python complains of it at its end."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def patient() -> Iterator[None]:
    """Have both standard streams take everything while a command works."""
    _fill()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Patient(each or _nowhere()) for each in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
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
