"""The records of a history: one line of JSON each."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

Record = dict[str, Any]

ENDS = {"stop": "stopped", "end": "finished"}  # how records name a run's end, and how we do


def finite(value: Any) -> Any:
    """Return None for a number that strict JSON does not know: the loss of a skipped step."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_after(record: Record, epoch: int, step: int) -> bool:
    """Say whether a record tells of what comes after a step of the epoch in progress."""
    if record["kind"] not in ("step", "epoch"):
        return False
    if record["kind"] == "epoch":
        return bool(record["epoch"] > epoch)
    before = record["epoch"] - 1  # epochs that were over by then
    return bool(before > epoch or (before == epoch and record["step"] > step))


def parsed(lines: bytes) -> Iterator[Record]:
    """Yield the records in these lines; others are left out."""
    for line in lines.splitlines():
        # Some may be torn, written by a process that was killed meanwhile.
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("kind"), str):
                yield record
