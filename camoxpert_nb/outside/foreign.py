"""Code of the user's that the kit calls: what it is called, and what to say when it fails."""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, KitError, TrainingError


def name_of(part: Any) -> str:
    """Return what a function, class or object is called; a lambda by its place."""
    if isinstance(part, str):
        return part
    if isinstance(part, functools.partial):
        return name_of(part.func)
    name = getattr(part, "__name__", type(part).__name__)
    if name != "<lambda>":
        return str(name)
    code = part.__code__
    return f"<lambda in line {code.co_firstlineno} of {Path(code.co_filename).name}>"


def called(part: str, name: str) -> str:
    """Return a part and its name as a sentence has it: loss dice, or your own loss."""
    return f"your own {part}" if name == part else f"{part} {name}"


def listed(names: Mapping[str, str]) -> str:
    """Return parts and their names as loss=dice; a part alone where it is called as it is."""
    return ", ".join(part if name == part else f"{part}={name}" for part, name in names.items())


class OwnFailed(TrainingError):
    """A part of the user's own raised an error; the message names it, and the line."""


@contextlib.contextmanager
def named(part: str, function: Any) -> Iterator[None]:
    """Let an error in the user's own code say whose it is; that memory is short stays as it is."""
    try:
        yield
    except KitError:
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's
            raise
        raise OwnFailed(f"{called(part, name_of(function))} failed: {described(error)}") from error


def described(error: BaseException) -> str:
    """Return an error as ValueError: text (line 3 of my.py), the line being the last one of it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parents[1])
    libraries = (ours, "site-packages", "dist-packages")
    mine = [each for each in frames if not any(part in each.filename for part in libraries)]
    text = str(error).strip().partition("\n")[0]
    place = f" (line {mine[-1].lineno} of {Path(mine[-1].filename).name})" if mine else ""
    return f"{type(error).__name__}: {text}{place}"


@contextlib.contextmanager
def before_training(what: str) -> Iterator[None]:
    """Let an error in the user's own code be one of what was given: nothing was trained yet."""
    try:
        yield
    except OwnFailed as error:
        raise InputError(
            f"{error}. It was tried before the first step, with made-up {what}. Mend it and start "
            "again."
        ) from error.__cause__


def with_article(word: str) -> str:
    """Return the name of a type as a sentence has it."""
    return f"{'an' if word[0] in 'aeiouAEIOU' else 'a'} {word}"
