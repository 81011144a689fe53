"""What is broken on purpose, how often, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tally:
    """How many faults were tried, and what was lost by those that did harm, each in a sentence."""

    tried: int = 0
    lost: list[str] = field(default_factory=list)
    skipped: str = ""  # why this cannot be tried here

    def count(self, harmless: bool, what: str) -> None:
        """Count one more fault; `what` says how it was made and what it did."""
        self.tried += 1
        if not harmless:
            self.lost.append(what)


@dataclass(frozen=True)
class Fault:
    """A kind of fault, tried `many` times by `make faults`, `few` times among the other tests.

    work: takes an empty folder, how often to try and the seed of all that is random.
    """

    name: str
    promise: str  # what holds in spite of it, in a few words for the table
    work: Callable[[Path, int, int], Tally]
    few: int
    many: int
