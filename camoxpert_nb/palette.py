"""Colours and names that every drawing shares, in a notebook, a file or a browser."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EXPERTS = ("texture", "attention", "hybrid", "frequency", "edge", "context", "contrast")
# Okabe and Ito's palette (Color Universal Design, 2008), told apart by every kind of vision
BLACK, GREY = "#000000", "#8C8C8C"
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW = "#56B4E9", "#D55E00", "#F0E442"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW)
VERDICTS = {"hit": BLUE, "miss": YELLOW, "false alarm": RED}
TERMS = {"loss": BLACK, "structure": BLUE, "deep": ORANGE, "uncertainty": PURPLE, "balance": GREEN}

Array = NDArray[np.uint8]


def found_in(probability: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what a map (H, W) of 0...1 finds, as the metrics take it.

    Where there is an object, the map is stretched to 0...1 before the threshold of 0.5, as the
    field's toolbox does; a flat map stays.
    """
    if mask.any():
        probability = (probability - probability.min()) / (np.ptp(probability) or 1)
    return probability > 0.5


def overlap(found: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float | None:
    """Return the IoU of two maps (H, W); None if there is no object to find."""
    return float((found & mask).sum() / (found | mask).sum()) if mask.any() else None


def compare(image: Array, mask: NDArray[np.bool_], found: NDArray[np.bool_]) -> Array:
    """Return the image (H, W, 3) in pale grey with hits, misses and false alarms in colour."""
    picture = np.repeat(0.35 + 0.5 * image.mean(2, keepdims=True) / 255, 3, 2)
    verdicts = (found & mask, mask & ~found, found & ~mask)
    for where, colour in zip(verdicts, VERDICTS.values(), strict=True):
        picture[where] = 0.35 * picture[where] + 0.65 * np.array([*bytes.fromhex(colour[1:])]) / 255
    return np.rint(picture * 255).astype(np.uint8)
