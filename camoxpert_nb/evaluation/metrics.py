"""How good a map is: the measures of camouflaged object detection, exactly those of the field.

Every measure equals pysodmetrics 1.6 on the same 8-bit map (the tests hold them side by side) and
is computed over ten times faster. S, E, F, IoU, Dice and MAE need no pixels, only how often each of
the 256 levels occurs inside and outside the object in each quadrant: one histogram.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import Array
from ..errors import InputError
from .weighted_f import weighted_f

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

MEASURES = (
    *("iou", "dice", "s_measure", "weighted_f", "mean_e", "adaptive_e", "max_e"),
    *("mean_f", "adaptive_f", "max_f", "mae"),
)
_LEVELS = np.arange(256) / 255
_EPSILON = np.spacing(1.0)  # Matlab's eps, which the original code of the measures adds


class Measured(NamedTuple):
    """What `measure` finds in one image.

    values: the eleven MEASURES and "raw_mae" (MAE without min-max), "false_alarm" (share of the
    background above 0.5, without min-max), "object_share" (share of the image that is object), and
    "intersection" and "union" (pixels of map and mask behind the IoU, which pooled IoU adds up).
    curves: "e", "f", "iou", "precision", "recall", each (256,) float64, at thresholds 0...255.
    """

    values: dict[str, float]
    curves: dict[str, Floats]


def measure(probability: NDArray[Any], mask: NDArray[Any]) -> Measured:
    """Return all measures of one image, with its threshold curves.

    probability: (H, W) uint8 0...255, or float 0...1 which is rounded to 8 bits as a PNG would be;
    mask: (H, W) of 0 and 1. Like the field's toolbox, the map is stretched to 0...1 first, and a
    constant map is left as it is. IoU and Dice: stretched map > 0.5; for an empty mask both are 0
    whatever is predicted. Where pysodmetrics gives NaN as S (the object's centroid is on the last
    row or column), the empty quadrants count nothing. Raises InputError for another shape, range
    or type. The max E and F of a set are the maximum of the mean curve, not the mean of the maxima.

    IoU, Dice: overlap. S: Fan et al., ICCV 2017. Weighted F: Margolin et al., CVPR 2014.
    E: Fan et al., IJCAI 2018. F (beta^2 = 0.3): Achanta et al., CVPR 2009.
    """
    image, mask = _checked(probability, mask)
    levels = _stretched_levels(image)
    histogram, means = _statistics(image, mask, levels)
    background, foreground = histogram.sum(0)
    curves, single = _threshold_measures(background, foreground, levels, means[4])
    values = {
        **single,
        "s_measure": _s_measure(histogram, levels, means),
        "weighted_f": weighted_f(image, levels, mask, background @ levels),
        "mae": _absolute_error(background, foreground, levels),
        "raw_mae": _absolute_error(background, foreground, _LEVELS),
        "false_alarm": float(background[_LEVELS > 0.5].sum() / max(background.sum(), 1)),
        "object_share": float(foreground.sum() / mask.size),
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
    levels = _stretched_levels(image) if mask.any() else _LEVELS
    above = levels > np.array(thresholds or [0.5])[:, None]
    foreground, background = (
        np.bincount(image[part], minlength=256).astype(float) for part in (mask > 0, mask == 0)
    )
    curves = _overlap(above @ foreground, above @ background, foreground.sum())
    curves["false_alarm"] = above @ background / mask.size
    iou = float(curves["iou"][0]) if mask.any() else None
    return Cut(levels[image], above[0][image], iou, curves)


def batch_iou(probability: Tensor, mask: Tensor) -> Tensor:
    """Return the IoU of each image, (B,) float64 on the same device: `measure(...).values["iou"]`.

    probability: (B, 1, H, W) 0...1 of any float type, mask: the same shape, of 0 and 1. Rounded to
    8 bits and stretched per image, so that the number does not depend on the batch. It is taken at
    the size given (in training: the network's), where `measure` is used at the mask's own size.
    """
    found, wanted = _stretched_batch(probability) > 0.5, mask > 0.5
    common = (found & wanted).sum((1, 2, 3))
    return common / (found | wanted).sum((1, 2, 3)).clamp(min=1).double()


def batch_mae(probability: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute error of each image, (B,) float64; arguments as in `batch_iou`."""
    return (_stretched_batch(probability) - mask).abs().mean((1, 2, 3))


def _stretched_batch(probability: Tensor) -> Tensor:
    import torch  # only here: a notebook's kernel measures maps without it

    level = (probability.float() * 255).round().double() / 255
    low, high = level.amin((1, 2, 3), keepdim=True), level.amax((1, 2, 3), keepdim=True)
    return torch.where(high > low, (level - low) / (high - low), level)


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
            f"{mask.max(initial=0)}. Read it with images.read_mask."
        )
    return binary


