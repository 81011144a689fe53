"""Lists of names beside the images: train.txt, val.csv, ImageSets/Segmentation/test.txt.

A list is obeyed where it fits: its name says a split, or a column does, each line names one image
that is there, and the folders do not say otherwise. Else it is named, with the reason.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import few
from .folders import SUFFIXES, Folder
from .list_files import NameList
from .pairs import ImageSet, Pair
from .spellings import SPLITS, begins_or_ends, said

Index = dict[str, set[Pair]]  # the images by each end of their path
OF_LISTS = (  # folders of lists, which speak of the images beside them
    *("imagesets", "segmentation", "main", "lists", "list", "splits", "split", "folds", "info"),
    *("image_sets", "filelists", "txt", "csv", "meta", "metadata", "annotations"),
)
_NUMBER = re.compile(r"\s+-?\d+$")
OTHERWISE = "the folders say otherwise"


def obey(
    tree: Folder, sets: Sequence[ImageSet], listed: Sequence[NameList]
) -> tuple[tuple[ImageSet, ...], tuple[str, ...], tuple[Pair, ...]]:
    """Return the sets split as the lists say, a sentence on each, and the pairs left out."""
    if not listed:
        return tuple(sets), (), ()
    notes: list[str] = []
    left: list[Pair] = []
    changed, indices = [], [_index(one) for one in sets]
    for place, one in enumerate(sets):
        others = indices[:place] + indices[place + 1 :]
        own = [each for each in listed if _home(each.path, tree.path) in _above(one.root)]
        near = max((len(_home(each.path, tree.path).parts) for each in own), default=0)
        own = [each for each in own if len(_home(each.path, tree.path).parts) == near]
        after, said_of_it, out = _apply(one, own, indices[place], others)
        notes += [note for note in said_of_it if note not in notes]
        left += out
        changed.append(after)
    reached = [one.root for one in sets]
    for each in listed:
        home = _home(each.path, tree.path)
        if not any(home in _above(root) for root in reached):
            notes.append(f"{each} is not obeyed: no images lie beside or below it")
    return tuple(changed), tuple(notes), tuple(left)


def by_file_names(sets: Sequence[ImageSet]) -> tuple[tuple[ImageSet, ...], tuple[str, ...]]:
    """Split the sets that nothing else splits as their files' names do: train_1.jpg, val_1.jpg.

    Returns them with a sentence on each. Images whose names say nothing train.
    """
    notes, changed = [], []
    for one in sets:
        sides: dict[str, list[Pair]] = {split: [] for split in SPLITS}
        for pair, split in zip(one.train, _by_file_name(one), strict=True):
            sides[split].append(pair)
        train, validation, test = (tuple(sides[split]) for split in SPLITS)
        held = [f"{len(sides[split])} {split}" for split in ("validation", "test") if sides[split]]
        whole = not (one.validation or one.test)
        if held and whole and train:
            notes.append(f"{one.root.name}: names of images are obeyed: {', '.join(held)}")
            one = replace(one, train=train, validation=validation, test=test)
        elif held:
            why = "nothing would be left to train" if whole else "folders or lists split this set"
            notes.append(f"{one.root.name}: names that say {', '.join(held)} are not obeyed: {why}")
        changed.append(one)
    return tuple(changed), tuple(notes)


def _by_file_name(one: ImageSet) -> list[str]:
    """Return what each training image's own name says, unless a folder says that it trains.

    Short words count where other images are called tr_..., so that te_... says something.
    """
    words = [begins_or_ends(pair.name, True) for pair in one.train]
    every = "train" in words
    trains = {folder: _trains(folder, one.root) for folder in {p.image.parent for p in one.train}}
    return [
        (word and not trains[pair.image.parent] and begins_or_ends(pair.name, every)) or "train"
        for pair, word in zip(one.train, words, strict=True)
    ]


def _trains(folder: Path, root: Path) -> bool:
    return any(said(name) == "train" for name in (root.name, *folder.relative_to(root).parts))


def _above(root: Path) -> tuple[Path, ...]:
    return (root, *root.parents)


def _home(path: Path, top: Path) -> Path:
    """Return the folder whose images a list speaks of: ImageSets/Main/x.txt lies two below."""
    above = [folder for folder in path.parents if folder.is_relative_to(top) and folder != top]
    of_lists = [folder for folder in above if folder.name.lower() in OF_LISTS]
    return of_lists[-1].parent if of_lists else path.parent


def _apply(
    one: ImageSet, lists: Sequence[NameList], index: Index, others: Sequence[Index]
) -> tuple[ImageSet, list[str], list[Pair]]:
    """Return a set as the lists split it, a sentence for each, and the pairs that none names.

    index, others: the images of this set and of others by name, which a list may name as well.
    """
    if not lists:
        return one, [], []
    sides: dict[str, set[Pair]] = {split: set() for split in SPLITS}
    notes, whole = [], {split: set(_side(one, split)) for split in SPLITS}
    for each in sorted(lists, key=lambda each: "trainval" in each.path.stem.lower()):
        pairs, why = (set(), each.problem) if each.problem else _named(each, index, others)
        if not (pairs or why):  # it speaks of others alone
            continue
        named = {pair for other in sides if other != each.split for pair in sides[other]}
        if not why and (shared := named & pairs):
            why = f"{len(shared)} of its images are in another list: {_few(shared)}"
        folders = whole["test"] | whole["validation"]
        if not why and (other := (pairs & folders) - whole[each.split]):
            why = f"{OTHERWISE} of {len(other)} images: {_few(other)}"
        if why:
            notes.append(f"{each} is not obeyed: {why}")
        else:
            sides[each.split] |= pairs
            notes.append(f"{each} is obeyed: {len(pairs)} images, {each.split}")
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


def _index(one: ImageSet) -> Index:
    """Return the pairs by each end of their image's path without its suffix."""
    index: Index = {}
    for pair in one.pairs:
        parts = (*pair.image.parts[1:-1], pair.name)
        for start in range(len(parts) - 1, max(len(parts) - 6, -1), -1):
            index.setdefault(_plain("/".join(parts[start:])), set()).add(pair)
    return index


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _named(each: NameList, index: Index, others: Sequence[Index]) -> tuple[set[Pair], str]:
    """Return the pairs that a list names, and why it does not fit, if it does not."""
    pairs: set[Pair] = set()
    missing: list[str] = []
    twice: list[str] = []
    for line in each.lines:
        found = _look_up(line, index)
        if len(found) == 1:
            pairs |= found
        elif found or not any(_look_up(line, other) for other in others):
            (twice if found else missing).append(line)
    if missing:
        count = f"{len(missing)} of its {len(each.lines)} lines name no image with a mask here"
        return set(), f"{count}: {few(missing)}"
    if twice:
        return set(), f"{len(twice)} of its lines fit several images: {few(twice)}"
    return pairs, "" if each.lines else "it is empty"


def _look_up(line: str, index: Index) -> set[Pair]:
    """Return what a line fits, by as much of its path as is there."""
    text = _plain(line.strip().strip('"').replace("\\", "/")).lstrip("./")
    found = [text]
    while (cut := _NUMBER.sub("", found[-1])) != found[-1]:  # VOC: is an object there, its class
        found.append(cut)
    for each in found:
        for suffix in SUFFIXES:
            each = each.removesuffix(suffix)
        parts = each.split("/")
        for start in range(len(parts)):
            if pairs := index.get("/".join(parts[start:])):
                return pairs
    return set()
