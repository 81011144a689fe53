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
    chosen by chance. `best` holds "epoch", "iou", "weights", of the highest "highest" and "ious",
    and in "better" the last epoch that was better than all before by more than that error.
    """
    if best and "ious" not in best and scored.iou <= best["iou"] and keep == "best":
        return best, False  # of an older kit, which kept the mean alone
    highest = best.get("highest", {"epoch": epoch, "iou": scored.iou})
    ious = best.get("ious", scored.ious)
    if scored.iou >= highest["iou"] or len(ious) != len(scored.ious):
        highest, ious = {"epoch": epoch, "iou": scored.iou}, scored.ious
    above = scored.iou > best.get("iou", -1.0)  # what is held: the highest may be gone
    taken = not best or keep == "last" or above or is_as_good(scored.ious, ious)
    this = {"epoch": epoch, "iou": scored.iou, "weights": weights} if taken else best
    better = last_better(best)
    if not better or _is_better(scored, better):
        better = {"epoch": epoch, "iou": scored.iou, "ious": list(scored.ious)}
    return {**this, "highest": highest, "ious": list(ious), "better": better}, taken


def last_better(best: dict[str, Any]) -> dict[str, Any]:
    """Return "epoch", "iou" and "ious" of the last epoch that was better by more than chance.

    Older kits knew only the highest one. Empty while there is none.
    """
    if not best or "better" in best:
        return dict(best.get("better", {}))
    return {**best.get("highest", best), "ious": best.get("ious", [])}


def _is_better(scored: Validation, than: dict[str, Any]) -> bool:
    """Say whether these scores are above those of another epoch by more than chance."""
    if len(than["ious"]) != len(scored.ious):
        return bool(scored.iou > than["iou"])
    return not is_as_good(than["ious"], scored.ious)


def is_as_good(ious: Sequence[float], others: Sequence[float]) -> bool:
    """Say whether the mean of `ious` is below that of `others` by no more than its paired error.

    The error is that of the mean difference over the same images, one standard error.
    """
    # A network that gives no numbers finds nothing.
    difference = np.nan_to_num(np.asarray(others)) - np.nan_to_num(np.asarray(ious))
    if len(difference) < 2:
        return bool(difference.sum() <= 0)
    return bool(difference.mean() <= difference.std(ddof=1) / len(difference) ** 0.5)
