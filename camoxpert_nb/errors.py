"""The two errors that are meant for the user; everything else is a defect of the kit."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message says what was found, what was expected and what to change. The command line prints
    it without a traceback and ends with exit code 2; a notebook shows it as an ordinary exception.
    """


class TrainingError(RuntimeError):
    """A training could not go on; what it had is saved, and the message says how to continue.

    The command line prints it without a traceback and ends with exit code 1.
    """
