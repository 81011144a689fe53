"""Looking through a data set before a number from it is trusted.

Every image and mask is decoded once, in threads (Pillow lets go of Python's lock while it
decodes); copies are found by their contents, read only for files of equal size, and pictures that
are nearly the same by their looks (`copies`). What can be found is a row of `findings.KINDS`.
"""

from __future__ import annotations

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
from .copies import groups, looks
from .findings import KINDS, NO_OBJECT, Finding, settle
from .identity import digest
from .layouts import Found
from .masks import look, object_share
from .pairing import same
from .pairs import ImageSet, Pair, is_noncam

TINY = 0.03  # object share below which the field calls an object tiny
SHOWN = 5  # names per finding in the report
SPLITS = ("train", "validation", "test")


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
        if any(finding.kind == "nothing" for finding in self.findings):
            return f"Not usable yet: {pairs} pairs, but the masks as they are read teach nothing."
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


def audit(
    found: Found | Iterable[ImageSet],
    *,
    progress: Progress | None = None,
    store: Path | None = None,
) -> Audit:
    """Decode and compare every pair of the sets; `progress(done, total)` is called after each.

    Nothing that is wrong with a file raises: it becomes a finding. Images are compared by the
    bytes of their files and by their looks (`store` is that of `copies.looks`), within each split
    and between all of them. Of what `layouts.look_through` found, what is not used is one too.
    """
    sides: dict[str, tuple[ImageSet, str]] = {}
    findings = _left_over(found) if isinstance(found, Found) else []
    for image_set in found.sets if isinstance(found, Found) else found:
        findings += _orphans(image_set)
        for split in SPLITS:
            place = f"{image_set.name} {split}"
            key = f"{place} ({image_set.root})" if place in sides else place
            if getattr(image_set, split):
                sides[key] = (image_set, split)
    pairs = {place: getattr(*side) for place, side in sides.items()}
    checked = iter(_check_all([pair for group in pairs.values() for pair in group], progress))
    splits = []
    for place, (image_set, split) in sides.items():
        here = list(islice(checked, len(pairs[place])))
        findings += _of_masks(place, pairs[place], here)
        splits.append(_count(image_set, split, here))
    findings += _copies(pairs, {place: side[1] for place, side in sides.items()}, store)
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    return Audit(tuple(splits), tuple(findings))


