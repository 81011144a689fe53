"""Ways to find image folders and the folders of their masks, in a tree that was listed."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import NamedTuple

from ..errors import InputError
from .folders import Folder, plain, some
from .nearness import Nearness, agree, rank
from .pairing import Names, pair_in_one_folder, pair_names
from .reading import Reading
from .spellings import holds_masks, is_plain

# What a word in a layout stands for, compared without case, "_", "-" and " ". First = preferred.
SPELLINGS = {
    "Imgs": ("imgs", "image", "images", "img", "im", "rgb", "jpegimages", "frames", "frame"),
    "GT": (
        *("gtobject", "gt", "gts", "groundtruth", "mask", "masks", "label", "labels", "annotation"),
        *("annotations", "segmentation", "segmentationclass"),
    ),
}
SETS_OF_TESTS = ("testdataset", "testdatasets", "testingdataset")  # by name a set, not its part
ALIKE = "folders alike but for the word"  # images_x and masks_x, x-Image and x-Mask, a/img, a/label
TOGETHER = "images and masks in one folder"
NAMED = "as --image-folder and --mask-folder say"


class Layout(NamedTuple):
    """Image folder and mask folder, below the data set's folder.

    SPLIT is a folder called by a split and nothing else, `spellings.is_plain`. *GT is a folder
    called like the images', and GT. Splits of both sides must agree.
    """

    name: str
    images: str
    masks: str


class Match(NamedTuple):
    """An image folder, the mask folder taken for it, and the names that meet."""

    images: Folder
    masks: Folder
    names: Names
    others: tuple[Folder, ...] = ()  # mask folders that were not taken


@dataclass
class Search:
    """What is claimed so far, and how pairs are to be made."""

    tree: Folder
    reading: Reading
    claimed: set[str] = field(default_factory=set)
    masks: set[str] = field(default_factory=set)

    @cached_property
    def near(self) -> Nearness:
        """How near the folders of masks lie to those of images."""
        return Nearness(self.tree, self._names)

    def _names(self, images: Folder, masks: Folder) -> Names:
        if masks.real == images.real:
            return pair_in_one_folder(images.images, self.reading.suffix)
        return pair_names(images.images, masks.images, self.reading.suffix)

    def take(self, matches: Iterable[Match]) -> None:
        """Let nothing else have these folders."""
        for match in matches:
            self.claimed.add(match.images.real)
            self.masks.add(match.masks.real)


Way = Iterator[tuple[str, Folder, list[Match]]]


def by_rows(search: Search, table: Sequence[Layout]) -> Way:
    """Try every layout on every folder, from the top down."""
    for folder, row in product(search.tree.walk(), table):
        matches = []
        for images in find(folder, row.images):
            lone = images.real not in search.claimed and not holds_masks(images.path.name)
            if images.images and lone:
                options = [
                    masks
                    for masks in find(folder, row.masks)
                    if agree(below(images, folder), below(masks, folder))
                ]
                matches += _best(images, _wanted(images, options, search), search)
        if matches:
            yield row.name, folder, matches


def alike(search: Search) -> Way:
    """Pair folders whose paths differ in nothing but the words for images and masks."""
    folders = [folder for folder in search.tree.walk() if folder.images]
    masks = {f.real for f in folders if any(map(holds_masks, below(f, search.tree)))}
    found: dict[str, tuple[Folder, list[Match]]] = {}
    for images in folders:
        if images.real in masks | search.claimed | search.masks:
            continue
        for match in _best(images, search.near.masks_of(images), search):
            folder = _common(search.tree, images, match.masks)
            search.take([match])
            found.setdefault(folder.real, (folder, []))[1].append(match)
    for folder, matches in found.values():
        yield ALIKE, folder, matches


def together(search: Search) -> Way:
    """Pair the files of folders that hold images and masks."""
    for folder in search.tree.walk():
        if not folder.images or folder.real in search.claimed | search.masks:
            continue
        names = pair_in_one_folder(folder.images, search.reading.suffix)
        if names.files:
            yield TOGETHER, folder, [Match(folder, folder, names)]


def named(search: Search) -> Way:
    """Pair the folders that --image-folder and --mask-folder name."""
    reading, tree = search.reading, search.tree
    folders = [folder for folder in tree.walk() if folder.images]
    images = _meant(tree, folders, reading.images, "--image-folder")
    masks = _meant(tree, folders, reading.masks, "--mask-folder")
    images = images or [each for each in folders if each not in masks]
    masks = masks or [each for each in folders if each not in images] + images
    found: dict[str, tuple[Folder, list[Match]]] = {}
    for each in images:
        for match in _nearest(each, images, masks, search):
            folder = _common(tree, each, match.masks)
            found.setdefault(folder.real, (folder, []))[1].append(match)
    for folder, matches in found.values():
        yield NAMED, folder, matches


def _nearest(
    images: Folder, every: Sequence[Folder], masks: Sequence[Folder], search: Search
) -> list[Match]:
    """Return the mask folder that goes with an image folder: by its words, by place, by names.

    Two sets whose images are numbered alike may be named at once: no mask is taken that belongs to
    one of `every` image folder that is nearer.
    """

    def distance(images: Folder, masks: Folder) -> tuple[bool, int]:
        own, other = below(images, search.tree), below(masks, search.tree)
        shared = [a == b for a, b in zip(own, other, strict=False)]
        return not agree(own, other), -([*shared, False].index(False))

    def is_of_another(folder: Folder) -> bool:
        own, here = set(search.near.names(images, folder).files.values()), distance(images, folder)
        return any(
            distance(each, folder) < here
            and not own.isdisjoint(search.near.names(each, folder).files.values())
            for each in every
        )

    for place in sorted({distance(images, folder) for folder in masks}):
        options = [each for each in masks if distance(images, each) == place]
        if found := _best(images, [f for f in options if not is_of_another(f)], search):
            return found
    return []


def _meant(tree: Folder, folders: Sequence[Folder], patterns: str, flag: str) -> list[Folder]:
    """Return the folders below the root that patterns with commas between them name."""
    found: list[Folder] = []
    for pattern in filter(None, (each.strip().strip("/\\") for each in patterns.split(","))):
        wanted = pattern.replace("\\", "/").removeprefix("./").lower()
        paths = {f.real: f.path.relative_to(tree.path).as_posix().lower() for f in folders}
        own = [f for f in folders if fnmatch.fnmatchcase(paths[f.real], wanted)]
        own = own or [f for f in folders if f"/{wanted}/" in f"/{paths[f.real]}/"]
        if not own:
            names = [f.path.relative_to(tree.path).as_posix() for f in folders]
            raise InputError(
                f"{flag} {pattern}: no folder of images of that name below {tree.path}. Folders "
                f"with images: {some(names)}. Give one of these, or a pattern as */images."
            )
        found += [folder for folder in own if folder not in found]
    return found


def find(folder: Folder, pattern: str) -> list[Folder]:
    """Return the folders below that a path of TABLE can mean, preferred spelling first."""
    found = [folder]
    for word in pattern.split("/"):
        inside = [child for each in found for child in each.folders]
        if word == "SPLIT":
            found = [child for child in inside if is_plain(child.path.name)]
            found = [child for child in found if child.plain not in SETS_OF_TESTS]
        elif word.startswith("*"):
            found = [child for child in inside if holds_masks(child.path.name)]
        else:
            names = SPELLINGS.get(word, (plain(word),))
            found = [child for name in names for child in inside if child.plain == name]
    return found


def below(folder: Folder, above: Folder) -> tuple[str, ...]:
    """Return the parts of a folder's path from one above it."""
    return folder.path.relative_to(above.path).parts


def _wanted(images: Folder, options: Sequence[Folder], search: Search) -> list[Folder]:
    """Return the options of a layout that lie nearest, none where others lie nearer still."""
    found = search.near.nearest(images, options)
    nearer = search.near.masks_of(images)
    if found and nearer and rank(images, nearer[0]) > rank(images, found[0]):
        return []
    return found


def _common(tree: Folder, images: Folder, masks: Folder) -> Folder:
    """Return the lowest folder that holds both."""
    inside = [
        folder
        for folder in tree.walk()
        if images.path.is_relative_to(folder.path) and masks.path.is_relative_to(folder.path)
    ]
    return max(inside, key=lambda folder: len(folder.path.parts))


def _best(images: Folder, options: Sequence[Folder], search: Search) -> list[Match]:
    """Return the mask folder that shares most names, if one does; the order decides a tie."""
    found = [Match(images, masks, search.near.names(images, masks)) for masks in options]
    found = [match for match in found if match.names.files]
    if not found:
        return []
    best = max(found, key=lambda match: len(match.names.files))
    others = [match.masks for match in found if match.masks.real != best.masks.real]
    return [best._replace(others=tuple(dict.fromkeys(others)))]
