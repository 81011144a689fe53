"""Looking through a data set before a number from it is trusted.

Every image and mask is decoded once, in threads (Pillow lets go of Python's lock while it
decodes); copies are found by sha256, computed only for files of equal size. What can be found is
a row of `KINDS`, with how much it matters and what to do about it.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from .images import Array, read_grey, read_image, read_mask, same_shape
from .layouts import ImageSet, Pair, is_noncam

TINY = 0.03  # object share below which the field calls an object tiny
COLOUR_TOLERANCE = 16  # grey levels between channels: what JPEG adds to a grey mask
SHOWN = 5  # names per finding in the report


class Kind(NamedTuple):
    """What a finding is called, whether it stops training, and what to do about it."""

    title: str
    weight: str  # stop: cannot be used; warn: changes the numbers; note: harmless
    advice: str


KINDS = {
    "unreadable": Kind(
        "files that cannot be read", "stop", "Download them again, or remove image and mask."
    ),
    "shape": Kind(
        "masks of another shape than their image",
        "stop",
        "Put the mask that belongs to the image in its place, or remove both.",
    ),
    "leak": Kind(
        "images that are both in training and in test",
        "warn",
        "Remove them from training, or say so beside the test scores.",
    ),
    "copies": Kind(
        "images stored more than once",
        "warn",
        "Keep one of each: copies count twice, and may train and validate at once.",
    ),
    "image alone": Kind(
        "images without a mask", "warn", "They are not used. Add masks of the same name."
    ),
    "mask alone": Kind(
        "masks without an image", "warn", "They are not used. Add images of the same name."
    ),
    "empty": Kind(
        "empty masks",
        "warn",
        "Check that no object is meant; 'NonCAM' in the name marks images without one.",
    ),
    "colour": Kind(
        "masks in colour",
        "warn",
        "Read as brightness: object where it is above 128. Dark colours become background.",
    ),
    "zero_one": Kind("masks stored as 0 and 1 instead of 0 and 255", "note", "Read as object = 1."),
    "grey": Kind("masks with grey values", "note", "Read as object where grey is above 128."),
    "size": Kind(
        "masks of another size than their image, same shape", "note", "Resized with the image."
    ),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one pair; `path` is the file it is wrong with."""

    kind: str
    pair: Pair
    path: Path
    detail: str

    @property
    def fatal(self) -> bool:
        """Say whether the pair cannot be used at all."""
        return KINDS[self.kind].weight == "stop"

    @property
    def sentence(self) -> str:
        """What was found in which file, and what to do."""
        return f"{self.path}: {self.detail}. {KINDS[self.kind].advice}"


@dataclass(frozen=True)
class SplitCount:
    """What one split of one set holds; `tiny` is the share (0...1) of objects below 3 %."""

    dataset: str
    split: str
    folder: str
    pairs: int
    cam: int
    noncam: int
    empty: int
    tiny: float


