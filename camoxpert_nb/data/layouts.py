"""Finding image sets on disk and pairing every image with its mask.

The layouts with a name of their own are rows of `TABLE`; a new layout is a new row. The rows are
tried on every folder from the top down, and an image folder belongs to the first row that finds
masks for it: nothing is counted twice, and the more specific row wins. Then come folders that
differ in nothing but the word for images or masks (DUTS-TR-Image and DUTS-TR-Mask), and last
folders that hold both. What is left over is counted, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .folders import SUFFIXES as SUFFIXES
from .folders import Folder, list_folders, plain
from .leftover import Unused, nothing_found, unused_files
from .list_files import lists_in
from .lists import by_file_names, obey
from .matching import (
    ALIKE,
    SPELLINGS,
    TOGETHER,
    Layout,
    Match,
    Search,
    alike,
    below,
    by_rows,
    find,
    named,
    together,
)
from .pairing import Names, stem
from .pairs import ImageSet as ImageSet
from .pairs import Pair as Pair
from .pairs import is_noncam as is_noncam
from .reading import AUTOMATIC, MaskReading, Reading
from .spellings import is_plain, said, split_of

_KNOWN = r"cod10k(?:[-_ ]?v3)?|chameleon|nc4k|(?<![a-z])camo(?![a-z])"
_FIELD_NAMES = {"camo": "CAMO", "chameleon": "CHAMELEON", "nc4k": "NC4K", "cod10k": "COD10K"}


TABLE = (
    Layout("COD10K-v3", "SPLIT/Imgs", "SPLIT/GT_Object"),
    Layout("CAMO-V.1.0", "Imgs/SPLIT", "GT"),
    Layout("images and masks by split", "Imgs/SPLIT", "GT/SPLIT"),
    Layout("Train and Test", "SPLIT/Imgs", "SPLIT/GT"),
    Layout("Train and TrainGT", "SPLIT", "*GT"),
    Layout("flat", "Imgs", "GT"),
)


@dataclass(frozen=True)
class Found:
    """The image sets below a root, and every image file there that belongs to none."""

    root: Path
    sets: tuple[ImageSet, ...]
    unused: tuple[Unused, ...]
    lists: tuple[str, ...] = ()  # a sentence on each list of names
    unlisted: tuple[Pair, ...] = ()


def find_datasets(root: Path | str, reading: Reading = AUTOMATIC) -> list[ImageSet]:
    """Return every image set in or below `root`, in the order of the folders' names.

    Folders called Test..., ...-TE, CHAMELEON or NC4K hold test sets, val..., ...-VD validate; what
    says nothing trains, unless a list of names beside the images says otherwise (`lists`). Raises
    InputError when `root` is no folder, holds no image, or no image with its mask.
    """
    return list(look_through(root, reading).sets)


def look_through(root: Path | str, reading: Reading = AUTOMATIC) -> Found:
    """Return the image sets as `find_datasets` does, with what is left over."""
    tree = list_folders(root)
    search = Search(tree, reading)
    by_name = reading.images or reading.masks
    found: list[tuple[str, Folder, list[Match]]] = []
    for way in (named,) if by_name else (_by_table, alike, together):
        for name, folder, matches in way(search):
            search.take(matches)
            found.append((name, folder, matches))
    if not found:
        rows = [
            f"{row.name} ({row.images} + {row.masks})".replace("SPLIT", "Train") for row in TABLE
        ]
        raise nothing_found(tree, [*rows, ALIKE, TOGETHER], reading)
    found = [
        (name, folder, matches + _lone(name, folder, search)) for name, folder, matches in found
    ]
    order = {folder.real: place for place, folder in enumerate(tree.walk())}
    found.sort(key=lambda each: order[each[1].real])
    every = [match for _, _, matches in found for match in matches]
    sets = tuple(_image_set(*each, search) for each in found)
    if reading.images and not any(each.train for each in sets):  # they were named: they train
        sets = tuple(replace(each, train=each.pairs, validation=(), test=()) for each in sets)
    listed = [each for folder in tree.walk() for each in lists_in(folder)]
    sets, notes, unlisted = obey(tree, sets, listed)
    sets, named_so = by_file_names(sets)
    unused = unused_files(tree, every, {each.path for each in listed})
    return Found(tree.path, sets, unused, (*notes, *named_so), unlisted)


def _by_table(search: Search) -> Iterator[tuple[str, Folder, list[Match]]]:
    return by_rows(search, TABLE)


def _lone(name: str, folder: Folder, search: Search) -> list[Match]:
    """Return the image folders of a layout that no way found masks for."""
    row = next((row for row in TABLE if row.name == name), None)
    places = find(folder, row.images) if row else []
    lone = [
        Match(each, each, Names({}, {}))
        for each in places
        if each.images and each.real not in search.claimed | search.masks
    ]
    search.take(lone)
    return lone


def _image_set(layout: str, folder: Folder, matches: list[Match], search: Search) -> ImageSet:
    name = _set_name(folder.path)
    splits: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    of_split = [(match, _split(match.images, folder, search.tree)) for match in matches]
    tests = [match for match, split in of_split if split == "test"]
    for match, split in of_split:
        several = split == "test" and len(tests) > 1
        own = f"{name} {_place(match.images, folder)}" if several else name
        splits[split] += _pairs(match, own, search.reading.how)
    used = {path for pairs in splits.values() for pair in pairs for path in (pair.image, pair.mask)}
    shared = {match.masks.real: match.masks for match in matches}  # CAMO's GT: for all splits
    own_images = {match.images.real for match in matches}
    masks = [each for real, each in shared.items() if real not in own_images]
    second = [line for match in matches for line in _second(match, search.tree)]
    taken = {path for match in matches for path in _second_paths(match)}
    return ImageSet(
        name=name,
        layout=layout,
        root=folder.path,
        train=tuple(splits["train"]),
        test=tuple(splits["test"]),
        images_without_mask=_unused([match.images for match in matches], used | taken),
        masks_without_image=_unused(masks, used | taken),
        validation=tuple(splits["validation"]),
        second=tuple(second),
    )


def _place(images: Folder, folder: Folder) -> str:
    """Return by what a test set is told from others of the same set: "test_A"."""
    parts = below(images, folder)
    return "/".join([part for part in parts if said(part)] or parts)


def _pairs(match: Match, dataset: str, how: MaskReading) -> list[Pair]:
    images, masks = match.images.path, match.masks.path
    return [
        Pair(stem(image), images / image, masks / mask, dataset, how)
        for image, mask in sorted(match.names.files.items())
    ]


def _split(images: Folder, folder: Folder, tree: Folder) -> str:
    inside = below(images, folder)
    if folder.path == tree.path:
        return split_of(inside, "", (), (folder.path.name, folder.path.parent.name))
    above = below(folder, tree)[:-1][::-1]
    return split_of(inside, folder.path.name, above, (tree.path.name, tree.path.parent.name))


def _second(match: Match, tree: Folder) -> list[str]:
    """Return a sentence for each image with several masks, and each folder of them."""
    images, masks = ("/".join(below(each, tree)) or "." for each in (match.images, match.masks))
    lines = [
        f"{images}/{image}: {masks}/{match.names.files[image]} was taken, not {', '.join(others)}"
        for image, others in sorted(match.names.second.items())
    ]
    for other in match.others:
        lines.append(
            f"{images}: the masks in {masks} were taken ({len(match.names.files)} fit), not those "
            f"in {'/'.join(below(other, tree))}: --mask-folder names others"
        )
    return lines


def _second_paths(match: Match) -> list[Path]:
    folder = match.masks.path
    return [folder / name for names in match.names.second.values() for name in names]


def _unused(folders: Iterable[Folder], used: set[Path]) -> tuple[Path, ...]:
    paths = [folder.path / name for folder in folders for name in folder.images]
    return tuple(path for path in paths if path not in used)


def _set_name(folder: Path) -> str:
    """Return the field's name for the set if its folder tells it, else the folder's own name."""
    for name in (folder.name, folder.parent.name):
        known = set(re.findall(_KNOWN, name.lower()))
        if len(known) == 1:
            return _FIELD_NAMES.get(known.pop(), "COD10K-v3")
        if not is_plain(name) and not any(plain(name) in group for group in SPELLINGS.values()):
            break
    return folder.name
