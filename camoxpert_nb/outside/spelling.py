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
    near = difflib.get_close_matches(word, list(known), most, least)
    ratios = [difflib.SequenceMatcher(None, each, word).ratio() for each in near]
    return [name for name, ratio in zip(near, ratios, strict=True) if ratio > ratios[0] - _BEHIND]
