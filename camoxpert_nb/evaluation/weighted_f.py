"""Weighted F (Margolin et al., CVPR 2014): it needs pixels, but only near the object.

Maps stay whole numbers for as long as possible, because eight bits are read and written eight times
as fast as floats: the error of a pixel is a number of levels, which the last line divides.
"""

from __future__ import annotations

import math
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import Array

Squares = NDArray[np.uint16]
_EPSILON = np.spacing(1.0)  # Matlab's eps, which the original code adds
_RADIUS = 3  # the error is blurred with a 7 x 7 gaussian
_EDGE = _RADIUS + 1
_REACH = 160  # pixels: farther away, distance changes the weight of an error by less than 3e-10
_STRIP = 64  # rows that stay in the processor's cache
_IN_CACHE = 100_000  # pixels of 16 bits, for narrow and wide maps alike
_NEARBY = 40  # pixels: up to here looking at every distance is faster than the exact map
_FAR = 127  # stands for any distance above _NEARBY, and leaves room to add to it in 8 bits
_INEXACT = 1.02  # the 5 x 5 distance map is too small by at most 1.8 %, in the direction (2, 1)
_CELL = 4  # pixels: how finely it is looked how far from the object something was found


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
    squared = _squared_distance(found, mask)
    false = 2 * false_alarm - _forgiven(found, squared) / (high - low)
    missed = _blurred_miss((np.uint8(high - low) - found) * mask, mask, squared) / (high - low)
    recall = 1 - missed / total
    precision = (total - missed) / (total - missed + false + _EPSILON)
    return float(2 * recall * precision / (recall + precision + _EPSILON))


