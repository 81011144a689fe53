"""Lists of names beside the images: train.txt, val.csv, ImageSets/Segmentation/test.txt.

A list is obeyed where it fits: its name says a split, or a column does, each line names one image
that is there, and the folders do not say otherwise. Else it is named, with the reason.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import few
from .folders import SUFFIXES, Folder
from .pairs import ImageSet, Pair
from .spellings import SPLITS, said

LARGEST = 20_000_000  # bytes; a longer file is no list of names
NAMES = ("image", "images", "img", "filename", "file", "name", "path", "id", "image_id", "imageid")
COLUMNS = ("split", "set", "subset", "partition", "phase", "fold", "usage")
OTHERWISE = "the folders say otherwise"


@dataclass(frozen=True)
class _List:
    path: Path
    split: str
    lines: tuple[str, ...]


def obey(
    tree: Folder, sets: Sequence[ImageSet]
) -> tuple[tuple[ImageSet, ...], tuple[str, ...], tuple[Pair, ...]]:
    """Return the sets split as lists say, a sentence on each list, and the pairs left out."""
    notes: list[str] = []
    left: list[Pair] = []
    listed = [each for folder in tree.walk() for each in _lists(folder)]
    changed = []
    for one in sets:
        own = [each for each in listed if _home(each.path, tree.path) in _above(one.root)]
        near = max((len(_home(each.path, tree.path).parts) for each in own), default=0)
        own = [each for each in own if len(_home(each.path, tree.path).parts) == near]
        after, said_of_it, out = _apply(one, own)
        notes += [note for note in said_of_it if note not in notes]
        left += out
        changed.append(after)
    reached = [one.root for one in sets]
    for each in listed:
        home = _home(each.path, tree.path)
        if not any(home in _above(root) for root in reached):
            notes.append(f"{_short(each.path)} is not obeyed: no images lie beside or below it")
    return tuple(changed), tuple(notes), tuple(left)


def _above(root: Path) -> tuple[Path, ...]:
    return (root, *root.parents)


def _home(path: Path, top: Path) -> Path:
    """Return the folder whose images a list speaks of: ImageSets/Main/x.txt lies two below."""
    folder = path.parent
    while folder != top and folder.name.lower() in (
        *("imagesets", "segmentation", "main", "lists", "list", "splits", "split", "info"),
        *("image_sets", "filelists", "txt", "csv", "meta", "metadata", "annotations"),
    ):
        folder = folder.parent
    return folder


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _lists(folder: Folder) -> Iterator[_List]:
    for name in folder.lists:
        path, split = folder.path / name, said(Path(name).stem)
        if not split and not name.lower().endswith(".csv"):
            continue
        rows = _rows(path)
        by_column = _by_column(rows)
        if by_column:
            for found, lines in by_column.items():
                yield _List(path, found, tuple(lines))
        elif split and rows:
            yield _List(path, split, tuple(row[0] for row in _without_head(rows) if row))


def _rows(path: Path) -> list[list[str]]:
    try:
        if path.stat().st_size > LARGEST:
            return []
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError:
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix.lower() == ".csv" or all("," in line for line in lines[:3]):
        kind = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
        return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=kind)]
    return [_cells(line) for line in lines]


def _cells(line: str) -> list[str]:
    """Return the words of a line; a path may hold spaces, and a mask's path may follow it."""
    if "\t" in line:
        return [cell.strip() for cell in line.split("\t")]
    words = line.split()
    ends = [number for number, word in enumerate(words, 1) if word.lower().endswith(SUFFIXES)]
    if ends:
        return [" ".join(words[: ends[0]]), *words[ends[0] :]]
    return [line.strip()]


def _without_head(rows: list[list[str]]) -> list[list[str]]:
    return rows[1:] if rows[0] and rows[0][0].lower() in NAMES else rows


