"""Folders say their split in the usual spellings, word by word, and nothing else says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.data.spellings import is_plain, said, split_of, words

SPELLED = {
    "test": (
        *("test", "Test", "TEST", "tests", "testing", "test_A", "testA", "test-b", "Test-Dev"),
        *("test2017", "2019_test", "testset", "TestDataset", "DIS-TE1", "DIS-TE4", "COD10K-TE"),
        *("TE-CAMO", "DUTS_TE", "holdout", "hold-out", "held_out", "eval", "evaluation", "tst"),
        *("test (1)", "Test Set", "test_images", "testImgs", "MoCA-Video-Test"),
    ),
    "validation": (
        *("val", "Val", "valid", "validation", "dev", "devel", "development", "DIS-VD", "val2017"),
        *("2019_val", "valset", "val_set", "ValImages", "VALID", "validate"),
    ),
    "train": (
        *("train", "Training", "DIS-TR", "COD10K-TR", "train2017", "trainval", "train_val"),
        *("TrainDataset", "trainset", "train_images", "Train-Set"),
    ),
    "": (
        *(
            "developer",
            "contest",
            "terrain",
            "valley",
            "trainstation",
            "latest",
            "attest",
            "tester",
        ),
        *("invalid", "value", "interval", "device", "ted", "stevia", "training2d3x-", "protest"),
        *("retrain", "trainer", "evaluator", "train_test", "cod", "images", "masks", "2017"),
    ),
}
SPELLED[""] = tuple(name for name in SPELLED[""] if not name.startswith("training2d"))


@pytest.mark.parametrize(
    ("split", "name"), [(split, name) for split, names in SPELLED.items() for name in names]
)
def test_a_name_says_its_split(split: str, name: str) -> None:
    assert said(name) == split, words(name)


def fill(root: Path, images: str, masks: str) -> None:
    for folder, suffix in ((images, "jpg"), (masks, "png")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for stem in ("a", "b"):
            (root / folder / f"{stem}.{suffix}").touch()


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize(
    ("images", "masks"),
    [
        *(("{0}/images", "{0}/masks"), ("images/{0}", "masks/{0}"), ("Imgs/{0}", "GT/{0}")),
        *(("{0}/im", "{0}/gt"), ("x/{0}/y/images", "x/{0}/y/masks"), ("{0}/img", "{0}/label")),
        *(("images/{0}/cat", "masks/{0}/cat"), ("{0}/JPEGImages", "{0}/SegmentationClass")),
    ],
)
def test_no_spelling_of_a_held_out_split_ever_trains(tmp_path, split, images, masks):
    """The property behind it: whatever the place, what is called a test or validation is one."""
    for number, name in enumerate(SPELLED[split]):
        root = tmp_path / f"n{number}" / "some set"
        fill(root, images.format(name), masks.format(name))
        fill(root, "zz/images", "zz/masks")
        sets = find_datasets(root)
        held = [pair for one in sets for pair in getattr(one, split)]
        train = [pair for one in sets for pair in one.train]
        assert len(held) == 2 and len(train) == 2, name
        assert all("zz" in pair.image.parts for pair in train), name


@pytest.mark.parametrize("name", SPELLED[""][:18])
def test_words_that_only_contain_a_split_train(tmp_path, name):
    fill(tmp_path / "set", f"{name}/images", f"{name}/masks")
    assert [len(one.train) for one in find_datasets(tmp_path)] == [2]


def test_images_and_masks_may_spell_their_split_differently(tmp_path):
    fill(tmp_path / "set", "images/val", "masks/validation")
    fill(tmp_path / "set", "images/Train", "masks/training")
    (one,) = find_datasets(tmp_path / "set")
    assert (len(one.train), len(one.validation)) == (2, 2)


@pytest.mark.parametrize("name", ["dis", "test_tube", "my_test", "val_et_vient", "COD10K-TE"])
def test_a_name_with_more_than_a_split_is_not_plain(name):
    assert not is_plain(name)


def test_the_owner_of_a_data_set_says_nothing(tmp_path):
    """/kaggle/input/datasets/dev-ops/animals is no validation set."""
    for owner in ("dev-ops", "eval-team", "devon", "testerson"):
        fill(tmp_path / "datasets" / owner / "animals", "Imgs", "GT")
    sets = find_datasets(tmp_path)
    assert len(sets) == 4 and all(one.train for one in sets)


def test_several_test_folders_are_scored_apart(tmp_path):
    for name in ("train", "test_A", "testB", "Test-Dev"):
        fill(tmp_path / "set", f"{name}/images", f"{name}/masks")
    (one,) = find_datasets(tmp_path / "set")
    assert {pair.dataset for pair in one.test} == {"set test_A", "set testB", "set Test-Dev"}


@pytest.mark.parametrize(
    ("above", "split"),
    [
        ("my training", "train"),  # a short name that ends so
        ("training camp of 2019", "train"),  # what says nothing trains
        ("test of many things and more", "test"),  # a long word for it, wherever it stands
        ("dev-ops", "train"),  # a short one that the name does not end with
        ("benchmark", "test"),
        ("train and validation of many", "train"),
    ],
)
def test_a_folder_far_above_counts_where_it_says_its_split_clearly(above: str, split: str) -> None:
    assert split_of(("Imgs",), "animals", (above,), ("data", "me")) == split


def test_the_folder_that_says_nothing_else_speaks_first() -> None:
    """From the images up; then what is told by a part of a name, held out before trained."""
    assert split_of(("test", "images"), "train", (), ("", "")) == "test"
    assert split_of(("images",), "animals_test", ("train",), ("", "")) == "train"
    assert split_of(("images",), "animals_test", ("animals_train",), ("", "")) == "test"
    assert split_of(("images",), "animals_val", ("animals_train",), ("", "")) == "validation"
    assert split_of(("images",), "NC4K", (), ("", "")) == "test"  # holds no training images
    assert split_of(("images",), "", (), ("CHAMELEON", "me")) == "test"
    assert split_of(("images",), "animals", (), ("data", "my_test")) == "train"
    assert split_of(("images",), "animals", (), ("my_test", "data")) == "test"
