"""Curves where a stage begins: what jumps there stands upright."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Records = Sequence[Mapping[str, Any]]
Values = NDArray[np.float64]


def upright(x: Values, records: Records) -> tuple[Values, Records]:
    """Return points in which the rate of a new stage stands from its beginning on.

    Between two records of different stages lie two more, both where the later one begins.
    """
    places, drawn = list[float](), list[Mapping[str, Any]]()
    for at, record in zip(x, records, strict=True):
        if drawn and drawn[-1].get("stage") != record.get("stage"):
            began = min(max(record.get("epoch", 1) - 1.0, places[-1]), at)
            places += [began, began]
            drawn += [drawn[-1], record]
        places.append(at)
        drawn.append(record)
    return np.array(places), drawn
