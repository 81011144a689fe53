"""Which mask belongs to which image: by their names, never by their place in two sorted lists."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .folders import SUFFIXES

# What is written before or after a name to say what the file is: "image_1" and "mask_1", "x_mask".
MASK_AFFIXES = (
    *("mask", "masks", "gt", "gts", "groundtruth", "ground_truth", "label", "labels", "labelids"),
    *("gtfine", "seg", "segmentation", "segmentations", "matte", "anno", "annotation", "object"),
)
IMAGE_AFFIXES = (
    *("image", "images", "img", "imgs", "im", "rgb", "photo", "sat", "leftimg8bit", "orig"),
    *("original", "input", "pic", "picture"),
)
_EVERY = "|".join(sorted((*MASK_AFFIXES, *IMAGE_AFFIXES), key=len, reverse=True))
_BEFORE = re.compile(rf"^({_EVERY})([-_ .]+(?=.)|(?=\d))")
_AFTER = re.compile(rf"(?<=.)[-_ .]+({_EVERY})$")
_MASK_NAME = re.compile(
    "^({0})([-_ .]+|(?=\\d))|[-_ .]+({0})$".format(
        "|".join(sorted(MASK_AFFIXES, key=len, reverse=True))
    )
)


# Of several masks for one image the first kind here is taken.
_KINDS = (".png", ".tif", ".tiff", ".bmp", ".gif")


class Names(NamedTuple):
    """Image to mask file names, and for an image with several masks those not taken."""

    files: dict[str, str]
    second: dict[str, tuple[str, ...]]


def stem(name: str) -> str:
    """Return a file's name without its last suffix."""
    return name.rpartition(".")[0] or name


def same(name: str) -> str:
    """Return a stem as two systems may write it: accents composed, no case."""
    return unicodedata.normalize("NFC", stem(name)).casefold()


def core(name: str) -> str:
    """Return a stem without a suffix of images in it ("x.jpg.png") and without affixes."""
    text = same(name)
    for suffix in SUFFIXES:
        text = text.removesuffix(suffix) or text
    before = ""
    while text != before:
        before = text
        text = _AFTER.sub("", _BEFORE.sub("", text))
    return text


def pair_names(images: Sequence[str], masks: Sequence[str], suffix: str = "") -> Names:
    """Map images to masks: equal stems, then equal but for accents and case, then for affixes.

    With `suffix` a mask is its image's stem with it: "_mask" for x.jpg and x_mask.png.
    """
    if suffix:
        wanted = _end(suffix)
        own = [mask for mask in masks if same(mask).endswith(wanted)]
        return _pair(images, own, [(same, lambda name: same(name).removesuffix(wanted))])
    keys: tuple[Callable[[str], str], ...] = (
        *(stem, lambda name: unicodedata.normalize("NFC", stem(name))),
        *(same, core),
    )
    return _pair(images, masks, [(key, key) for key in keys])


def pair_in_one_folder(names: Sequence[str], suffix: str = "") -> Names:
    """Pair the files of a folder that holds images and masks: x.jpg with x_mask.png or x.png."""
    if suffix:
        masks = [name for name in names if same(name).endswith(_end(suffix))]
    else:
        masks = [name for name in names if _MASK_NAME.search(same(name)) or stem(name) in names]
    if not masks:
        stems = Counter(map(same, names))
        twins = [name for name in names if stems[same(name)] == 2]
        masks = [name for name in twins if name.lower().endswith(".png")]
        others = {same(name) for name in twins if not name.lower().endswith((".png", ".gif"))}
        masks = [name for name in masks if same(name) in others]
    marked = set(masks)
    return pair_names([name for name in names if name not in marked], masks, suffix)


def _end(suffix: str) -> str:
    """Return a --mask-suffix as `same` writes names; a file's suffix may be given with it."""
    for ending in SUFFIXES:
        suffix = suffix.removesuffix(ending)
    return unicodedata.normalize("NFC", suffix).casefold()


def _pair(
    images: Sequence[str],
    masks: Sequence[str],
    keys: Sequence[tuple[Callable[[str], str], Callable[[str], str]]],
) -> Names:
    files: dict[str, str] = {}
    for of_image, of_mask in keys:
        taken = set(files.values())
        free: dict[str, list[str]] = {}
        for mask in sorted(masks, key=lambda name: (_kind(name), name)):
            if mask not in taken:
                free.setdefault(of_mask(mask), []).append(mask)
        open_images = [image for image in sorted(images) if image not in files]
        count = Counter(map(of_image, open_images))
        for image in open_images:
            key = of_image(image)
            if key in free and (count[key] == 1 or of_image is not core):
                files[image] = free.pop(key)[0]
    return Names(files, _second(files, masks, keys[-1]))


def _kind(name: str) -> int:
    suffix = name[len(stem(name)) :].lower()
    return _KINDS.index(suffix) if suffix in _KINDS else len(_KINDS)


def _second(
    files: dict[str, str],
    masks: Sequence[str],
    key: tuple[Callable[[str], str], Callable[[str], str]],
) -> dict[str, tuple[str, ...]]:
    """Return the masks left over that would have fitted an image which has one."""
    taken, left = set(files.values()), dict[str, list[str]]()
    for mask in masks:
        if mask not in taken:
            left.setdefault(key[1](mask), []).append(mask)
    return {image: tuple(left[key[0](image)]) for image in files if key[0](image) in left}
