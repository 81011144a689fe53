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