def find_copies(places: Mapping[str, Sequence[Pair]]) -> list[tuple[tuple[str, Path], ...]]:
    """Return the groups of byte-identical images, each as (place, file) of its members."""
    files = [(place, pair.image) for place, pairs in places.items() for pair in pairs]
    return [
        copies
        for same_size in _groups(files, lambda path: path.stat().st_size)
        for copies in _groups(same_size, digest)
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


def report(found: Audit, shown: int | None = SHOWN) -> str:
    """Return the audit as a plain text table, the findings with what to do, and the verdict.

    `shown` items of each finding, None: all.
    """
    head = ("split", "pairs", "CAM", "NonCAM", "empty", f"object < {TINY:.0%}", "folder")
    rows = [
        [f"{s.dataset} {s.split}", s.pairs, s.cam, s.noncam, s.empty, f"{s.tiny:.0%}", s.folder]
        for s in found.splits
    ]
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join(
        [*lines, "", *(_paragraph(each, shown) for each in found.findings), found.verdict]
    )


def _paragraph(finding: Finding, shown: int | None) -> str:
    kind, items = KINDS[finding.kind], finding.items[:shown]
    rest = len(finding.items) - len(items)
    more = f"\n    and {rest} more (--all shows them)" if rest else ""
    listed = "\n    ".join(items)
    return (
        f"[{kind.weight}] {finding.place}, {kind.title}: {len(finding.items)}\n    "
        f"{listed}{more}\n    -> {kind.advice}\n"
    )


class _Checked(NamedTuple):
    problems: list[tuple[str, str]]  # kind, and the file's name with the detail
    share: float  # of the picture that is object, 0...1; nan if a file cannot be read
    named: frozenset[int] = frozenset()  # the values of --mask-object that this mask has


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
    try:
        _, labels, problems, named = look(pair)
    except InputError as error:
        name = pair.image.name if str(error).startswith(str(pair.image)) else pair.mask.name
        reason = f"{name} (cannot be read ({error.__cause__ or error}))"
        return _Checked([("unreadable", reason)], math.nan)
    share = math.nan if any(kind == "shape" for kind, _ in problems) else object_share(labels)
    kept = [each for each in problems if not (is_noncam(pair) and each[0] in NO_OBJECT)]
    items = [(kind, f"{pair.mask.name} ({detail})") for kind, detail in kept]
    return _Checked(items, share, named)


def _of_masks(place: str, pairs: Sequence[Pair], checked: Sequence[_Checked]) -> list[Finding]:
    """Return what was found in the files of one place, and what follows for all of them."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for each in checked:
        for kind, item in each.problems:
            kinds[kind].append(item)
    settled = settle(kinds, len(pairs), sum(map(is_noncam, pairs)))
    wanted = {value for pair in pairs for value in pair.how.values}
    absent = sorted(wanted.difference(*(each.named for each in checked)))
    if absent and "unnamed" not in settled:
        settled["unnamed"] = [f"no mask has the value {value}" for value in absent]
    return [Finding(kind, place, tuple(items)) for kind, items in settled.items()]


def _left_over(found: Found) -> list[Finding]:
    """Return what is not used, and what became of the lists of names."""
    kinds = [("beside" if each.harmless else "unused", str(each)) for each in found.unused]
    kinds += [("list" if "not obeyed" in note else "lists", note) for note in found.lists]
    if found.unlisted:
        names = ", ".join(pair.name for pair in found.unlisted[:SHOWN])
        count = len(found.unlisted)
        kinds.append(("unused", f"{count} images that no list of training images names: {names}"))
    return _by_kind(str(found.root), kinds)


def _orphans(image_set: ImageSet) -> list[Finding]:
    root = image_set.root
    kinds = {
        "image alone": image_set.images_without_mask,
        "mask alone": image_set.masks_without_image,
    }
    twins = {same(pair.image.name): pair.image.name for pair in image_set.pairs}
    alone = []
    for kind, paths in kinds.items():
        for path in paths:
            twin = twins.get(same(path.name), "") if kind == "image alone" else ""
            why = f" ({twin} has the mask of that name)" if twin else ""
            alone.append((kind, path.relative_to(root).as_posix() + why))
    alone += [("second", line) for line in image_set.second]
    return _by_kind(image_set.name, alone)


def _copies(
    pairs: Mapping[str, Sequence[Pair]], splits: Mapping[str, str], store: Path | None
) -> list[Finding]:
    """Sort groups of copies into leaks (training and what scores meet) and mere repetitions."""
    items = []
    exact = find_copies(pairs)
    known = {path for group in exact for _, path in group[1:]}
    places = {pair.image: place for place, every in pairs.items() for pair in every}
    seen = looks([path for path in places if path not in known], store)
    near = [[(places[path], path) for path in group] for group in groups(seen)]
    for start, found in (("", exact), ("near ", near)):
        for group in found:
            sides = {splits[place] for place, _ in group}
            leaks = "train" in sides and len(sides) > 1
            items.append((f"{start}leak" if leaks else f"{start}copies", _few_of(group)))
    return _by_kind("all splits", items)


def _few_of(group: Sequence[tuple[str, Path]]) -> str:
    """Return the names in a group of copies, of a long one some, with each place among them."""
    first = list({place: (place, path) for place, path in reversed(group)}.values())[::-1]
    shown = [*first, *(each for each in group if each not in first)][: max(SHOWN, len(first))]
    names = [f"{path.name} ({place})" for place, path in shown]
    rest = len(group) - len(shown)
    return " = ".join([*names, *([f"{rest} more"] if rest else [])])


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
