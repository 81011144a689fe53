"""What the experts' gates have to do with the place: information, against chance.

Gates add up to 1 over the experts at each place. Information is in bits (Shannon, 1948).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

Floats = NDArray[np.float64]


class Dependence(NamedTuple):
    """How much the choice of experts depends on the place.

    place: what knowing the place, image by image, tells of the expert, of at most log2(experts).
    object: what being object or background tells of it; chance: the same with the masks of other
    images, mean and highest of the draws. weights (2, experts): the experts' mean weights on
    objects and on background.
    """

    place: float
    object: float
    chance: float
    highest_chance: float
    weights: Floats

    def __str__(self) -> str:
        return (
            f"how much the choice of the expert depends on the place: {self.place:.3f} bits (0: "
            f"not at all; at most {np.log2(self.weights.shape[1]):.2f}); on object or background: "
            f"{self.object:.4f} bits (by chance, with masks of other images: {self.chance:.4f}, at "
            f"most {self.highest_chance:.4f})"
        )


def dependence(gates: ArrayLike, shares: ArrayLike, draws: int = 100, seed: int = 0) -> Dependence:
    """Return how much the gates depend on the place, over all images.

    `gates` (n, experts, h, w), `shares` (n, h, w): the object's share of each place
    (`object_shares`). With a single image there is no chance to compare with: it is nan. Raises
    InputError for other shapes.
    """
    gates, shares = np.asarray(gates, float), np.asarray(shares, float)
    if gates.ndim != 4 or shares.shape != (len(gates), *gates.shape[2:]):
        raise InputError(
            f"Gates of shape {gates.shape} and object shares of {shares.shape}: give (n, experts, "
            "h, w) and (n, h, w)."
        )
    within = _entropy(gates.mean((2, 3))) - _entropy(gates, axis=1).mean((1, 2))
    rng, chances = np.random.default_rng(seed), []
    for _ in range(draws if len(gates) > 1 else 0):
        order, masks = rng.permutation(len(gates)), np.empty_like(shares)
        masks[order] = shares[np.roll(order, 1)]  # each image gets the mask of another one
        chances.append(_shared(gates, masks)[0])
    found, weights = _shared(gates, shares)
    chance, highest = (np.mean(chances), np.max(chances)) if chances else (np.nan, np.nan)
    return Dependence(float(within.mean()), found, float(chance), float(highest), weights)


def by_place(cells: ArrayLike, size: int, stride: int) -> Floats:
    """Return gates (experts, h, w) at each place of the map at `stride` of a square of `size`.

    `cells` (experts, rows, columns) are those of the map cut into equal squares, of which the last
    of each row and column may hold less.
    """
    gates, places = np.asarray(cells, float), -(-size // stride)
    side = -(-places // gates.shape[1])
    return gates.repeat(side, 1).repeat(side, 2)[:, :places, :places]


def object_shares(mask: NDArray[np.uint8], places: int) -> Floats:
    """Return the object's share of each place, (places, places), of a mask (H, W) of 0 and 1."""
    small = cv2.resize(mask.astype(np.float32), (places, places), interpolation=cv2.INTER_AREA)
    return np.asarray(small, float)


def _shared(gates: Floats, shares: Floats) -> tuple[float, Floats]:
    """Return the information shared by expert and region in bits, and the weights by region."""
    on = np.einsum("nehw,nhw->e", gates, shares) / shares.size
    joint = np.stack([on, gates.mean((0, 2, 3)) - on])  # (object and background, experts)
    region = joint.sum(1, keepdims=True)
    information = _entropy(joint.sum(0)) + _entropy(region[:, 0]) - _entropy(joint.ravel())
    return float(information), joint / np.maximum(region, 1e-12)


def _entropy(p: Floats, axis: int = -1) -> Floats:
    return -(p * np.log2(np.maximum(p, 1e-12))).sum(axis)
