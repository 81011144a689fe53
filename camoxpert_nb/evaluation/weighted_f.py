"""Weighted F (Margolin et al., CVPR 2014): it needs pixels, but only near the object.

Maps stay whole numbers for as long as possible, because eight bits are read and written eight times
as fast as floats: the error of a pixel is a number of levels, which the last line divides.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import Array

Squares = NDArray[np.uint16]
_EPSILON = np.spacing(1.0)  # Matlab's eps, which the original code adds
_RADIUS = 3  # the error is blurred with a 7 x 7 gaussian
_REACH = 160  # pixels: farther away, distance changes the weight of an error by less than 3e-10
_STRIP = 64  # rows that stay in the processor's cache


def weighted_f(image: Array, mask: Array, low: int, high: int, false_alarm: float) -> float:
    """Return weighted F: an error counts less beside a right pixel, more far from the object.

    image, mask: (H, W) uint8, the mask of 0 and 1; low, high: the levels of the image that mean 0
    and 1; false_alarm: the sum of the map over the background.
    """
    total = cv2.countNonZero(mask)
    if total == 0:
        return 0.0
    near = _window(mask, _REACH)
    found, mask = image[near] - np.uint8(low), mask[near]
    used = _window(np.maximum(found, mask), _RADIUS)
    found, mask = found[used], mask[used]
    squared = _squared_distance(mask)
    false = 2 * false_alarm - _forgiven(found, squared) / (high - low)
    missed = _blurred_miss((np.uint8(high - low) - found) * mask, mask, squared) / (high - low)
    recall = 1 - missed / total
    precision = (total - missed) / (total - missed + false + _EPSILON)
    return float(2 * recall * precision / (recall + precision + _EPSILON))


def _squared_distance(mask: Array) -> Squares:
    """Return the squared distance to the object, exact (a whole number), at most 65535.

    Rows and columns that are all object stand between what lies beside them: no background pixel's
    nearest object pixel is beyond. So the parts between are looked at one by one.
    """
    squared = np.zeros(mask.shape, np.uint16)
    for rows in _parts(mask, 1):
        for columns in _parts(mask[rows], 0):
            part = 1 - mask[rows, columns]
            distance = cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            squared[rows, columns] = cv2.multiply(distance, distance, dtype=cv2.CV_16U)
    return squared


def _parts(mask: Array, axis: int) -> list[slice]:
    """Return runs of columns (axis 0) or rows (1) with background, and one line on either side."""
    is_open = cv2.reduce(mask, axis, cv2.REDUCE_MIN).ravel() == 0
    edges = np.flatnonzero(np.diff(is_open, prepend=False, append=False)).tolist()
    runs = zip(edges[::2], edges[1::2], strict=True)
    return [slice(max(start - 1, 0), stop + 1) for start, stop in runs]


def _forgiven(found: Array, squared: Squares) -> float:
    """Return the sum of found levels x decay over the background."""
    total = 0.0
    for top in range(0, len(found), _STRIP):
        strip = slice(top, top + _STRIP)
        decay = _DECAY.take(squared[strip].astype(np.intp))
        total += float(np.einsum("ij,ij", found[strip].astype(np.float64), decay))
    return total


def _blurred_miss(missed: Array, mask: Array, squared: Squares) -> float:
    """Return the sum over the object of min(error, error blurred along with the surroundings).

    missed: the error on the object in levels, 0 around it. The blur's kernel is separable.
    """
    window = _window(mask, _RADIUS)
    layers = (missed[window], mask[window], squared[window], _band(mask[window]))
    # A border, so that no step to the nearest object pixel leaves the array.
    missed, mask, squared, band = (_bordered(layer) for layer in layers)
    spread = _spread(missed, mask, squared, np.flatnonzero(band.view(bool)))
    kernel, border = cv2.getGaussianKernel(2 * _RADIUS + 1, 5), cv2.BORDER_CONSTANT
    blurred = cv2.sepFilter2D(spread, cv2.CV_64F, kernel, kernel, borderType=border)
    return float(np.minimum(missed, blurred, out=blurred).sum())


def _band(mask: Array) -> Array:
    """Return 1 around the object, where the blur can bring something onto it."""
    return np.asarray(cv2.dilate(mask, np.ones((2 * _RADIUS + 1,) * 2, np.uint8)) - mask, np.uint8)


def _spread(error: Array, mask: Array, squared: Squares, around: NDArray[np.intp]) -> Array:
    """Return the error where each of the pixels `around` has that of the nearest object pixel."""
    code = squared.take(around).astype(np.intp)
    source, inside = around.copy(), mask.view(bool)
    places, open_pixels = np.arange(len(around)), around
    for steps in _NEAREST @ (1, mask.shape[1]):
        source[places] = nearest = open_pixels + steps.take(code)
        missing = np.flatnonzero(~inside.take(nearest))
        places, open_pixels, code = (each.take(missing) for each in (places, open_pixels, code))
    spread = error.copy()
    spread.ravel()[around] = error.take(source)
    return spread


def _bordered(layer: NDArray[Any]) -> NDArray[Any]:
    """Return a layer with a border of zeros, wider than the blur's radius."""
    wide = _RADIUS + 1
    bordered = cv2.copyMakeBorder(layer, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(bordered)


def _window(mask: Array, margin: int) -> tuple[slice, slice]:
    """Return the rows and columns of the object's bounding box and a margin around it."""
    left, top, width, height = cv2.boundingRect(mask)
    rows = slice(max(0, top - margin), top + height + margin)
    return rows, slice(max(0, left - margin), left + width + margin)


def _nearest_table() -> NDArray[np.intp]:
    """Return (8, 19, 2): the steps (x, y) of each squared length up to 18, in order of choice.

    Among equally near object pixels SciPy's distance transform takes the leftmost, then topmost.
    """
    grid = list(product(range(-_RADIUS - 1, _RADIUS + 2), repeat=2))
    table = np.zeros((8, 2 * _RADIUS**2 + 1, 2), np.intp)
    for squared in range(table.shape[1]):
        for place, step in enumerate(s for s in grid if s[0] ** 2 + s[1] ** 2 == squared):
            table[place, squared] = step
    return table


_NEAREST = _nearest_table()
# How much of the weight 2 is forgiven at each squared distance; nothing on the object itself.
_DECAY = np.exp(np.log(0.5) / 5 * np.sqrt(np.arange(1 << 16)))
_DECAY[0] = 0
