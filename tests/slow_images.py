"""Images that are slow to load, in a module of its own: loading processes import it."""

from __future__ import annotations

import time
from typing import Any

from camoxpert_nb.data.batches import PairDataset


class Slow(PairDataset):
    """Takes its time to read a batch."""

    def __getitem__(self, positions: Any) -> Any:
        time.sleep(0.5)
        return super().__getitem__(positions)


class SlowToStart(PairDataset):
    """Takes its time in each process that loads it."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        time.sleep(3.0)
        self.__dict__.update(state)


class Endless:
    """A data set whose disk hangs after the first batches."""

    def __init__(self, good: int) -> None:
        self.good = good

    def __len__(self) -> int:
        return 64

    def __getitem__(self, positions: list[int]) -> Any:
        if self.good <= 0:
            time.sleep(3600)
        self.good -= 1
        return {"index": positions}