@dataclass(frozen=True)
class Finding:
    """All cases of one kind in one place; an item is a name with the detail in brackets."""

    kind: str
    place: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """The result of `audit`: counts of every split, and the findings, gravest first."""

    splits: tuple[SplitCount, ...]
    findings: tuple[Finding, ...]

    def count(self, weight: str) -> int:
        """Return how many items were found whose kind weighs "stop", "warn" or "note"."""
        return sum(len(f.items) for f in self.findings if KINDS[f.kind].weight == weight)

    @property
    def verdict(self) -> str:
        """One sentence: usable or not."""
        pairs = sum(split.pairs for split in self.splits)
        stops, warnings = self.count("stop"), self.count("warn")
        if stops:
            return f"Not usable yet: {stops} of {pairs} pairs stop training. Mend or remove them."
        if warnings:
            return f"Usable: {pairs} pairs. Read the {warnings} warnings before trusting a number."
        return f"Clean: {pairs} pairs, every file readable, every mask fits, no copies."

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values that `json` can write."""
        findings = [{**asdict(f), **KINDS[f.kind]._asdict()} for f in self.findings]
        splits = [asdict(split) for split in self.splits]
        return {"splits": splits, "findings": findings, "verdict": self.verdict}


def audit(sets: Iterable[ImageSet], *, progress: Callable[[int, int], None] | None = None) -> Audit:
    """Decode and compare every pair of the sets; `progress(done, total)` is called after each.

    Nothing that is wrong with a file raises: it becomes a finding. Images are compared by the
    bytes of their files, within each split and between all of them.
    """
    places: dict[str, tuple[str, ImageSet]] = {}
    findings: list[Finding] = []
    for image_set in sets:
        findings += _orphans(image_set)
        for split in ("train", "test"):
            place = f"{image_set.name} {split}"
            key = f"{place} ({image_set.root})" if place in places else place
            if getattr(image_set, split):
                places[key] = (split, image_set)
    pairs = {place: getattr(found, split) for place, (split, found) in places.items()}
    looks = iter(_look_at([pair for group in pairs.values() for pair in group], progress))
    splits = []
    for place, (split, image_set) in places.items():
        seen = list(islice(looks, len(pairs[place])))
        findings += _by_kind(place, [problem for look in seen for problem in look.problems])
        splits.append(_count(split, image_set, pairs[place], seen))
    tests = {place for place, (split, _) in places.items() if split == "test"}
    findings += _copies(pairs, tests)
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    return Audit(tuple(splits), tuple(findings))


def problems(pair: Pair) -> list[Problem]:
    """Return what is wrong with one pair, decoding both files; empty when all is well."""
    return _look(pair).problems


def size_problem(pair: Pair, image_size: Sequence[int], mask_size: Sequence[int]) -> Problem | None:
    """Compare (height, width, ...) of an image and its mask.

    Another size is harmless when height / width agree within 2 %: both are resized to one square.
    """
    (height, width), (mask_height, mask_width) = image_size[:2], mask_size[:2]
    if (height, width) == (mask_height, mask_width):
        return None
    kind = "size" if same_shape(image_size, mask_size) else "shape"
    detail = f"mask {mask_height} x {mask_width}, image {height} x {width} (height x width)"
    return Problem(kind, pair, pair.mask, detail)


def find_copies(places: Mapping[str, Sequence[Pair]]) -> list[tuple[tuple[str, Path], ...]]:
    """Return the groups of byte-identical images, each as (place, file) of its members."""
    sizes: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for place, pairs in places.items():
        for pair in pairs:
            with suppress(OSError):  # a file that is gone is reported as unreadable
                sizes[pair.image.stat().st_size].append((place, pair.image))
    contents: dict[bytes, list[tuple[str, Path]]] = defaultdict(list)
    for files in sizes.values():
        for place, path in files if len(files) > 1 else ():
            with suppress(OSError):
                contents[hashlib.sha256(path.read_bytes()).digest()].append((place, path))
    return [tuple(files) for files in contents.values() if len(files) > 1]


def report(found: Audit) -> str:
    """Return the audit as a plain text table, the findings with what to do, and the verdict."""
    head = ("split", "pairs", "CAM", "NonCAM", "empty", f"object < {TINY:.0%}", "folder")
    rows = [
        (
            f"{split.dataset} {split.split}",
            *map(str, astuple(split)[3:7]),
            f"{split.tiny:.0%}",
            split.folder,
        )
        for split in found.splits
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([*lines, "", *map(_paragraph, found.findings), found.verdict])


def _paragraph(finding: Finding) -> str:
    kind, count = KINDS[finding.kind], len(finding.items)
    more = f"\n    and {count - SHOWN} more" if count > SHOWN else ""
    items = "\n    ".join(finding.items[:SHOWN])
    return (
        f"[{kind.weight}] {finding.place}, {kind.title}: {count}\n    {items}{more}\n"
        f"    -> {kind.advice}\n"
    )


class _Look(NamedTuple):
    problems: list[Problem]
    share: float  # of the picture that is object, 0...1; nan if a file cannot be read


def _look_at(pairs: Sequence[Pair], progress: Callable[[int, int], None] | None) -> list[_Look]:
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    looks = []
    try:
        for look in pool.map(_look, pairs):
            looks.append(look)
            if progress:
                progress(len(looks), len(pairs))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C ends now, not after ten thousand images
    return looks


def _look(pair: Pair) -> _Look:
    path = pair.image
    try:
        image_size = read_image(path).shape
        path = pair.mask
        grey = read_grey(path)
        pure = bool(((grey == 0) | (grey == 255)).all())
        share = float((grey == 255).mean() if pure else read_mask(path).mean())
        found = [size_problem(pair, image_size, grey.shape)]
        found.append(None if pure else _value_problem(pair, grey))
    except InputError as error:
        detail = f"cannot be read ({error.__cause__ or error})"
        return _Look([Problem("unreadable", pair, path, detail)], math.nan)
    if share == 0 and not is_noncam(pair):
        found.append(Problem("empty", pair, path, "no pixel is object"))
    return _Look([problem for problem in found if problem], share)


def _value_problem(pair: Pair, grey: Array) -> Problem:
    """Name the way in which a mask is not 0 and 255."""
    channels = read_image(pair.mask)
    spread = channels.max(axis=2) - channels.min(axis=2)
    if (spread > COLOUR_TOLERANCE).any():
        return Problem("colour", pair, pair.mask, "more colours than black and white")
    if grey.max() <= 1:
        return Problem("zero_one", pair, pair.mask, "brightest value 1")
    share = ((grey > 0) & (grey < 255)).mean()
    return Problem("grey", pair, pair.mask, f"{share:.1%} of the pixels between 0 and 255")


def _orphans(image_set: ImageSet) -> list[Finding]:
    alone = (
        ("image alone", image_set.images_without_mask),
        ("mask alone", image_set.masks_without_image),
    )
    return [
        Finding(kind, image_set.name, tuple(path.name for path in paths))
        for kind, paths in alone
        if paths
    ]


def _by_kind(place: str, found: Iterable[Problem]) -> list[Finding]:
    items: dict[str, list[str]] = defaultdict(list)
    for problem in found:
        items[problem.kind].append(f"{problem.path.name} ({problem.detail})")
    return [Finding(kind, place, tuple(names)) for kind, names in items.items()]


def _copies(places: Mapping[str, Sequence[Pair]], tests: set[str]) -> list[Finding]:
    """Sort groups of copies into leaks (training and test meet) and mere repetitions."""
    items: dict[str, list[str]] = {"leak": [], "copies": []}
    for group in find_copies(places):
        sides = {place in tests for place, _ in group}
        names = " = ".join(f"{path.name} ({place})" for place, path in group)
        items["leak" if len(sides) == 2 else "copies"].append(names)
    return [Finding(kind, "all splits", tuple(names)) for kind, names in items.items() if names]


def _count(
    split: str, image_set: ImageSet, pairs: Sequence[Pair], looks: Sequence[_Look]
) -> SplitCount:
    noncam = sum(map(is_noncam, pairs))
    shares = [look.share for look in looks if look.share > 0]
    return SplitCount(
        dataset=image_set.name,
        split=split,
        folder=str(image_set.root),
        pairs=len(pairs),
        cam=len(pairs) - noncam,
        noncam=noncam,
        empty=sum(look.share == 0 for look in looks),
        tiny=sum(share < TINY for share in shares) / max(len(shares), 1),
    )
