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
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from .cache import Progress
from .images import Array, binary, doubt, read_grey, read_image, same_shape
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
    "ids": Kind(
        "masks without a value above 128",
        "warn",
        "Read as empty. Masks of ids, classes or dark colours: save the object as 255.",
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


def audit(sets: Iterable[ImageSet], *, progress: Progress | None = None) -> Audit:
    """Decode and compare every pair of the sets; `progress(done, total)` is called after each.

    Nothing that is wrong with a file raises: it becomes a finding. Images are compared by the
    bytes of their files, within each split and between all of them.
    """
    sides: dict[str, tuple[ImageSet, str]] = {}
    findings: list[Finding] = []
    for image_set in sets:
        findings += _orphans(image_set)
        for split in ("train", "test"):
            place = f"{image_set.name} {split}"
            key = f"{place} ({image_set.root})" if place in sides else place
            if getattr(image_set, split):
                sides[key] = (image_set, split)
    pairs = {place: getattr(*side) for place, side in sides.items()}
    checked = iter(_check_all([pair for group in pairs.values() for pair in group], progress))
    splits = []
    for place, (image_set, split) in sides.items():
        here = list(islice(checked, len(pairs[place])))
        findings += _by_kind(place, (item for each in here for item in each.problems))
        splits.append(_count(image_set, split, here))
    findings += _copies(pairs, tests={place for place, side in sides.items() if side[1] == "test"})
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    return Audit(tuple(splits), tuple(findings))


def find_copies(places: Mapping[str, Sequence[Pair]]) -> list[tuple[tuple[str, Path], ...]]:
    """Return the groups of byte-identical images, each as (place, file) of its members."""
    files = [(place, pair.image) for place, pairs in places.items() for pair in pairs]
    return [
        copies
        for same_size in _groups(files, lambda path: path.stat().st_size)
        for copies in _groups(same_size, lambda path: hashlib.sha256(path.read_bytes()).digest())
    ]


def _groups(
    files: Iterable[tuple[str, Path]], key: Callable[[Path], Hashable]
) -> list[tuple[tuple[str, Path], ...]]:
    """Return the files that share their key with another one; a file that is gone has none."""
    groups: dict[Hashable, list[tuple[str, Path]]] = defaultdict(list)
    for place, path in files:
        with suppress(OSError):
            groups[key(path)].append((place, path))
    return [tuple(group) for group in groups.values() if len(group) > 1]


def report(found: Audit) -> str:
    """Return the audit as a plain text table, the findings with what to do, and the verdict."""
    head = ("split", "pairs", "CAM", "NonCAM", "empty", f"object < {TINY:.0%}", "folder")
    rows = [
        [f"{s.dataset} {s.split}", s.pairs, s.cam, s.noncam, s.empty, f"{s.tiny:.0%}", s.folder]
        for s in found.splits
    ]
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join([*lines, "", *map(_paragraph, found.findings), found.verdict])


def _paragraph(finding: Finding) -> str:
    kind, count = KINDS[finding.kind], len(finding.items)
    more = f"\n    and {count - SHOWN} more" if count > SHOWN else ""
    items = "\n    ".join(finding.items[:SHOWN])
    return (
        f"[{kind.weight}] {finding.place}, {kind.title}: {count}\n    {items}{more}\n"
        f"    -> {kind.advice}\n"
    )


class _Checked(NamedTuple):
    problems: list[tuple[str, str]]  # kind, and the file's name with the detail
    share: float  # of the picture that is object, 0...1; nan if a file cannot be read


def _check_all(pairs: Sequence[Pair], progress: Progress | None) -> list[_Checked]:
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    checked = []
    try:
        for each in pool.map(_check, pairs):
            checked.append(each)
            if progress:
                progress(len(checked), len(pairs))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C ends now, not after ten thousand images
    return checked


def _check(pair: Pair) -> _Checked:
    """Decode both files; another size than the image's is harmless where the shape is the same."""
    path, found = pair.image, {}
    try:
        image = read_image(path)
        path = pair.mask
        grey = read_grey(path)
        pure = bool(((grey == 0) | (grey == 255)).all())
        share = float(binary(grey).mean())
        if grey.shape != image.shape[:2]:
            sizes = [f"{a.shape[0]} x {a.shape[1]}" for a in (grey, image)]
            kind = "size" if same_shape(image.shape, grey.shape) else "shape"
            found[kind] = "mask {}, image {} (height x width)".format(*sizes)
        if not pure:
            found.update([_odd_values(path, grey)])
    except InputError as error:
        found, share = {"unreadable": f"cannot be read ({error.__cause__ or error})"}, math.nan
    if share == 0 and not is_noncam(pair):
        found["empty" if "colour" in found else doubt(grey)] = "no pixel is object"
    return _Checked([(kind, f"{path.name} ({detail})") for kind, detail in found.items()], share)


def _odd_values(mask: Path, grey: Array) -> tuple[str, str]:
    """Return the way in which a mask is not 0 and 255, and the detail."""
    channels = read_image(mask)
    spread = channels.max(axis=2) - channels.min(axis=2)
    if (spread > COLOUR_TOLERANCE).any():
        return "colour", "more colours than black and white"
    if doubt(grey) == "zero_one":
        return "zero_one", "brightest value 1"
    return "grey", f"{((grey > 0) & (grey < 255)).mean():.1%} of the pixels between 0 and 255"


def _orphans(image_set: ImageSet) -> list[Finding]:
    alone = [("image alone", path.name) for path in image_set.images_without_mask]
    alone += [("mask alone", path.name) for path in image_set.masks_without_image]
    return _by_kind(image_set.name, alone)


def _copies(pairs: Mapping[str, Sequence[Pair]], tests: set[str]) -> list[Finding]:
    """Sort groups of copies into leaks (training and test meet) and mere repetitions."""
    items = []
    for group in find_copies(pairs):
        sides = {place in tests for place, _ in group}
        names = " = ".join(f"{path.name} ({place})" for place, path in group)
        items.append(("leak" if len(sides) == 2 else "copies", names))
    return _by_kind("all splits", items)


def _by_kind(place: str, found: Iterable[tuple[str, str]]) -> list[Finding]:
    items: dict[str, list[str]] = defaultdict(list)
    for kind, item in found:
        items[kind].append(item)
    return [Finding(kind, place, tuple(names)) for kind, names in items.items()]


def _count(image_set: ImageSet, split: str, checked: Sequence[_Checked]) -> SplitCount:
    noncam = sum(map(is_noncam, getattr(image_set, split)))
    shares = [each.share for each in checked if each.share > 0]
    return SplitCount(
        dataset=image_set.name,
        split=split,
        folder=str(image_set.root),
        pairs=len(checked),
        cam=len(checked) - noncam,
        noncam=noncam,
        empty=sum(each.share == 0 for each in checked),
        tiny=sum(share < TINY for share in shares) / max(len(shares), 1),
    )
