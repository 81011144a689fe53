"""Weighted F (Margolin et al., CVPR 2014): it needs pixels, but only near the object."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import Array

Floats = NDArray[np.float64]
_EPSILON = np.spacing(1.0)  # Matlab's eps, which the original code adds
_RADIUS = 3  # the error is blurred with a 7 x 7 gaussian
_REACH = 160  # pixels: farther away, distance changes the weight of an error by less than 3e-10


def weighted_f(image: Array, levels: Floats, mask: Array, false_alarm: float) -> float:
    """Return weighted F: an error counts less beside a right pixel, more far from the object.

    image, mask: (H, W) uint8, the mask of 0 and 1; levels (256,): the value of each level of the
    image; false_alarm: the sum of the map over the background.
    """
    total = cv2.countNonZero(mask)
    if total == 0:
        return 0.0
    near = _window(mask, _REACH)
    image, mask = image[near], mask[near]
    alarm = np.asarray(cv2.LUT(image, (levels > 0).astype(np.uint8)), np.uint8)
    used = _window(mask | alarm, _RADIUS)
    image, mask = image[used], mask[used]
    squared = _squared_distance(mask)
    false = 2 * false_alarm - _forgiven(image, levels, squared)
    missed = _blurred_miss(image, levels, mask, squared)
    recall = 1 - missed / total
    precision = (total - missed) / (total - missed + false + _EPSILON)
    return float(2 * recall * precision / (recall + precision + _EPSILON))


def _squared_distance(mask: Array) -> NDArray[np.uint16]:
    """Return the squared distance to the object, exact (a whole number), at most 65535."""
    distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(cv2.multiply(distance, distance, dtype=cv2.CV_16U), np.uint16)


def _forgiven(image: Array, levels: Floats, squared: NDArray[np.uint16]) -> float:
    """Return the sum of map x decay over the background, in strips that stay in the cache."""
    total = 0.0
    for top in range(0, len(image), 64):
        strip = slice(top, top + 64)
        decay = _DECAY.take(squared[strip].astype(np.intp))
        total += float(np.einsum("ij,ij", cv2.LUT(image[strip], levels), decay))
    return total


def _blurred_miss(image: Array, levels: Floats, mask: Array, squared: NDArray[np.uint16]) -> float:
    """Return the sum over the object of min(error, error blurred along with the surroundings).

    Around the object each pixel takes the error of the object pixel nearest to it. The blur's
    kernel is separable, and only pixels up to 3 away can matter.
    """
    window = _window(mask, _RADIUS)
    band = cv2.dilate(mask[window], np.ones((7, 7), np.uint8)) - mask[window]
    layers = (image[window], mask[window], band, squared[window])
    # A border, so that no step to the nearest object pixel leaves the array.
    image, mask, band, squared = (np.pad(layer, _RADIUS + 1) for layer in layers)
    error = np.asarray(cv2.LUT(image, 1 - levels), np.float64)
    error *= mask
    steps = _NEAREST @ (1, error.shape[1])
    flat, open_pixels = error.ravel(), np.flatnonzero(band.view(bool))  # flat is a view
    for choice in range(steps.shape[1]):
        nearest = open_pixels + steps[squared.ravel()[open_pixels], choice]
        hit = mask.ravel()[nearest] > 0
        flat[open_pixels[hit]] = flat[nearest[hit]]
        open_pixels = open_pixels[~hit]
    kernel = cv2.getGaussianKernel(2 * _RADIUS + 1, 5)
    blurred = cv2.sepFilter2D(error, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    return float(np.einsum("ij,ij", np.minimum(error, blurred, out=blurred), mask))


def _window(mask: Array, margin: int) -> tuple[slice, slice]:
    """Return the rows and columns of the object's bounding box and a margin around it."""
    left, top, width, height = cv2.boundingRect(mask)
    rows = slice(max(0, top - margin), top + height + margin)
    return rows, slice(max(0, left - margin), left + width + margin)


def _nearest_table() -> NDArray[np.intp]:
    """Return (19, 8, 2): the steps (x, y) of each squared length up to 18, in order of choice.

    Among equally near object pixels SciPy's distance transform takes the leftmost, then topmost.
    """
    grid = list(product(range(-_RADIUS - 1, _RADIUS + 2), repeat=2))
    table = np.zeros((2 * _RADIUS**2 + 1, 8, 2), np.intp)
    for squared, steps in enumerate(table):
        for place, step in enumerate(s for s in grid if s[0] ** 2 + s[1] ** 2 == squared):
            steps[place] = step
    return table


_NEAREST = _nearest_table()
# How much of the weight 2 is forgiven at each squared distance; nothing on the object itself.
_DECAY = np.exp(np.log(0.5) / 5 * np.sqrt(np.arange(1 << 16)))
_DECAY[0] = 0
