"""The records of a history: one line of JSON each."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any

Record = dict[str, Any]

NUMBERS = ("time", "epoch", "step", "steps", "seconds", "images_per_second", "data_wait_percent")
SCORES = ("iou", "iou_ema", "train_iou", "val_loss")  # None where a network gave no numbers
ENDS = {"stop": "stopped", "end": "finished"}  # how records name a run's end, and how we do


def finite(value: Any) -> Any:
    """Return None for a number that strict JSON does not know: the loss of a skipped step."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_after(record: Record, epoch: int, step: int) -> bool:
    """Say whether a record tells of what comes after a step of the epoch in progress."""
    if record["kind"] not in ("step", "epoch"):
        return False
    if record["kind"] == "epoch":
        return bool(record.get("epoch", 0) > epoch)
    before = record.get("epoch", 0) - 1  # epochs that were over by then
    return bool(before > epoch or (before == epoch and record.get("step", 0) > step))


def parsed(lines: bytes) -> Iterator[Record]:
    """Yield the records in these lines; others are left out."""
    for line in lines.splitlines():
        # Some may be torn, written by a process that was killed meanwhile.
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and _can_be_read(record):
                yield record


def _can_be_read(record: Record) -> bool:
    """Say whether the values are of the types that readers rely on; by hand any is written."""
    scores = [record.get(key) for key in SCORES if record.get(key) is not None]
    numbers = [record[key] for key in NUMBERS if key in record]
    text = isinstance(record.get("kind"), str)
    return text and all(isinstance(value, (int, float)) for value in (*scores, *numbers))
