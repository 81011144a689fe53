"""How good a map is: the measures of camouflaged object detection, exactly those of the field.

All but Boundary IoU equal pysodmetrics 1.6 on the same 8-bit map (the tests hold them side by side)
and are computed 7 to 34 times as fast (LOG.md). S, E, F, IoU, Dice and MAE need no pixels, only how
often each of the 256 levels occurs inside and outside the object in each quadrant: one histogram.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import Array
from ..errors import InputError
from .boundary import boundary_iou
from .weighted_f import weighted_f

Floats = NDArray[np.float64]
Part = tuple[slice, slice]

OF_THE_FIELD = (  # those of pysodmetrics
    *("iou", "dice", "s_measure", "weighted_f", "mean_e", "adaptive_e", "max_e"),
    *("mean_f", "adaptive_f", "max_f", "mae"),
)
MEASURES = (*OF_THE_FIELD, "boundary_iou")
_LEVELS = np.arange(256) / 255
_TIE = 1e-9  # far above what the order of a sum changes, far below a level
_EPSILON = np.spacing(1.0)  # Matlab's eps, which the original code of the measures adds


class Measured(NamedTuple):
    """What `measure` finds in one image.

    values: the twelve MEASURES and "raw_mae" (MAE without min-max), "false_alarm" (share of the
    background above 0.5, without min-max), "object_share" (share of the image that is object), and
    "intersection" and "union" (pixels of map and mask behind the IoU, which pooled IoU adds up).
    curves: "e", "f", "iou", "precision", "recall", each (256,) float64: of the map where it is at
    least t / 255, for t = 0...255.
    """

    values: dict[str, float]
    curves: dict[str, Floats]


def measure(
    probability: NDArray[Any], mask: NDArray[Any], ignored: NDArray[np.bool_] | None = None
) -> Measured:
    """Return all measures of one image, with its threshold curves.

    probability: (H, W) uint8 0...255, or float 0...1 which is rounded to 8 bits as a PNG would be;
    mask: (H, W) of 0 and 1. Like the field's toolbox, the map is stretched to 0...1 first, and a
    constant map is left as it is. IoU and Dice: stretched map > 0.5; for an empty mask both are 0
    whatever is predicted. Where pysodmetrics gives NaN as S (the object's centroid is on the last
    row or column), the empty quadrants count nothing. Raises InputError for another shape, range
    or type. The max E and F of a set are the maximum of the mean curve, not the mean of the maxima.

    ignored: (H, W), true where pixels count nowhere: they are left out of the histograms of which
    all measures are made; weighted F and Boundary IoU take them for background in which nothing was
    found.

    IoU, Dice: overlap. S: Fan et al., ICCV 2017. Weighted F: Margolin et al., CVPR 2014.
    E: Fan et al., IJCAI 2018. F (beta^2 = 0.3): Achanta et al., CVPR 2009. Boundary IoU, of the
    same two masks as IoU: Cheng et al., CVPR 2021 (`boundary`).
    """
    image, mask = _checked(probability, mask)
    if ignored is not None and not ignored.any():
        ignored = None
    low, high = _range(image if ignored is None else image[~ignored])
    if ignored is not None:
        image, mask = np.where(ignored, np.uint8(low), image), np.where(ignored, np.uint8(0), mask)
    levels, parts = _stretched_levels(low, high), _quadrants(mask)
    histogram = np.stack([_histogram(image[part], mask[part]) for part in parts])
    exact = image if ignored is None else None  # the toolbox knows of no ignored pixels
    if ignored is not None:
        histogram[:, 0, low] -= [np.count_nonzero(ignored[part]) for part in parts]
    means = [_mean(exact, levels, *each) for each in zip(parts, histogram.sum(1), strict=True)]
    background, foreground = histogram.sum(0)
    threshold = _adaptive_threshold(exact, levels, background + foreground)
    curves, single = _threshold_measures(background, foreground, levels, threshold)
    values = {
        **single,
        "s_measure": _s_measure(histogram, levels, means),
        "weighted_f": weighted_f(image, mask, low, high, background @ levels),
        "mae": _absolute_error(background, foreground, levels),
        "boundary_iou": boundary_iou(mask, _found(image, levels)),
        "raw_mae": _absolute_error(background, foreground, _LEVELS),
        "false_alarm": float(background[_LEVELS > 0.5].sum() / max(background.sum(), 1)),
        "object_share": float(foreground.sum() / max(histogram.sum(), 1)),
    }
    return Measured(values, curves)


class Cut(NamedTuple):
    """A map cut at thresholds, as pictures show it.

    stretched: (H, W), the values that were cut: min-max where there is an object, as in `measure`;
    without one as they are, or an image of nothing would always hold something. found: (H, W) bool,
    above the first threshold; iou: its IoU, None without an object. curves: at each threshold
    "iou", "f" and "false_alarm" (share of the image, found outside the mask).
    """

    stretched: Floats
    found: NDArray[np.bool_]
    iou: float | None
    curves: dict[str, Floats]


def cut(probability: NDArray[Any], mask: NDArray[Any], *thresholds: float) -> Cut:
    """Cut a map at thresholds of 0...1, by default 0.5; map and mask are as in `measure`."""
    image, mask = _checked(probability, mask)
    levels = _stretched_levels(*_range(image)) if mask.any() else _LEVELS
    above = levels > np.array(thresholds or [0.5])[:, None]
    foreground, background = (
        np.bincount(image[part], minlength=256).astype(float) for part in (mask > 0, mask == 0)
    )
    curves = _overlap(above @ foreground, above @ background, foreground.sum())
    curves["false_alarm"] = above @ background / mask.size
    iou = float(curves["iou"][0]) if mask.any() else None
    return Cut(levels[image], above[0][image], iou, curves)


def _checked(probability: NDArray[Any], mask: NDArray[Any]) -> tuple[Array, Array]:
    image, binary = _as_8bit(probability), _as_mask(mask)
    if image.shape != binary.shape:
        raise InputError(
            f"The map has (height, width) {image.shape}, the mask {binary.shape}. "
            "Resize the map to the mask's size before measuring."
        )
    return image, binary


def _as_8bit(probability: NDArray[Any]) -> Array:
    if probability.ndim != 2 or probability.size == 0:
        raise InputError(f"A map must be (H, W); this one has the shape {probability.shape}.")
    if probability.dtype == np.uint8:
        return np.ascontiguousarray(probability)
    low, high = probability.min(), probability.max()
    if not (probability.dtype.kind == "f" and low >= 0 and high <= 1):  # also refuses NaN
        raise InputError(
            f"A map must be uint8 or float of 0...1; this one is {probability.dtype} from {low} to "
            f"{high}. Apply the sigmoid to logits, and divide other ranges by their maximum."
        )
    return np.ascontiguousarray(np.rint(probability * 255), np.uint8)


def _as_mask(mask: NDArray[Any]) -> Array:
    binary = np.ascontiguousarray(mask, np.uint8)
    if mask.dtype not in (np.uint8, np.bool_) or binary.max(initial=0) > 1:
        raise InputError(
            f"A mask must be uint8 or bool of 0 and 1; this one is {mask.dtype} up to "
            f"{mask.max(initial=0)}. Read it with masks.read_mask."
        )
    return binary


def _range(image: Array) -> tuple[int, int]:
    """Return the levels that mean 0 and 1 after min-max, which leaves a constant map as it is."""
    low, high = int(image.min(initial=255)), int(image.max(initial=0))
    return (low, high) if high > low else (0, 255)


def _stretched_levels(low: int, high: int) -> Floats:
    """Return the value (256,) that each level has after min-max; unused levels are meaningless."""
    return (_LEVELS - _LEVELS[low]) / (_LEVELS[high] - _LEVELS[low])


def _found(image: Array, levels: Floats) -> Array:
    """Return the stretched map above 0.5, as 0 and 1."""
    highest_below = int(np.argmax(levels > 0.5)) - 1
    return np.asarray(cv2.threshold(image, highest_below, 1, cv2.THRESH_BINARY)[1], np.uint8)


def _quadrants(mask: Array) -> list[Part]:
    """Return the parts into which S divides the image: one past the object's centroid."""
    sums = [cv2.reduce(mask, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() for axis in (1, 0)]
    total = max(sums[0].sum(), 1)
    row, column = (int(np.round(line @ np.arange(line.size) / total)) + 1 for line in sums)
    halves = (slice(0, row), slice(row, None)), (slice(0, column), slice(column, None))
    return list(product(*halves))


def _histogram(image: Array, mask: Array) -> Floats:
    """Return how often each level occurs outside and inside the object: (2, 256).

    The map off the object is set to 0 and counted: two counts without a mask take less time than
    one with a mask. OpenCV counts in float32: exact up to 16.7 million pixels of one level.
    """
    left, top, width, height = cv2.boundingRect(mask)
    box = slice(top, top + height), slice(left, left + width)
    inside = _count(image[box] * mask[box])
    inside[0] -= height * width - cv2.countNonZero(mask)
    return np.stack([_count(image) - inside, inside])


def _count(image: Array) -> Floats:
    """Return how often each level occurs: (256,)."""
    counts = np.zeros(256)
    if image.size:  # else no object; or its centroid is on the last row or column
        left, top, width, height = cv2.boundingRect(image)  # one level again and again is slow
        counts[0] = image.size - width * height
        if width:
            box = image[top : top + height, left : left + width]
            counts += cv2.calcHist([box], [0], None, [256], [0, 256]).ravel()
    return counts


def _mean(image: Array | None, levels: Floats, part: Part, counts: Floats) -> float:
    """Return the mean of the stretched map in a part of it.

    S takes a constant part for a perfect one only where its mean, as the toolbox rounds it, is the
    constant itself.
    """
    mean = float(counts @ levels / max(counts.sum(), 1))
    constant = np.count_nonzero(counts) == 1
    if image is None or not (constant and 0 < mean < 1):
        return mean
    return _rounded_mean(image, levels, part)


def _adaptive_threshold(image: Array | None, levels: Floats, counts: Floats) -> float:
    """Return twice the mean, at most 1: the threshold of Achanta et al.

    Where it meets a level of the map, the last bit of the toolbox's mean decides what is above.
    """
    double = 2 * float(counts @ levels / max(counts.sum(), 1))
    if image is not None and (np.abs(levels - double)[counts > 0] < _TIE).any():
        double = 2 * _rounded_mean(image, levels, (slice(None), slice(None)))
    return min(double, 1.0)


def _rounded_mean(image: Array, levels: Floats, part: Part) -> float:
    """Return the mean of a part, summed in the toolbox's order: its last bit is the same too."""
    return float(np.asarray(cv2.LUT(image, levels), np.float64)[part].mean())


def _absolute_error(background: Floats, foreground: Floats, levels: Floats) -> float:
    error = background @ levels + foreground @ (1 - levels)
    return float(error / max(background.sum() + foreground.sum(), 1))


def _threshold_measures(
    background: Floats, foreground: Floats, levels: Floats, adaptive: float
) -> tuple[dict[str, Floats], dict[str, float]]:
    """Return the curves and the numbers of all measures that compare a binary map."""
    hits, alarms = (_above(counts, levels, adaptive) for counts in (foreground, background))
    total, pixels = foreground.sum(), foreground.sum() + background.sum()
    every = _overlap(hits, alarms, total) | {"e": _e_measure(hits, alarms, total, pixels)}
    curves = {name: values[:256] for name, values in every.items()}
    single = {"iou": every["iou"][257], "dice": _divide(2 * hits, total + hits + alarms)[257]}
    single |= {"intersection": hits[257], "union": total + alarms[257]}
    for name in ("e", "f"):
        single[f"mean_{name}"] = curves[name].mean()
        single[f"adaptive_{name}"] = every[name][256]
        single[f"max_{name}"] = curves[name].max()
    return curves, {name: float(value) for name, value in single.items()}


def _above(counts: Floats, levels: Floats, adaptive: float) -> Floats:
    """Return how many pixels are above (258,) thresholds: 256, the adaptive one, and one half."""
    quantised = (levels.clip(0, 1) * 255).astype(np.uint8)  # truncated, as the toolbox does
    from_top = np.bincount(quantised, counts, 256)[::-1].cumsum()
    single = counts @ (levels >= adaptive), counts @ (levels > 0.5)
    return np.append(from_top[::-1], single)


def _overlap(hits: Floats, alarms: Floats, total: float) -> dict[str, Floats]:
    """Return IoU, F, precision and recall for each count of hits and false alarms."""
    precision, recall = _divide(hits, hits + alarms), hits / max(total, 1)
    f = _divide(1.3 * precision * recall, 0.3 * precision + recall)
    iou = _divide(hits, total + alarms)
    return {"iou": iou, "f": f, "precision": precision, "recall": recall}


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, with 0 where nothing was predicted or nothing was there."""
    return np.divide(numerator, denominator, np.zeros(len(numerator)), where=denominator != 0)


def _e_measure(hits: Floats, alarms: Floats, total: float, pixels: float) -> Floats:
    """Return the enhanced alignment for each count of hits and false alarms."""
    found = hits + alarms
    if total in (0, pixels):
        right = found if total else pixels - found
        return right / (max(pixels - 1, 1) + _EPSILON)  # of a single pixel it is that pixel
    parts = (hits, alarms, total - hits, pixels - total - alarms)
    result = np.zeros(len(hits))
    for part, (in_map, in_mask) in zip(parts, product((1, 0), repeat=2), strict=True):
        a, b = in_map - found / pixels, in_mask - total / pixels
        result += part * (2 * a * b / (a**2 + b**2 + _EPSILON) + 1) ** 2 / 4
    return result / (pixels - 1 + _EPSILON)


def _s_measure(histogram: Floats, levels: Floats, means: Sequence[float]) -> float:
    """Return the mean of the object-aware and the region-aware structural similarity."""
    background, foreground = histogram.sum(0)
    pixels = histogram.sum()
    share = foreground.sum() / max(pixels, 1)
    if share in (0, 1):
        mean = (background + foreground) @ levels / max(pixels, 1)
        return float(mean if share else 1 - mean)
    objects = share * _likeness(foreground, levels)
    objects += (1 - share) * _likeness(background, 1 - levels)
    region = sum(
        _similarity(counts, levels, mean) * counts.sum()
        for counts, mean in zip(histogram, means, strict=True)
        if counts.any()
    )
    return float(max(0, objects + region / pixels) / 2)


def _likeness(counts: Floats, values: Floats) -> float:
    n = counts.sum()
    mean = counts @ values / n
    deviation = np.sqrt(counts @ (values - mean) ** 2 / max(n - 1, 1))
    return float(2 * mean / (mean**2 + 1 + deviation + _EPSILON))


def _similarity(counts: Floats, levels: Floats, x: float) -> float:
    """Return the structural similarity of one quadrant; x: mean of the map there."""
    background, foreground = counts
    n = counts.sum()
    y = foreground.sum() / n
    freedom = n - 1 + _EPSILON
    variance_x = (foreground + background) @ (levels - x) ** 2 / freedom
    variance_y = n * y * (1 - y) / freedom
    covariance = (foreground * (1 - y) - background * y) @ (levels - x) / freedom
    alpha = 4 * x * y * covariance
    beta = (x**2 + y**2) * (variance_x + variance_y)
    if alpha != 0:
        return float(alpha / (beta + _EPSILON))
    return float(beta == 0)
