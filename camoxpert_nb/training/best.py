"""Which epoch is the best, and whether its raw or averaged weights: above the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .validate import Validation


def choose_weights(scores: Mapping[str, Validation]) -> str:
    """Return "raw" or "ema": the average, unless the raw weights are better by more than chance."""
    if "ema" not in scores:
        return "raw"
    return "ema" if is_as_good(scores["ema"].ious, scores["raw"].ious) else "raw"


def update_best(
    best: dict[str, Any], epoch: int, weights: str, scored: Validation, keep: str = "best"
) -> tuple[dict[str, Any], bool]:
    """Return what is known of the best epoch, and whether this one is it.

    keep: "last" takes every epoch. "best" keeps an earlier one only where it is better than this
    one by more than the paired error over the images: on few images the highest of many epochs is
    chosen by chance. `best` holds "epoch", "iou", "weights", and of the highest "highest" and
    "ious".
    """
    if best and "ious" not in best and scored.iou <= best["iou"] and keep == "best":
        return best, False  # of an older kit, which kept the mean alone
    highest = best.get("highest", {"epoch": epoch, "iou": scored.iou})
    ious = best.get("ious", scored.ious)
    if scored.iou >= highest["iou"] or len(ious) != len(scored.ious):
        highest, ious = {"epoch": epoch, "iou": scored.iou}, scored.ious
    better = scored.iou > best.get("iou", -1.0)  # than what is held: the highest may be gone
    taken = not best or keep == "last" or better or is_as_good(scored.ious, ious)
    this = {"epoch": epoch, "iou": scored.iou, "weights": weights} if taken else best
    return {**this, "highest": highest, "ious": list(ious)}, taken


def is_as_good(ious: Sequence[float], others: Sequence[float]) -> bool:
    """Say whether the mean of `ious` is below that of `others` by no more than its paired error.

    The error is that of the mean difference over the same images, one standard error.
    """
    # A network that gives no numbers finds nothing.
    difference = np.nan_to_num(np.asarray(others)) - np.nan_to_num(np.asarray(ious))
    if len(difference) < 2:
        return bool(difference.sum() <= 0)
    return bool(difference.mean() <= difference.std(ddof=1) / len(difference) ** 0.5)
