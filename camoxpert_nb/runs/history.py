"""The records of a history: one line of JSON each."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Record = dict[str, Any]

NUMBERS = ("time", "epoch", "step", "steps", "seconds", "images_per_second", "data_wait_percent")
SCORES = ("iou", "iou_ema", "train_iou", "val_loss")  # None where a network gave no numbers
LARGEST = 1e15  # in any unit: a larger number was never measured, and no clock or axis takes it
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
            record = finite(json.loads(line))
            if isinstance(record, dict) and _can_be_read(record):
                yield record


def _can_be_read(record: Record) -> bool:
    """Say whether the values are of the types that readers rely on; by hand any is written."""
    return (
        isinstance(record.get("kind"), str)
        and all(_is_number(record[key]) for key in NUMBERS if key in record)
        and all(fits(record[key]) for key, fits in _FITS.items() if record.get(key) is not None)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < LARGEST


def _are_numbers(values: Any) -> bool:
    """Say whether these are numbers in a list or by name; None where there was none."""
    each = values.values() if isinstance(values, dict) else values
    known = isinstance(values, (dict, list))
    return known and all(value is None or _is_number(value) for value in each)


def _are_rows(values: Any) -> bool:
    rows = isinstance(values, list) and all(isinstance(row, list) and row for row in values)
    return rows and len({len(row) for row in values}) <= 1 and all(map(_are_all, values))


def _are_all(values: Any) -> bool:
    return all(map(_is_number, values))


def _are_stages(values: Any) -> bool:
    """Say whether these are stages as `training.resume` logs them."""
    return isinstance(values, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("name"), str)
        and _are_all([each.get(key) for key in ("first_epoch", "epochs", "steps", "batch")])
        for each in values
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_named(value: Any) -> bool:
    """Say whether this is a mark of the best epoch, or what an end says of it."""
    if not isinstance(value, dict):
        return isinstance(value, bool)
    numbers = [value[key] for key in ("epoch", "iou") if value.get(key) is not None]
    return _are_all(numbers)


_FITS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(SCORES, _is_number),
    **dict.fromkeys(("loss", "structure", "gradient_norm", "skipped", "mae"), _is_number),
    **dict.fromkeys(("lr", "weighted", "gpu_percent", "gpu_memory_gib"), _are_numbers),
    **dict.fromkeys(("stage", "validation", "weights", "why", "verdict", "message"), _is_text),
    "gates": _are_rows,
    "stages": _are_stages,
    "best": _is_named,
}


class Kept(NamedTuple):
    """The epoch whose weights best.pt holds: its place among the records, and their IoU, 0...1.

    highest: the place with the highest IoU, which may be by chance, and that IoU.
    """

    place: int
    iou: float
    highest: tuple[int, float]


def kept_epoch(epochs: Sequence[Mapping[str, Any]]) -> Kept | None:
    """Return which of these "epoch" records best.pt is of; None where none has a score.

    It is the last that was marked as the best, which need not be the highest (`training.best`).
    Where none is marked it is the highest. Scores over other images than the last do not count.
    """
    scores = [
        score if comparable else None
        for score, comparable in zip(map(score_of, epochs), comparable_epochs(epochs), strict=True)
    ]
    places = [place for place, score in enumerate(scores) if score is not None]
    marked = [place for place in places if epochs[place].get("best")]
    if not places:
        return None
    highest = max(places, key=lambda each: scores[each] or 0.0)
    place = marked[-1] if marked else highest
    return Kept(place, scores[place] or 0.0, (highest, scores[highest] or 0.0))


def behind(epoch: int, iou: float, highest: int, highest_iou: float) -> str:
    """Say how far the epoch that is kept is from the highest score; "" where it is that."""
    if highest == epoch or highest_iou <= iou:
        return ""
    gap = f"{highest_iou - iou:.3f}"
    near = "as good as" if gap == "0.000" else f"within {gap} of"
    return f", {near} the highest, epoch {highest}"


def score_of(record: Mapping[str, Any]) -> float | None:
    """Return an epoch's validation IoU, of those weights, raw or averaged, that it is judged by.

    Older records do not name them: the higher one.
    """
    judged = {"raw": "iou", "ema": "iou_ema"}.get(record.get("weights", ""))
    known = [record.get(key) for key in ([judged] if judged else ["iou", "iou_ema"])]
    return max((score for score in known if score is not None), default=None)


def comparable_epochs(epochs: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Say of each epoch whether it was scored on the images that the last one was scored on."""
    last = epochs[-1].get("validation") if epochs else None
    return [record.get("validation", last) == last for record in epochs]
