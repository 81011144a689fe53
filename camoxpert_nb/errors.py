"""The errors that are meant for the user; everything else is a defect of the kit.

The command line prints their message without a traceback and ends with their exit code; a notebook
shows the message alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .outside.terminal import paged

STOPPED = 130  # exit code of what was stopped before its end, as shells report Ctrl-C


class KitError(Exception):
    """What the errors of the kit have in common: a message for people, and an exit code."""

    exit_code = 1
    silent = False  # whether somebody else says why

    def _render_traceback_(self, *_: Any, **__: Any) -> list[str]:
        """Return what a notebook shows of it: the sentence, without our lines of code."""
        return paged(str(self)).splitlines() or [type(self).__name__]


class InputError(KitError, ValueError):
    """Something the user gave cannot be used.

    The message says what was found, what was expected and what to change.
    """

    exit_code = 2


class TrainingError(KitError, RuntimeError):
    """A training could not go on; what it had is saved, and the message says how to continue."""


class PeerLost(TrainingError):
    """Another process of this training failed or vanished.

    `cause` is what that one said, if it could: "process" (its number), "host", "kind" and
    "message". It is `silent` where somebody else tells the user.
    """

    exit_code = 3

    def __init__(
        self, message: str, cause: Mapping[str, Any] | None = None, silent: bool = True
    ) -> None:
        super().__init__(message)
        self.cause, self.silent = cause, silent


class RankFailed(TrainingError):
    """A process that was started for a training ended with this exit code.

    It is `silent` when that process has said why.
    """

    def __init__(self, message: str, exit_code: int, silent: bool) -> None:
        super().__init__(message)
        self.exit_code, self.silent = exit_code, silent


def few(names: Sequence[object]) -> str:
    """Return the first three of the names for a message, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(str, names[:3])) + more
