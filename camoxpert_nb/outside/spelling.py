"""Names that are like a mistyped one: the near ones alone, as a far guess misleads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LIKE = 0.65  # of 1, as difflib counts equal letters: below it two words share little
_BEHIND = 0.12  # a name so much less like it than the first is no guess of its own


def alike(word: str, known: Iterable[str], most: int = 2, *, least: float = _LIKE) -> list[str]:
    """Return the known names that `word` was meant to be, the nearest first; mostly one or none.

    least: how like it they must be, 0 to 1.
    """
    names = list(known)
    near = difflib.get_close_matches(word, names, len(names) or 1, least)
    ratios = {each: difflib.SequenceMatcher(None, each, word).ratio() for each in near}
    first = sorted(ratios, key=lambda each: (-ratios[each], each))[:most]  # of equals as in a list
    return [name for name in first if ratios[name] > ratios[first[0]] - _BEHIND]


def counted(number: int, noun: str, several: str = "") -> str:
    """Return a number with its noun, in the singular for one; several: a plural without s."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def brief(seconds: float) -> str:
    """Return a time as tables have it: 45 s, 12 min, 1.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def duration(seconds: float) -> str:
    """Return a time in seconds, from two minutes on in minutes, and from 90 on in hours."""
    if seconds < 120:
        return counted(round(seconds), "second") if seconds >= 1 else f"{seconds:.1f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:.1f} hours"