def _by_column(rows: list[list[str]]) -> dict[str, list[str]]:
    """Return the names of each split of a table with a column of splits."""
    if len(rows) < 2:
        return {}
    head = [cell.lower() for cell in rows[0]]
    names = [place for place, cell in enumerate(head) if cell in NAMES]
    splits = [place for place, cell in enumerate(head) if cell in COLUMNS]
    if not names or not splits:
        return {}
    found: dict[str, list[str]] = {}
    for row in rows[1:]:
        if len(row) == len(head) and (split := said(row[splits[0]])):
            found.setdefault(split, []).append(row[names[0]])
    return found


def _apply(one: ImageSet, lists: Sequence[_List]) -> tuple[ImageSet, list[str], list[Pair]]:
    """Return a set as the lists split it, a sentence for each, and the pairs that none names."""
    if not lists:
        return one, [], []
    index = _index(one)
    sides: dict[str, set[Pair]] = {split: set() for split in SPLITS}
    notes, whole = [], {split: set(_side(one, split)) for split in SPLITS}
    for each in sorted(lists, key=lambda each: "trainval" in each.path.stem.lower()):
        pairs, why = _named(each, index)
        named = {pair for other in sides if other != each.split for pair in sides[other]}
        if not why and (shared := named & pairs):
            why = f"{len(shared)} of its images are in another list: {_few(shared)}"
        folders = whole["test"] | whole["validation"]
        if not why and (other := (pairs & folders) - whole[each.split]):
            why = f"{OTHERWISE} of {len(other)} images: {_few(other)}"
        if why:
            notes.append(f"{_short(each.path)} is not obeyed: {why}")
        else:
            sides[each.split] |= pairs
            notes.append(f"{_short(each.path)} is obeyed: {len(pairs)} images, {each.split}")
    if whole["test"] or whole["validation"]:  # split by folders, and no list disagrees
        return one, [note for note in notes if OTHERWISE in note], []
    rest = whole["train"] - sides["test"] - sides["validation"]
    unlisted = rest - sides["train"] if sides["train"] else set()
    sides["train"] = rest - unlisted
    train, validation, test = (
        tuple(pair for pair in one.train if pair in sides[split]) for split in SPLITS
    )
    left = [pair for pair in one.train if pair in unlisted]
    return replace(one, train=train, validation=validation, test=test), notes, left


def _side(one: ImageSet, split: str) -> tuple[Pair, ...]:
    return {"train": one.train, "validation": one.validation, "test": one.test}[split]


def _few(pairs: set[Pair]) -> str:
    return few(sorted(pair.name for pair in pairs))


def _index(one: ImageSet) -> dict[str, set[Pair]]:
    """Return the pairs by each end of their image's path without its suffix."""
    index: dict[str, set[Pair]] = {}
    for pair in one.pairs:
        parts = (*pair.image.parts[1:-1], pair.name)
        for start in range(len(parts) - 1, max(len(parts) - 6, -1), -1):
            index.setdefault(_plain("/".join(parts[start:])), set()).add(pair)
    return index


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _named(each: _List, index: dict[str, set[Pair]]) -> tuple[set[Pair], str]:
    """Return the pairs that a list names, and why it does not fit, if it does not."""
    pairs: set[Pair] = set()
    missing: list[str] = []
    twice: list[str] = []
    for line in each.lines:
        found = _look_up(line, index)
        if len(found) == 1:
            pairs |= found
        else:
            (twice if found else missing).append(line)
    if missing:
        count = f"{len(missing)} of its {len(each.lines)} lines name no image with a mask here"
        return set(), f"{count}: {few(missing)}"
    if twice:
        return set(), f"{len(twice)} of its lines fit several images: {few(twice)}"
    return pairs, "" if pairs else "it is empty"


def _look_up(line: str, index: dict[str, set[Pair]]) -> set[Pair]:
    """Return what a line fits, by as much of its path as is there."""
    text = _plain(line.strip().strip('"').replace("\\", "/")).lstrip("./")
    first, _, flag = text.rpartition(" ")
    flagged = [first.strip()] if flag in ("0", "1", "-1") else []  # VOC: whether an object is there
    for each in (text, *flagged):
        for suffix in SUFFIXES:
            each = each.removesuffix(suffix)
        parts = each.split("/")
        for start in range(len(parts)):
            if found := index.get("/".join(parts[start:])):
                return found
    return set()