def _squared_distance(found: Array, mask: Array) -> Squares:
    """Return the squared distance to the object, a whole number, at most 65535.

    It is exact where something was found and where the blur reaches, and too large elsewhere.

    Rows and columns that are all object stand between what lies beside them: no background pixel's
    nearest object pixel is beyond. So the parts between are looked at one by one.
    """
    squared = np.zeros(mask.shape, np.uint16)
    reach = _reach(found, mask)
    for rows in _parts(mask):
        for columns in _parts(mask[rows].T):
            part, result = mask[rows, columns], squared[rows, columns]
            if reach <= _NEARBY:
                result[:] = _squared_nearby(part, reach)
            else:
                distance = cv2.distanceTransform(1 - part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                cv2.multiply(distance, distance, result, dtype=cv2.CV_16U)
    return squared


def _reach(found: Array, mask: Array) -> int:
    """Return a distance beyond which nothing was found, or one above _NEARBY.

    Pixels of two cells are at most the cells' distance and a diagonal apart. That is never less
    than the blur needs (_RADIUS and a diagonal).
    """
    coarse = (slice(None, None, _CELL),) * 2
    apart = _INEXACT * cv2.distanceTransform(1 - _cells(mask), cv2.DIST_L2, cv2.DIST_MASK_5)
    reach = 0
    for layer in (found[coarse], _cells(found)):  # a sample tells of most maps that they are full
        farthest = apart[layer > 0].max(initial=0)
        reach = max(reach, math.ceil(_CELL * (farthest + math.sqrt(2))))
        if reach > _NEARBY:
            break
    return reach


def _cells(layer: Array) -> Array:
    """Return the maximum of each square cell of pixels."""
    largest = cv2.dilate(layer, np.ones((_CELL, _CELL), np.uint8), anchor=(0, 0))
    return np.ascontiguousarray(largest[::_CELL, ::_CELL])


def _squared_nearby(mask: Array, reach: int) -> Squares:
    """Return the squared distance where it is at most `reach`, and no less than it elsewhere.

    First down and up the columns, in steps that double. Then along the rows: after i rounds a value
    has come i pixels far, at the cost 1 + 3 + 5 + ... = i * i. A few operations on small numbers
    for each pixel of reach are less work than the exact map, which looks at any distance.
    """
    # Rows lie one behind the other, with a gap that nothing crosses in so many rounds.
    gap = cv2.copyMakeBorder(1 - mask, 0, 0, reach, 1, cv2.BORDER_CONSTANT, value=1)
    down = gap * np.uint8(_FAR)
    for step in (1 << power for power in range(reach.bit_length())):
        moved = down + np.uint8(step)
        np.minimum(down[step:], moved[:-step], out=down[step:])
        np.minimum(down[:-step], moved[step:], out=down[:-step])
    squared = np.multiply(down, down, dtype=np.uint16)
    rows = max(1, _IN_CACHE // squared.shape[1])
    for top in range(0, len(squared), rows):
        line = squared[top : top + rows].ravel()
        beside = np.empty_like(line[2:])
        for odd in range(1, 2 * reach, 2):
            np.minimum(line[:-2], line[2:], out=beside)
            beside += np.uint16(odd)
            np.minimum(line[1:-1], beside, out=line[1:-1])
    return squared[:, reach:-1]


def _parts(mask: Array) -> list[slice]:
    """Return runs of rows with background, and one row on either side."""
    is_open = np.ones(len(mask), bool)
    filled = np.flatnonzero(mask[:, 0])  # mostly none: no need to look at the others
    is_open[filled] = mask[filled].min(axis=1) == 0
    edges = np.flatnonzero(np.diff(is_open, prepend=False, append=False)).tolist()
    runs = zip(edges[::2], edges[1::2], strict=True)
    return [slice(max(start - 1, 0), stop + 1) for start, stop in runs]


def _forgiven(found: Array, squared: Squares) -> float:
    """Return the sum of found levels x decay over the background."""
    total = 0.0
    for top in range(0, len(found), _STRIP):
        strip = slice(top, top + _STRIP)
        if not found[strip].any():
            continue
        decay = _DECAY.take(squared[strip].ravel(), mode="clip")  # "raise" would take twice as long
        total += float(found[strip].ravel().astype(np.float64) @ decay)
    return total


def _blurred_miss(missed: Array, mask: Array, squared: Squares) -> float:
    """Return the sum over the object of min(error, error blurred along with the surroundings).

    missed: the error on the object in levels, 0 around it. The blur's kernel is separable.
    """
    window = _window(mask, _RADIUS)
    missed, mask = _bordered(missed[window]), mask[window]
    spread = _spread(missed, mask, squared[window])
    kernel, total = cv2.getGaussianKernel(2 * _RADIUS + 1, 5), 0.0
    for top in range(_EDGE, len(missed) - _EDGE, 2 * _STRIP):
        error = missed[top : min(top + 2 * _STRIP, len(missed) - _EDGE)]
        source = spread[top - _RADIUS : top + len(error) + _RADIUS]
        blurred = cv2.sepFilter2D(
            source, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT
        )[_RADIUS:-_RADIUS]
        total += float(np.minimum(error, blurred, out=blurred).sum())
    return total


def _band(mask: Array) -> Array:
    """Return 1 around the object, where the blur can bring something onto it."""
    return np.asarray(cv2.dilate(mask, np.ones((2 * _RADIUS + 1,) * 2, np.uint8)) - mask, np.uint8)


def _spread(error: Array, mask: Array, squared: Squares) -> Array:
    """Return the error where each pixel around the object has that of the nearest object pixel.

    error: with a border, so that no step to the nearest object pixel leaves the array.
    """
    around = np.flatnonzero(_band(mask).view(bool))
    code = squared.take(around).astype(np.intp)
    wide = error.shape[1]
    inside = _bordered(mask).view(bool).ravel()
    around += around // mask.shape[1] * (wide - mask.shape[1]) + _EDGE * (wide + 1)
    source, places, open_pixels = around.copy(), np.arange(len(around)), around
    for steps in _NEAREST @ (1, wide):
        source[places] = nearest = open_pixels + steps.take(code)
        missing = np.flatnonzero(~inside.take(nearest))
        places, open_pixels, code = (each.take(missing) for each in (places, open_pixels, code))
    spread = error.copy()
    spread.ravel()[around] = error.take(source)
    return spread


def _bordered(layer: Array) -> Array:
    """Return a layer with a border of zeros, wider than the blur's radius."""
    border = cv2.copyMakeBorder(layer, *(_EDGE,) * 4, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(border, np.uint8)


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
