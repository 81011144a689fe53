"""Finding image sets on disk and pairing every image with its mask.

The known layouts are rows of `TABLE`; a new layout is a new row. Each folder is listed once, the
rows are tried on every folder from the top down, and an image folder belongs to the first row that
finds masks for it: nothing is counted twice, and the more specific row wins. Images and masks meet
by their stem, never by their place in two sorted lists.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
DEPTH = 8  # /kaggle/input/datasets/<owner>/<slug>/<folder>/COD10K-v3/Train/Image needs 7

# What a word in TABLE stands for, compared without case, "_", "-" and " ". First = preferred.
SPELLINGS = {
    "Imgs": ("imgs", "image", "images", "img", "im", "rgb"),
    "GT": ("gtobject", "gt", "gts", "groundtruth", "mask", "masks"),
    "Train": ("train", "training", "trainset", "trainingset"),
    "Test": ("test", "testing", "testset", "testingset"),
    "TrainDataset": ("traindataset", "trainingdataset", "trainvaldataset"),
    "TestDataset": ("testdataset", "testingdataset"),
}
_TEST = r"test(ing)?[-_ ]?(data)?(set)?s?"
_KNOWN = r"cod10k(?:[-_ ]?v3)?|chameleon|nc4k|(?<![a-z])camo(?![a-z])"
_FIELD_NAMES = {"camo": "CAMO", "chameleon": "CHAMELEON", "nc4k": "NC4K", "cod10k": "COD10K"}


class Pair(NamedTuple):
    """One image and its mask; `name` is the image's stem, `dataset` the name of its set."""

    name: str
    image: Path
    mask: Path
    dataset: str


@dataclass(frozen=True)
class ImageSet:
    """The pairs of one data set, split as its folders split it, and the files left alone."""

    name: str
    layout: str
    root: Path
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    images_without_mask: tuple[Path, ...] = ()
    masks_without_image: tuple[Path, ...] = ()


class Layout(NamedTuple):
    """A row of `TABLE`: (image folder, mask folder) of each split, below the data set's folder.

    `where` is a regular expression that must be found in "parent/folder" in lower case.
    """

    name: str
    train: tuple[str, str] | None = None
    test: tuple[str, str] | None = None
    where: str = ""


TABLE = (
    Layout("COD10K-v3", ("Train/Imgs", "Train/GT_Object"), ("Test/Imgs", "Test/GT_Object")),
    Layout("CAMO-V.1.0", ("Imgs/Train", "GT"), ("Imgs/Test", "GT")),
    Layout("images and masks by split", ("Imgs/Train", "GT/Train"), ("Imgs/Test", "GT/Test")),
    Layout("TrainDataset", ("TrainDataset/Imgs", "TrainDataset/GT")),
    Layout("Train and Test", ("Train/Imgs", "Train/GT"), ("Test/Imgs", "Test/GT")),
    Layout("Train and TrainGT", ("Train", "TrainGT"), ("Test", "TestGT")),
    Layout("CHAMELEON", test=("Imgs", "GT"), where="chameleon"),
    Layout("NC4K", test=("Imgs", "GT"), where="nc4k"),
    Layout("TestDataset/NAME", test=("Imgs", "GT"), where=rf"^{_TEST}/"),
    Layout("TestDataset", test=("Imgs", "GT"), where=rf"/te[-_]|[-_ /]({_TEST}|te)$"),
    Layout("flat", train=("Imgs", "GT")),
)


@dataclass(frozen=True)
class _Folder:
    path: Path
    real: str  # without symbolic links: a folder seen under two names is one folder
    plain: str
    images: tuple[str, ...]
    folders: tuple[_Folder, ...]

    def walk(self) -> Iterator[_Folder]:
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def find(self, pattern: str) -> list[_Folder]:
        """Return the folders below that a path of TABLE can mean, preferred spelling first."""
        found = [self]
        for word in pattern.split("/"):
            names = SPELLINGS.get(word, (_plain(word),))
            below = [child for folder in found for child in folder.folders]
            found = [child for name in names for child in below if child.plain == name]
        return found


class _Match(NamedTuple):
    images: _Folder
    masks: _Folder
    files: dict[str, str]  # image file name -> mask file name

    def pairs(self, dataset: str) -> tuple[Pair, ...]:
        return tuple(
            Pair(_stem(image), self.images.path / image, self.masks.path / mask, dataset)
            for image, mask in sorted(self.files.items())
        )


def find_datasets(root: Path | str) -> list[ImageSet]:
    """Return every image set in or below `root`, in the order of the folders' names.

    Folders called Test..., ...-TE, CHAMELEON or NC4K hold test sets; other flat folders train.
    Raises InputError when `root` is no folder, holds no image, or no image with its mask.
    """
    path = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 (keeps symbolic links)
    _check_folder(path)
    tree = _scan(path, os.path.realpath(path), (), DEPTH)
    claimed: set[str] = set()
    found = []
    for folder, row in product(tree.walk(), TABLE):
        if matches := _match(row, folder, claimed):
            claimed.update(match.images.real for match in matches.values())
            found.append((row, folder, matches))
    if not found:
        raise _nothing_found(tree)
    return [_image_set(row, folder, matches, claimed) for row, folder, matches in found]