def _stretched_levels(image: Array) -> Floats:
    """Return the value (256,) that each level has after min-max; unused levels are meaningless."""
    low, high = _LEVELS[image.min()], _LEVELS[image.max()]
    return (_LEVELS - low) / (high - low) if high > low else _LEVELS


def _statistics(image: Array, mask: Array, levels: Floats) -> tuple[Floats, Floats]:
    """Return how often each level occurs (4 quadrants, 2 mask, 256), and means (5,) of the map.

    The means are of the quadrants and of all. They are summed in the toolbox's order, because
    their last bit decides some ties. OpenCV counts in float32: exact up to 16.7 million pixels
    of one level in one quadrant.
    """
    stretched = np.asarray(cv2.LUT(image, levels), np.float64)
    row, column = _centroid(mask)
    halves = (slice(0, row), slice(row, None)), (slice(0, column), slice(column, None))
    histogram, means = np.zeros((4, 2, 256)), np.zeros(5)
    means[4] = stretched.mean()
    for quadrant, part in enumerate(product(*halves)):
        if image[part].size:  # the toolbox returns NaN where the centroid is on the last row
            layers = [image[part], mask[part]]
            counts = cv2.calcHist(layers, [0, 1], None, [256, 2], [0, 256, 0, 2])
            histogram[quadrant] = counts.T
            means[quadrant] = stretched[part].mean()
    return histogram, means


def _centroid(mask: Array) -> list[int]:
    """Return the [row, column] at which S divides the image: one past the object's centroid."""
    sums = [cv2.reduce(mask, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() for axis in (1, 0)]
    total = max(sums[0].sum(), 1)
    return [int(np.round(line @ np.arange(line.size) / total)) + 1 for line in sums]


def _absolute_error(background: Floats, foreground: Floats, levels: Floats) -> float:
    error = background @ levels + foreground @ (1 - levels)
    return float(error / (background.sum() + foreground.sum()))


def _threshold_measures(
    background: Floats, foreground: Floats, levels: Floats, mean: float
) -> tuple[dict[str, Floats], dict[str, float]]:
    """Return the curves and the numbers of all measures that compare a binary map."""
    quantised = (levels.clip(0, 1) * 255).astype(np.uint8)  # truncated, as the toolbox does
    above = [quantised >= np.arange(256)[:, None], levels >= min(2 * mean, 1), levels > 0.5]
    binary = np.vstack(above)  # (258, 256): 256 thresholds, the adaptive one, one half
    hits, alarms = binary @ foreground, binary @ background
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
        return right / (pixels - 1 + _EPSILON)
    parts = (hits, alarms, total - hits, pixels - total - alarms)
    result = np.zeros(len(hits))
    for part, (in_map, in_mask) in zip(parts, product((1, 0), repeat=2), strict=True):
        a, b = in_map - found / pixels, in_mask - total / pixels
        result += part * (2 * a * b / (a**2 + b**2 + _EPSILON) + 1) ** 2 / 4
    return result / (pixels - 1 + _EPSILON)


def _s_measure(histogram: Floats, levels: Floats, means: Floats) -> float:
    """Return the mean of the object-aware and the region-aware structural similarity."""
    background, foreground = histogram.sum(0)
    share = foreground.sum() / histogram.sum()
    if share in (0, 1):
        return float(means[4] if share else 1 - means[4])
    objects = share * _likeness(foreground, levels)
    objects += (1 - share) * _likeness(background, 1 - levels)
    parts = ((counts, mean) for counts, mean in zip(histogram, means, strict=False) if counts.any())
    region = sum(_similarity(counts, levels, mean) * counts.sum() for counts, mean in parts)
    return float(max(0, objects + region / histogram.sum()) / 2)


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
