"""What a mask means: which pixels are object, which count nowhere, and what speaks against it.

A mask is read in one place, for training, evaluation, pictures and the look through a data set
alike. What its pair says of it (`reading.MaskReading`) goes with it wherever it is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from .images import (
    Array,
    Header,
    binary,
    grey_of,
    header,
    opened,
    read_photo,
    resize_mask,
    same_shape,
    turned,
    upright,
)
from .pairs import Pair
from .reading import NOTHING_IGNORED, PLAIN, MaskReading

IGNORED = 2  # beside 0, background, and 1, object
COLOUR_TOLERANCE = 16  # grey levels between channels: what JPEG adds to a grey mask
BORDER = 0.5  # of the border that is object: none of CAMO's 996 masks has more than 0.28
LARGEST_ID = 40  # so many values at most are looked at as ids
FEW_VALUES = 12  # of labels and a value that counts nowhere; soft edges have more
FRAME = 0.05  # of a side: so thick may a frame without object be
FEW = 0.002  # of the picture: less is the soft edge of an object


class Mask(NamedTuple):
    """A mask as it is stored, before it is said what is object.

    grey (H, W) uint8: brightness, or alpha; values (H, W): what is written in the file (a
    palette's numbers, 16 bits as they are). alpha: the mask was in the alpha channel. colour: it is
    no grey picture. palette: it holds numbers of colours.
    """

    grey: Array
    values: NDArray[np.integer]
    alpha: bool = False
    colour: bool = False
    palette: bool = False


class Look(NamedTuple):
    """A decoded pair, and what is odd about it: kinds of `findings.KINDS` with a detail."""

    image: Array
    labels: Array  # (H, W) of 0, 1 and IGNORED
    problems: tuple[tuple[str, str], ...]
    named: frozenset[int] = frozenset()  # the values of --mask-object that the mask has


def read_labels(pair: Pair) -> Array:
    """Return the mask as (H, W) uint8: 0 background, 1 object, IGNORED what counts nowhere.

    It lies as the photo is shown. Raises InputError as `images.read_grey` does.
    """
    labels = labels_of(read_stored(pair.mask), pair.how)
    return _turned_as_photo(labels, pair, header(pair.image))[0]


def read_objects(pair: Pair) -> Array:
    """Return the mask as (H, W) uint8 of 0 and 1; ignored pixels are 0."""
    return (read_labels(pair) == 1).view(np.uint8)


def read_mask(path: Path, how: MaskReading = PLAIN) -> Array:
    """Return what `read_labels` does of a mask that has no photo beside it."""
    return labels_of(read_stored(path), how)


def mask_size(pair: Pair) -> tuple[int, int]:
    """Return (height, width) of what `read_labels` returns, from headers alone."""
    return sizes(pair)[1]


def sizes(pair: Pair) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (height, width) of the photo as it is shown, and `mask_size`."""
    head, photo = header(pair.mask), header(pair.image)
    sideways = photo.orientation in (5, 6, 7, 8) and _turns(head, photo, pair.how)
    return photo.shown, head.shown[::-1] if sideways else head.shown


def read_stored(path: Path) -> Mask:
    """Return what is in the file, upright as its own EXIF tag says."""
    with opened(path) as image:
        if alpha := _alpha(image):
            return alpha
        if image.mode == "P":
            numbers = np.asarray(image)
            rgb = np.asarray(image.convert("RGB"))
            grey = np.asarray(image.convert("L"))
            return _upright(image, Mask(grey, numbers, colour=_coloured(rgb), palette=True))
        if image.mode in ("1", "L") or image.mode.startswith(("I", "F")):
            values = np.asarray(image)
            values = values.view(np.uint8) if image.mode == "1" else values
            return _upright(image, Mask(grey_of(image), values))
        rgb = np.asarray(image.convert("RGB"))
        values = rgb.max(axis=2)  # all three of a grey picture; "nonzero" sees every colour
        return _upright(image, Mask(grey_of(image), values, colour=_coloured(rgb)))


def labels_of(mask: Mask, how: MaskReading) -> Array:
    """Return the meaning of a stored mask: 0, 1 and IGNORED."""
    ignored = mask.values == how.ignore if how.ignore != NOTHING_IGNORED else None
    if how.values:
        found = np.isin(mask.values, how.values)
    elif how.object == "nonzero":
        found = mask.values != 0
    elif ignored is None:
        found = binary(mask.grey).view(bool)
    else:
        rest = np.where(ignored, 0, mask.values if mask.palette else mask.grey)
        found = rest > (0 if rest.max(initial=0) <= 1 else 128)
    labels = (found != how.invert).astype(np.uint8)
    if ignored is not None:
        labels[ignored] = IGNORED
    return labels


def look(pair: Pair) -> Look:
    """Decode a pair and look at what its mask means.

    Raises InputError for a file that cannot be read.
    """
    (image, photo), mask = read_photo(pair.image), read_stored(pair.mask)
    problems = list(_oddities(mask, pair.how))
    labels, exif = _turned_as_photo(labels_of(mask, pair.how), pair, photo)
    if exif:
        problems.append(("exif", exif))
    if labels.shape != image.shape[:2]:
        sizes = [f"{a.shape[0]} x {a.shape[1]}" for a in (labels, image)]
        kind = "size" if same_shape(image.shape, labels.shape) else "shape"
        problems.append((kind, "mask {}, image {} (height x width)".format(*sizes)))
    share = object_share(labels)
    if share == 0:
        problems.append(_why_empty(mask, pair.how))
    elif share == 1:
        problems.append(("full", "every pixel is object"))
    elif (border := _border(labels)) > BORDER:
        problems.append(("border", f"{border:.0%} of its border is object"))
    if pair.how.ignore != NOTHING_IGNORED and not (labels == IGNORED).any():
        problems.append(("not ignored", f"no pixel is {pair.how.ignore}; {_values(mask)}"))
    named = frozenset(value for value in pair.how.values if (mask.values == value).any())
    return Look(image, labels, tuple(problems), named)


def _why_empty(mask: Mask, how: MaskReading) -> tuple[str, str]:
    """Return which kind of a mask without an object this is."""
    if how.values and mask.values.any():
        return "unnamed", f"{_values(mask)}; none of {how.object}"
    if mask.grey.max(initial=0) > 1 and how == PLAIN and not mask.colour:
        return "ids", f"{_values(mask)}, none above 128"
    ignored = float((mask.values == how.ignore).mean())
    why = f": {ignored:.0%} have the value of --ignore-label" if ignored else ""
    return "empty", f"no pixel is object{why}"


def object_share(labels: Array) -> float:
    """Return the share of the pixels that count which is object; 0 where none counts."""
    ignored = int(np.count_nonzero(labels == IGNORED)) if labels.max(initial=0) > 1 else 0
    return (cv2.countNonZero(labels) - ignored) / max(labels.size - ignored, 1)


def resize_labels(labels: Array, size: int) -> tuple[Array, Array]:
    """Return object and ignored, (size, size) of 0 and 1 each; ignored where at least half is."""
    if labels.max(initial=0) <= 1:
        return resize_mask(labels, size), np.zeros((size, size), np.uint8)
    found, ignored = (resize_mask((labels == value).view(np.uint8), size) for value in (1, IGNORED))
    return found & (1 - ignored), ignored


def _alpha(image: Image.Image) -> Mask | None:
    """Return the alpha channel where the mask is there: colours that say nothing, or a photo's."""
    if "A" not in image.mode and "transparency" not in image.info:
        return None
    rgba = np.asarray(image.convert("RGBA"))
    alpha, grey = rgba[..., 3], np.asarray(image.convert("RGBA").convert("L"))
    if not alpha.min() <= 128 < alpha.max():
        return None
    seen = grey[alpha > 128]  # what is hidden has any colour
    says_nothing = binary(grey).min() == binary(grey).max()
    photo = _coloured(rgba[..., :3]) and _different(seen).size > LARGEST_ID
    if not says_nothing and not photo:
        return None
    return _upright(image, Mask(alpha, alpha, alpha=True))


def _upright(image: Image.Image, mask: Mask) -> Mask:
    return mask._replace(grey=upright(image, mask.grey), values=upright(image, mask.values))


def _coloured(rgb: Array) -> bool:
    return bool((rgb.max(axis=2) - rgb.min(axis=2) > COLOUR_TOLERANCE).any())


def _turned_as_photo(labels: Array, pair: Pair, photo: Header) -> tuple[Array, str]:
    """Return the labels as the photo is shown, and what is to be said of its EXIF tag."""
    if photo.orientation == 1:
        return labels, ""
    mask, how = header(pair.mask), pair.how
    if mask.orientation != 1:
        return labels, ""
    said = f"EXIF turns the photo ({photo.orientation}), not the mask"
    if _turns(mask, photo, how):
        why = (
            "" if how.exif == "stored" else f"{said}: it was turned too, as its shape fits only so"
        )
        return turned(labels, photo.orientation), why
    sure = how.exif != "auto" or not same_shape(photo.stored, mask.shown)
    return labels, "" if sure else f"{said}: it may have to be turned too"


def _turns(mask: Header, photo: Header, how: MaskReading) -> bool:
    """Say whether a mask was drawn on the photo's stored pixels, so that it turns with it."""
    if photo.orientation == 1 or mask.orientation != 1 or how.exif == "shown":
        return False
    fits = same_shape(photo.stored, mask.shown) and not same_shape(photo.shown, mask.shown)
    return how.exif == "stored" or fits


def _oddities(mask: Mask, how: MaskReading) -> list[tuple[str, str]]:
    """Return in which ways a mask is not 0 and 255, as far as its reading does not settle them."""
    if mask.alpha:
        return [("alpha", "its colours say nothing, or are a photo's")]
    if how.object != "auto":
        return []
    values = _different(mask.values)
    if how.ignore == NOTHING_IGNORED and _has_void(mask.values, values):
        means = f"{values[-1]} may mean 'ignore': --ignore-label {values[-1]}"
        return [("void", f"holds {', '.join(map(str, values[:6]))}; {means}")]
    if mask.colour:
        return [("colour", "more colours than black and white")]
    return _greys(mask, how)


def _greys(mask: Mask, how: MaskReading) -> list[tuple[str, str]]:
    """Return what is odd about the brightness of a mask without colours."""
    ignores = how.ignore != NOTHING_IGNORED
    grey = np.where(mask.values == how.ignore, np.uint8(0), mask.grey) if ignores else mask.grey
    top = int(grey.max(initial=0))
    if top == 1:
        return [("zero_one", "brightest value 1")]
    between = (grey > 0) & (grey < 255)
    if top <= 128 or not between.any():
        return []
    levels = _levels(grey)
    if len(levels) > 2 and not ignores:
        return [("levels", f"areas of {', '.join(map(str, levels[:6]))}")]
    return [("grey", f"{100 * between.mean():.1f} % of the pixels between 0 and 255")]


def _different(values: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the values that occur, ascending."""
    if values.dtype == np.uint8:  # 20 times as fast as sorting them
        return np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    return np.unique(values)


def _has_void(found: NDArray[np.integer], values: NDArray[np.integer]) -> bool:
    """Say whether these are small ids and 255, as PASCAL VOC stores objects and their outlines.

    Another value beside 255 means the same where there are few values in all.

    JPEG's noise beside black and white has many values, some of them near white.
    """
    top = int(values[-1]) if values.size else 0
    small = values[(values > 0) & (values < top)]
    if not small.size or small[-1] > LARGEST_ID:
        return False
    if top != 255 and (top <= 128 or top > 255 or values.size > FEW_VALUES):
        return False
    return bool(np.isin(found, small).mean() > FEW)


def _levels(grey: Array) -> list[int]:
    """Return the brightnesses of which whole areas are made, apart by more than noise."""
    flat = (grey[:-1, :-1] == grey[1:, :-1]) & (grey[:-1, :-1] == grey[:-1, 1:])
    counts = np.bincount(grey[:-1, :-1][flat], minlength=256)
    found = [int(value) for value in np.flatnonzero(counts > FEW * grey.size)]
    apart: list[int] = []
    for value in found:
        if not apart or value - apart[-1] > COLOUR_TOLERANCE:
            apart.append(value)
    return apart


def _values(mask: Mask) -> str:
    values = _different(mask.values)
    some = ", ".join(map(str, values[:6])) + (", ..." if values.size > 6 else "")
    return f"values {some}"


def _border(labels: Array) -> float:
    """Return how much of the border is object; a thin frame without object is none."""
    for _ in range(2):  # rows, then columns
        filled = np.flatnonzero((labels == 1).any(axis=1))
        thick = max(2, round(FRAME * len(labels)))
        if filled.size and filled[0] <= thick and len(labels) - 1 - filled[-1] <= thick:
            labels = labels[filled[0] : filled[-1] + 1]
        labels = labels.T
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return float((edge == 1).mean())


def refuse(
    mask: Path, found: tuple[int, ...], image: Path, expected: tuple[int, ...]
) -> InputError:
    """Return what to say of a mask that does not have its image's shape."""
    sizes = ["x".join(map(str, size[1::-1])) for size in (found, expected)]
    return InputError(f"{mask}: the mask is {sizes[0]} pixels, its image {image.name} {sizes[1]}")
