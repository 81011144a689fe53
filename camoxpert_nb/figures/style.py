"""Colours and names that every drawing shares, in a notebook, a file or a browser."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..data.images import Array

# Okabe and Ito's palette (Color Universal Design, 2008), told apart by every kind of vision
BLACK, GREY = "#000000", "#8C8C8C"
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW = "#56B4E9", "#D55E00", "#F0E442"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW)
VERDICTS = {"hit": BLUE, "miss": YELLOW, "false alarm": RED}
TERMS = {"structure": BLUE, "deep": ORANGE, "uncertainty": PURPLE, "balance": GREEN}


def loss_name(own: Mapping[str, str]) -> str:
    """Return what the loss of a run is called: structure, or the name of the user's own.

    `own` are the names of the user's own parts, by part.
    """
    name = own.get("loss") or "structure"
    taken = name in ("loss", *TERMS) or name.startswith("_")  # a legend leaves the latter out
    return f"your own {name}" if taken and own.get("loss") else name


def error_map(image: Array, mask: NDArray[np.bool_], found: NDArray[np.bool_]) -> Array:
    """Return the image (H, W, 3) in pale grey with hits, misses and false alarms in colour."""
    picture = np.repeat(0.35 + 0.5 * image.mean(2, keepdims=True) / 255, 3, 2)
    verdicts = (found & mask, mask & ~found, found & ~mask)
    for where, colour in zip(verdicts, VERDICTS.values(), strict=True):
        picture[where] = 0.35 * picture[where] + 0.65 * np.array([*bytes.fromhex(colour[1:])]) / 255
    return np.rint(picture * 255).astype(np.uint8)