def is_noncam(pair: Pair) -> bool:
    """Say whether the name is one of COD10K's images without a camouflaged object."""
    return "noncam" in pair.name.lower()


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _scan(path: Path, real: str, above: tuple[str, ...], depth: int) -> _Folder:
    """List a folder and those below it, once, asking the disk for no file's properties."""
    images, folders = [], []
    for entry in _entries(path):
        name = entry.name.lower()
        if name.startswith((".", "__macosx")):  # macOS puts a false "._x.jpg" beside each x.jpg
            continue
        if name.endswith(SUFFIXES):
            images.append(entry.name)
        elif depth and entry.is_dir():
            link = entry.is_symlink()
            below = os.path.realpath(entry.path) if link else f"{real}{os.sep}{entry.name}"
            if below not in (*above, real):
                folders.append(_scan(path / entry.name, below, (*above, real), depth - 1))
    return _Folder(path, real, _plain(path.name), tuple(images), tuple(folders))


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:  # another user's folder beside the data is no reason to stop
        return []


def _match(row: Layout, folder: _Folder, claimed: set[str]) -> dict[str, _Match]:
    label = f"{folder.path.parent.name}/{folder.path.name}".lower()
    splits = {"train": row.train, "test": row.test} if re.search(row.where, label) else {}
    found = {name: _best(folder, paths, claimed) for name, paths in splits.items() if paths}
    return {name: match for name, match in found.items() if match}


def _best(folder: _Folder, paths: tuple[str, str], claimed: set[str]) -> _Match | None:
    """Return the image and mask folder that share most names; spelling decides a tie."""
    options = product(folder.find(paths[0]), folder.find(paths[1]))
    free = [(images, masks) for images, masks in options if images.real not in claimed]
    matches = [_Match(*option, _by_stem(*(side.images for side in option))) for option in free]
    best = max(matches, key=lambda match: len(match.files), default=None)
    return best if best and best.files else None


def _by_stem(images: Sequence[str], masks: Sequence[str]) -> dict[str, str]:
    """Map image to mask file names: equal stems first, then equal but for the case."""
    files: dict[str, str] = {}
    for key in (_stem, lambda name: _stem(name).lower()):
        taken = set(files.values())
        free = {key(mask): mask for mask in masks if mask not in taken}
        for image in images:
            if image not in files and key(image) in free:
                files[image] = free.pop(key(image))
    return files


def _image_set(
    row: Layout, folder: _Folder, matches: dict[str, _Match], claimed: set[str]
) -> ImageSet:
    name = _set_name(folder.path)
    train, test = (matches[key].pairs(name) if key in matches else () for key in ("train", "test"))
    used = {path for pair in train + test for path in (pair.image, pair.mask)}
    patterns = [paths[0] for paths in (row.train, row.test) if paths]
    lone = [below for path in patterns for below in folder.find(path) if below.real not in claimed]
    images = _unused([*(match.images for match in matches.values()), *lone], used)
    shared = {match.masks.real: match.masks for match in matches.values()}  # CAMO's GT: for both
    masks = _unused(shared.values(), used)
    return ImageSet(name, row.name, folder.path, train, test, images, masks)


def _unused(folders: Iterable[_Folder], used: set[Path]) -> tuple[Path, ...]:
    paths = [folder.path / name for folder in folders for name in folder.images]
    return tuple(path for path in paths if path not in used)


def _set_name(folder: Path) -> str:
    """Return the field's name for the set if its folder tells it, else the folder's own name."""
    for name in (folder.name, folder.parent.name):
        known = set(re.findall(_KNOWN, name.lower()))
        if len(known) == 1:
            return _FIELD_NAMES.get(known.pop(), "COD10K-v3")
        if not any(_plain(name) in words for words in SPELLINGS.values()):
            break
    return folder.name


def _check_folder(path: Path) -> None:
    if path.is_dir():
        return
    if path.exists():
        raise InputError(
            f"{path} is a file, expected the folder of a data set: give the folder that holds the "
            "images and masks (an archive must be unpacked first)."
        )
    parent = next(folder for folder in path.parents if folder.is_dir())
    names = [entry.name for entry in _entries(parent) if entry.is_dir()]
    near = difflib.get_close_matches(path.relative_to(parent).parts[0], names, 3)
    found = f"Did you mean {' or '.join(near)}?" if near else f"Found: {_some(names)}."
    raise InputError(f"{path}: no such folder. Looked in {parent}. {found}")


def _nothing_found(tree: _Folder) -> InputError:
    folders = [folder for folder in tree.walk() if folder.images]
    if not folders:
        return InputError(
            f"{tree.path}: no image files ({' '.join(SUFFIXES)}) here or in the "
            f"{sum(1 for _ in tree.walk()) - 1} folders below. Check the path and its permissions; "
            "an archive must be unpacked first."
        )
    found = [f"{folder.path.relative_to(tree.path)} ({len(folder.images)})" for folder in folders]
    rows = [f"{row.name} ({' + '.join(row.train or row.test or ())})" for row in TABLE]
    return InputError(
        f"{tree.path}: no image has its mask ({sum(len(f.images) for f in folders)} images).\n"
        f"  Found: {' '.join([_some(found) + '.', *_hints(folders)])}\n"
        f"  Looked for: {', '.join(rows)}.\n  Imgs may be called {', '.join(SPELLINGS['Imgs'])}; "
        f"GT may be called {', '.join(SPELLINGS['GT'])}.\n  Give the folder above both, or rename "
        "folders and files: an image and its mask share one name, as cat.jpg and cat.png."
    )


def _hints(folders: Sequence[_Folder]) -> Iterator[str]:
    for folder in folders[:8]:
        name, words = folder.path.name, SPELLINGS["Imgs"] + SPELLINGS["GT"]
        for word in difflib.get_close_matches(folder.plain, words, 1):
            same = word == folder.plain
            yield f"{name} has {folder.images[0]}." if same else f"{name!r} looks like {word!r}."


def _some(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more
