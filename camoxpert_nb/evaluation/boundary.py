"""Boundary IoU (Cheng et al., CVPR 2021, arXiv:2103.16562): overlap of the outlines alone.

Papers on camouflaged objects give no boundary measure in their tables: S, E, F and MAE are all
there is, so nothing published can be set beside this one. Of the two measures known elsewhere it is
this one because these objects are of all sizes, from under 1 % of the image to most of it. The
boundary F of DAVIS (Perazzi et al., CVPR 2016) matches outlines within 0.8 % of the diagonal,
which forgives a small object everything; Boundary IoU becomes IoU where an object is all outline.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..data.images import Array

_SHARE = 0.02  # of the image's diagonal: how broad the outline is, as the authors have it


def boundary_iou(mask: Array, found: Array) -> float:
    """Return the IoU of two outlines, 0...1; 0 where either mask is empty.

    mask, found: (H, W) uint8 of 0 and 1. A mask's outline is made of its pixels that have one
    outside the mask at most d columns and d rows away, where d is 2 % of the image's diagonal,
    rounded, at least 1. What lies outside the image is in no mask: the image's edge is outline too
    where an object is cut by it. This is what the authors' code computes
    (github.com/bowenc0221/boundary-iou-api, `mask_to_boundary`).
    """
    if not cv2.countNonZero(mask):
        return 0.0
    height, width = mask.shape
    broad = max(1, round(_SHARE * math.hypot(height, width)))
    left, top, wide, high = cv2.boundingRect(cv2.bitwise_or(mask, found))
    used = slice(top, top + high), slice(left, left + wide)
    one, other = _outline(mask[used], broad), _outline(found[used], broad)
    union = cv2.countNonZero(cv2.bitwise_or(one, other))
    return cv2.countNonZero(cv2.bitwise_and(one, other)) / max(union, 1)


def _outline(mask: Array, broad: int) -> Array:
    """Return the pixels of a mask (any part of the image that holds all of it) near its edge."""
    result = mask.copy()
    left, top, wide, high = cv2.boundingRect(mask)
    if wide:
        box = slice(top, top + high), slice(left, left + wide)
        result[box] -= _inner(mask[box], broad)
    return result


def _inner(mask: Array, broad: int) -> Array:
    """Return the pixels around which a square is all object.

    Lines of pixels that are all object are put together of two shorter ones, so that twice the
    length is one operation more, down the columns and then along the rows.
    """
    inner = cv2.copyMakeBorder(mask, *(broad,) * 4, cv2.BORDER_CONSTANT, value=0)
    for turned in (False, True):
        long = 1
        while long < 2 * broad + 1:
            more = min(long, 2 * broad + 1 - long)
            one, other = (
                (inner[:, more:], inner[:, :-more]) if turned else (inner[more:], inner[:-more])
            )
            inner, long = cv2.bitwise_and(one, other), long + more
    return np.asarray(inner, np.uint8)
