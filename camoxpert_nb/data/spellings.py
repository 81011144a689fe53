"""What the name of a folder says: images or masks, and which split.

A name is read word by word ("DIS-TE1": dis, te, 1; "trainImages": train, images), never by a part
of a word: "developer", "contest" and "terrain" are no splits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

# Which words of a name mean which split. Whoever is in doubt tests: a test image never trains.
SPLITS = {
    "train": (
        *("train", "training", "tr", "trn", "trainset", "trainingset", "traindata", "trainingdata"),
        *("traindataset", "trainingdataset", "trainval", "trainvaldataset", "训练", "训练集"),
    ),
    "validation": (
        *("val", "valid", "validation", "validate", "validating", "vd", "vali", "dev", "devel"),
        *("development", "valset", "validset", "validationset", "devset", "valdata", "验证集"),
    ),
    "test": (
        *("test", "tests", "testing", "te", "tst", "testset", "testsets", "testingset", "testdata"),
        *("testingdata", "testdataset", "testdatasets", "testingdataset", "testdev", "holdout"),
        *("heldout", "eval", "evaluation", "evalset", "benchmark", "unseen", "测试", "测试集"),
    ),
}
IMAGES = (
    *("imgs", "image", "images", "img", "im", "ims", "rgb", "photo", "photos", "picture"),
    *("pictures", "jpegimages", "original", "originals", "orig", "input", "inputs", "frame"),
    *("frames", "source", "jpg", "jpgs", "jpeg", "leftimg8bit"),
)
MASKS = (
    *("gt", "gts", "groundtruth", "groundtruths", "mask", "masks", "label", "labels", "seg"),
    *("segmentation", "segmentations", "segmentationclass", "annotation", "annotations", "annot"),
    *("matte", "mattes", "saliency", "target", "targets", "anno", "gtfine"),
)
# Words that change nothing beside the others: GT_Object, SegmentationClassPNG, TrainDataset.
FILLERS = (
    *("object", "objects", "class", "png", "map", "maps", "data", "dataset", "datasets", "set"),
    *("sets", "folder", "files", "binary", "split", "std", "challenge"),
)
# Other things than the whole object that sets store in the same way.
OTHER_ANNOTATIONS = (
    *("edge", "edges", "boundary", "boundaries", "contour", "contours", "instance", "instances"),
    *("depth", "flow", "skeleton", "trimap", "trimaps", "scribble", "scribbles", "fixation"),
    *("visualization", "visualisation", "preview", "overlay", "overlays", "pred", "prediction"),
    *("predictions", "results", "ranking", "bbox", "box"),
)
_SHORT = {"te", "tst", "vd", "dev", "eval", "benchmark", "unseen", "development", "evaluation"}
_LONG = {*SPLITS["test"], *SPLITS["validation"]} - _SHORT
_IN_FILES = {"train", "training", "trn", "val", "valid", "validation", "test", "testing", "tst"}
KNOWN_TESTS = re.compile(r"chameleon|nc4k")  # sets that hold no training images at all

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_HEAD = r"training|train|testing|test|validation|valid|val|shadow"
_TAIL = r"images?|imgs?|ims?|masks?|gts?|labels?|annotations?|frames|jpgs?|groundtruths?"
_TWOWORDS = {
    "groundtruth": re.compile(r"ground[-_ ]?truth", re.IGNORECASE),
    "holdout": re.compile(r"(hold|held)[-_ ]?out", re.IGNORECASE),
}
_COMPOUND = re.compile(rf"({_HEAD})({_TAIL})")  # "trainimages", where no capital tells the words


def words(name: str) -> tuple[str, ...]:
    """Return the words and numbers of a name, in lower case."""
    return tuple(word for part in _parts(name) for word in part)


@lru_cache(maxsize=4096)
def _parts(name: str) -> tuple[tuple[str, ...], ...]:
    """Return the words of each part of a name between its separators."""
    name = unicodedata.normalize("NFC", name)
    for together, apart in _TWOWORDS.items():
        name = apart.sub(together, name)
    found: list[tuple[str, ...]] = []
    for part in re.split(r"[\W_]+", name):
        plain = part.lower()
        compound = _COMPOUND.fullmatch(plain)
        if _is_known(plain):  # "Trainset", "groundTruth", "JPEGImages"
            found.append((plain,))
        elif compound:
            found.append(compound.groups())
        else:
            found.append(tuple(word.lower() for word in WORD.findall(part)))
    return tuple(part for part in found if part)


def _is_known(word: str) -> bool:
    return any(word in group for group in (*SPLITS.values(), IMAGES, MASKS, FILLERS))


def said(name: str) -> str:
    """Return the split that a name speaks of: a key of SPLITS, or "" (also where it says two).

    "test-dev" tests, "train_val" trains, "train_test" says nothing.
    """
    found = {split for split in SPLITS for word in words(name) if word in SPLITS[split]}
    if found == {"train", "test"} or len(found) == 3:
        return ""
    return next((split for split in ("test", "train", "validation") if split in found), "")


def is_plain(name: str) -> bool:
    """Say whether a name is a split and nothing else: "test", "Val", "TestDataset", "test_A"."""
    if not said(name):
        return False
    for part in _parts(name):
        before = ""
        for word in part:
            number = word.isdigit() and (not before or _split_of(before))
            letter = len(word) == 1 and not word.isdigit()
            if not (number or letter or _is_known(word)):
                return False
            before = word
    return True


def ends_so(name: str) -> bool:
    """Say whether a short name ends with its split, "DIS-TE1", or begins with it, "TE-CAMO"."""
    known = [w for w in words(name) if not w.isdigit() and len(w) > 1 and w not in FILLERS]
    if not known or len(known) > 3:
        return False
    return bool(_split_of(known[-1])) or (known[0] in ("te", "tr", "vd") and len(known) == 2)


def begins_or_ends(name: str, every: bool = False) -> str:
    """Return the split that a file's name begins or ends with, as "val_001" and "7_val"; else "".

    Of the words only those that mean nothing else, unless `every`: "te" begins many names.
    In between a word tells where a photo came from: DUTS trains on "ILSVRC2012_test_00000004".
    """
    found = words(name)
    ends = {_split_of(word) for word in (*found[:1], *found[-1:]) if every or word in _IN_FILES}
    ends.discard("")
    return ends.pop() if len(ends) == 1 else ""


def _split_of(word: str) -> str:
    return next((split for split, group in SPLITS.items() if word in group), "")


def _says_clearly(name: str) -> bool:
    """Say whether a folder far above the images means its split, as "dev-ops" does not."""
    if said(name) == "train" or not set(words(name)) & _LONG:
        return bool(said(name)) and ends_so(name)
    return bool(said(name))


def split_of(
    below: Sequence[str], folder: str, above: Sequence[str], outside: Sequence[str]
) -> str:
    """Return the split of an image folder: a key of SPLITS; what says nothing trains.

    `below`: the folders from the set's own down to the images. `folder`: the set's, and `above`:
    those from there up, nearest first, as far as the folder that was given. `outside`: that folder
    itself, where it is the set's, and its parent: their names may have nothing to do with the
    images, and count only where they are a split and nothing else, or end so.
    """
    inside = [*reversed(below), *([folder] if folder else []), *above]
    for name in (*inside, *outside):
        if is_plain(name):
            return said(name)
    near = [name for name in (*below, folder) if name and said(name)]
    near += [name for name in above if _says_clearly(name)]
    near += [name for name in outside[:1] if said(name) and ends_so(name)]
    for split in ("test", "validation", "train"):
        if any(said(name) == split for name in near):
            return split
    names = [folder or "", *above[:1], *outside]
    return "test" if any(KNOWN_TESTS.search(name.lower()) for name in names[:3]) else "train"


@lru_cache(maxsize=4096)
def reduced(parts: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return a path without what says images or masks: equal for folders that belong together.

    Splits have one spelling, so that images/val and masks/validation meet.
    """
    left = (
        tuple(
            _split_of(word) or word
            for word in words(part)
            if word not in IMAGES and word not in MASKS and word not in FILLERS
        )
        for part in parts
    )
    return tuple(part for part in left if part)


def without_splits(path: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """Return a reduced path without the words of splits: CAMO has one mask folder for all."""
    left = (tuple(word for word in part if word not in SPLITS) for part in path)
    return tuple(part for part in left if part)


def holds_masks(name: str) -> bool:
    """Say whether a folder's name says that it holds masks."""
    return any(word in MASKS for word in words(name))


def holds_other_annotations(name: str) -> bool:
    """Say whether a folder's name says that it holds edges, instances, depth or the like."""
    return any(word in OTHER_ANNOTATIONS for word in words(name))
