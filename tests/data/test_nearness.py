"""Sibling folders that say one split in several words: each image gets the mask beside it."""

from __future__ import annotations

import random
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest

from camoxpert_nb.data.layouts import look_through
from camoxpert_nb.data.nearness import rank
from camoxpert_nb.data.reading import AUTOMATIC, Reading

WORDS = (
    *("train", "Training", "trn", "test", "Test", "testing", "holdout", "hold-out", "TestDataset"),
    *("test1", "Tests_1", "eval", "val", "valid", "validation", "dev", "test_set", "test_data"),
)
SHAPES = (  # images and masks of a split
    ("{}/images", "{}/masks"),
    ("{}/Imgs", "{}/GT"),
    ("{}/image", "{}/annot"),
    ("images/{}", "masks/{}"),
    ("Imgs/{}", "GT/{}"),
    ("{}_images", "{}_masks"),
    ("{}", "{}_GT"),
    ("a/{}/img", "a/{}/GT_Object"),
)


def made(root: Path, shape: tuple[str, str], splits: tuple[str, ...], without: str = "") -> None:
    """Write files without content: each mask belongs to the image whose split it was made for."""
    for split in splits:
        for pattern, suffix in zip(shape, ("jpg", "png"), strict=True):
            if suffix == "png" and split == without:
                continue
            folder = root / pattern.format(split)
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(3):
                (folder / f"{number:02}.{suffix}").touch()


def check(root: Path, shape: tuple[str, str], splits: tuple[str, ...], reading: Reading) -> None:
    pairs = {
        pair.image.relative_to(root).as_posix(): pair.mask.relative_to(root).as_posix()
        for one in look_through(root, reading).sets
        for pair in one.pairs
    }
    for split in splits:
        images, masks = (pattern.format(split) for pattern in shape)
        for number in range(3):
            assert pairs.pop(f"{images}/{number:02}.jpg") == f"{masks}/{number:02}.png"
    assert not pairs


@pytest.mark.parametrize("shape", SHAPES, ids=" ".join)
def test_the_masks_of_the_same_folder_win(tmp_path: Path, shape: tuple[str, str]) -> None:
    chance = random.Random(1)
    for trial in range(60):
        root = tmp_path / f"set {trial}"
        splits = tuple(chance.sample(WORDS, chance.randint(2, 6)))
        made(root, shape, splits)
        check(root, shape, splits, AUTOMATIC)


@pytest.mark.parametrize("shape", SHAPES[:6], ids=" ".join)
def test_images_without_masks_do_not_get_those_of_another_folder(
    tmp_path: Path, shape: tuple[str, str]
) -> None:
    for trial, (lone, other) in enumerate(permutations(("test", "holdout", "Test", "testing"), 2)):
        root = tmp_path / f"set {trial}"
        made(root, shape, ("train", lone, other), without=lone)
        check(root, shape, ("train", other), AUTOMATIC)


@pytest.mark.parametrize("shape", SHAPES, ids=" ".join)
@pytest.mark.parametrize(("split", "other"), [("test", "holdout"), ("holdout", "Test")])
def test_of_masks_that_nobody_else_has_the_nearest_are_taken(
    tmp_path: Path, shape: tuple[str, str], split: str, other: str
) -> None:
    """Masks of another word, whose images are gone, do not come first."""
    made(tmp_path, shape, ("train", split))
    made(tmp_path, ("away/" + shape[0], shape[1]), (other,))
    for file in (tmp_path / "away").rglob("*.jpg"):
        file.unlink()
    check(tmp_path, shape, ("train", split), AUTOMATIC)


def test_layouts_may_differ_between_the_splits(tmp_path: Path) -> None:
    for masks in ("GT_Object", "annot", "Ground Truth"):
        root = tmp_path / masks
        made(root, ("{}/images", "{}/masks"), ("train", "test"))
        made(root, ("{}/images", "{}/" + masks), ("holdout",))
        found = look_through(root)
        for one in found.sets:
            for pair in one.pairs:
                assert pair.image.parent.parent == pair.mask.parent.parent
        assert sum(len(one.pairs) for one in found.sets) == 9


def test_named_folders_are_paired_by_place(tmp_path: Path) -> None:
    shape = ("{}/a", "{}/b")
    made(tmp_path, shape, ("train", "test", "holdout"), without="holdout")
    check(tmp_path, shape, ("train", "test"), Reading(images="*/a", masks="*/b"))


def test_one_spelling_of_each_side_still_meets(tmp_path: Path) -> None:
    made(tmp_path, ("images/{}", "nothing/{}"), ("val", "train"))
    made(tmp_path, ("other/{}", "masks/{}"), ("validation", "training"))
    for place in ("nothing", "other"):
        for file in (tmp_path / place).rglob("*.*"):
            file.unlink()
    (one,) = look_through(tmp_path).sets
    assert (len(one.train), len(one.validation)) == (3, 3)


def test_what_is_not_taken_is_named_from_the_root(tmp_path: Path) -> None:
    for masks in ("masks", "GT"):
        made(tmp_path, ("{}/images", "{}/" + masks), ("test",))
    (line,) = (line for one in look_through(tmp_path).sets for line in one.second)
    assert line.startswith("test/images: the masks in test/")
    assert "not those in test/" in line


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        # folders shared, then of the rest: equal in place, equal words, words for "set" too many
        ("s/images/test", "s/masks/test", (3, 1, 1, 0)),
        ("s/images/test", "s/masks/test_set", (3, 0, 1, -1)),
        ("s/images/test", "s/masks/holdout", (3, 0, 0, 0)),
        ("s/test/images", "s/test/masks", (4, 0, 0, 0)),
        ("s/a/images/x", "s/b/masks/x", (3, 1, 1, 0)),
        ("s/images_dataset", "s/masks", (3, 0, 0, 0)),  # what says no split is not counted
    ],
)
def test_a_folder_is_near_by_place_then_by_spelling(
    images: str, masks: str, expected: tuple[int, ...]
) -> None:
    folders = [SimpleNamespace(path=Path("/d") / each) for each in (images, masks)]
    assert rank(*folders) == expected  # type: ignore[arg-type]
