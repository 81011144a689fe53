"""How good a map is: the measures of camouflaged object detection, exactly those of the field.

Every measure equals pysodmetrics 1.6 on the same 8-bit map (the tests hold them side by side) and
is computed over ten times faster. S, E, F, IoU, Dice and MAE need no pixels, only how often each of
the 256 levels occurs inside and outside the object in each quadrant: one histogram. Weighted F
looks at pixels, but only near the object.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import Array
from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

MEASURES = (
    *("iou", "dice", "s_measure", "weighted_f", "mean_e", "adaptive_e", "max_e"),
    *("mean_f", "adaptive_f", "max_f", "mae"),
)
_EPSILON = np.spacing(1.0)  # Matlab's eps, which the original code of the measures adds
_RADIUS = 3  # weighted F blurs the error with a 7 x 7 gaussian
_REACH = 160  # pixels: farther away, distance changes the weight of an error by less than 3e-10


class Measured(NamedTuple):
    """What `examine` finds in one image.

    values: the eleven MEASURES and "raw_mae" (MAE without min-max), "false_alarm" (share of the
    background above 0.5, without min-max), "object_share" (share of the image that is object), and
    "intersection" and "union" (pixels of map and mask behind the IoU, which pooled IoU adds up).
    curves: "e", "f", "iou", "precision", "recall", each (256,) float64, at thresholds 0...255.
    """

    values: dict[str, float]
    curves: dict[str, Floats]


def measure(probability: NDArray[Any], mask: NDArray[Any]) -> dict[str, float]:
    """Return all MEASURES of one image (and the further values of `Measured`) by name.

    probability: (H, W) uint8 0...255, or float 0...1 which is rounded to 8 bits as a PNG would be;
    mask: (H, W) of 0 and 1. Like the field's toolbox, the map is stretched to 0...1 first, and a
    constant map is left as it is. IoU and Dice: stretched map > 0.5; for an empty mask both are 0
    whatever is predicted. Where pysodmetrics gives NaN as S (the object's centroid is on the last
    row or column), the empty quadrants count nothing. Raises InputError for another shape, range
    or type.
    """
    return examine(probability, mask).values


def examine(probability: NDArray[Any], mask: NDArray[Any]) -> Measured:
    """Return the measures of one image with its threshold curves; arguments as in `measure`.

    The max E and F of a data set are the maximum of the mean curve, not the mean of the maxima.

    IoU, Dice: overlap. S: Fan et al., ICCV 2017. Weighted F: Margolin et al., CVPR 2014.
    E: Fan et al., IJCAI 2018. F (beta^2 = 0.3): Achanta et al., CVPR 2009.
    """
    image, mask = _as_8bit(probability), _as_mask(mask)
    if image.shape != mask.shape:
        raise InputError(
            f"The map has (height, width) {image.shape}, the mask {mask.shape}. "
            "Resize the map to the mask's size before measuring."
        )
    levels = _stretched_levels(image)
    histogram, means = _statistics(image, mask, levels)
    background, foreground = histogram.sum(0)
    curves, single = _threshold_measures(background, foreground, levels, means[4])
    raw = np.arange(256) / 255
    values = {
        **single,
        "s_measure": _s_measure(histogram, levels, means),
        "weighted_f": _weighted_f(image, levels, mask, background @ levels),
        "mae": _absolute_error(background, foreground, levels),
        "raw_mae": _absolute_error(background, foreground, raw),
        "false_alarm": float(background[raw > 0.5].sum() / max(background.sum(), 1)),
        "object_share": float(foreground.sum() / mask.size),
    }
    return Measured(values, curves)


def batch_iou(probability: Tensor, mask: Tensor) -> Tensor:
    """Return the IoU of each image, (B,) float64 on the same device: `measure(...)["iou"]`.

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
    levels = np.arange(256) / 255
    low, high = levels[image.min()], levels[image.max()]
    return (levels - low) / (high - low) if high > low else levels


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
    precision, recall = _divide(hits, hits + alarms), hits / max(total, 1)
    f = _divide(1.3 * precision * recall, 0.3 * precision + recall)
    e = _e_measure(hits, alarms, total, pixels)
    iou = _divide(hits, total + alarms)
    every = {"e": e, "f": f, "iou": iou, "precision": precision, "recall": recall}
    curves = {name: values[:256] for name, values in every.items()}
    single = {"iou": iou[257], "dice": _divide(2 * hits, total + hits + alarms)[257]}
    single |= {"intersection": hits[257], "union": total + alarms[257]}
    for name, values in (("e", e), ("f", f)):
        single[f"mean_{name}"] = values[:256].mean()
        single[f"adaptive_{name}"] = values[256]
        single[f"max_{name}"] = values[:256].max()
    return curves, {name: float(value) for name, value in single.items()}


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


def _weighted_f(image: Array, levels: Floats, mask: Array, false_alarm: float) -> float:
    """Return weighted F: an error counts less beside a right pixel, more far from the object.

    false_alarm: the sum of the map over the background.
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
