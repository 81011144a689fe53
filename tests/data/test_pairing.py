"""Masks meet images by their names, in every habit of naming that is common."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest

from camoxpert_nb.data.layouts import find_datasets, look_through
from camoxpert_nb.data.pairing import pair_in_one_folder, pair_names
from camoxpert_nb.data.reading import Reading
from camoxpert_nb.errors import InputError

HABITS = {  # image, its mask
    "equal": ("cat_1.jpg", "cat_1.png"),
    "case": ("Cat_1.JPG", "cat_1.png"),
    "_mask": ("cat_1.jpg", "cat_1_mask.png"),
    "Carvana": ("29bb3e_01.jpg", "29bb3e_01_mask.gif"),
    "image and mask": ("image_1.jpg", "mask_1.png"),
    "img1 and mask1": ("img1.jpg", "mask1.png"),
    "ISIC": ("ISIC_0001.jpg", "ISIC_0001_segmentation.png"),
    "BUSI": ("benign (1).png", "benign (1)_mask.png"),
    "double suffix": ("x1.jpg", "x1.jpg.png"),
    "DeepGlobe": ("100_sat.jpg", "100_mask.png"),
    "Cityscapes": ("a_1_leftImg8bit.png", "a_1_gtFine_labelIds.png"),
    "gt_": ("7.jpg", "gt_7.png"),
    "-GT": ("a.b.jpg", "a.b-GT.png"),
}


@pytest.mark.parametrize("habit", HABITS)
def test_habits_of_naming(habit):
    image, mask = HABITS[habit]
    others = ["other_1.jpg"], ["other_1.png"]
    files = pair_names([image, *others[0]], [mask, *others[1]]).files
    assert files == {image: mask, "other_1.jpg": "other_1.png"}


@pytest.mark.parametrize("habit", [name for name in HABITS if name not in ("equal", "case", "gt_")])
def test_habits_in_one_folder(habit):
    image, mask = HABITS[habit]
    assert pair_in_one_folder([image, mask]).files == {image: mask}


def test_a_photo_and_its_mask_in_one_folder(tmp_path):
    for name in ("cat.jpg", "cat.png", "dog.jpeg", "dog.png", "alone.jpg"):
        (tmp_path / name).touch()
    (one,) = find_datasets(tmp_path)
    assert [(p.image.name, p.mask.name) for p in one.train] == [
        ("cat.jpg", "cat.png"),
        ("dog.jpeg", "dog.png"),
    ]
    assert [path.name for path in one.images_without_mask] == ["alone.jpg"]


def test_accents_composed_and_decomposed_are_one_name():
    stems = ["é", "ü1", "Ångström", "ñandú", "한글", "が"]
    images = [unicodedata.normalize("NFC", f"{stem}.jpg") for stem in stems]
    masks = [unicodedata.normalize("NFD", f"{stem}.png") for stem in stems]
    assert len(pair_names(images, masks).files) == len(stems)
    assert len(pair_names(masks, images).files) == len(stems)


def test_no_mask_serves_two_images_and_order_does_not_matter():
    """The property behind it, on names drawn at random from a few habits."""
    rng = random.Random(0)
    for _ in range(200):
        images = {f"{rng.choice(['', 'img_', 'IMG_'])}{rng.randrange(6)}.jpg" for _ in range(6)}
        masks = {
            f"{rng.choice(['', 'mask_'])}{rng.randrange(6)}{rng.choice(['', '_mask'])}.png"
            for _ in range(8)
        }
        found = pair_names(sorted(images), sorted(masks)).files
        assert len(set(found.values())) == len(found)
        assert found == pair_names(sorted(images, reverse=True), sorted(masks)).files or len(
            found
        ) == len(pair_names(sorted(images, reverse=True), sorted(masks)).files)
        for image, mask in found.items():
            numbers = ["".join(filter(str.isdigit, name)) for name in (image, mask)]
            assert numbers[0] == numbers[1]


def test_which_of_two_masks_was_taken_is_said(tmp_path):
    for folder, names in (("Imgs", ["a.jpg"]), ("GT", ["a.bmp", "a.png", "a_mask.png"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    (one,) = find_datasets(tmp_path)
    assert one.train[0].mask.name == "a.png"
    assert one.second == ("Imgs/a.jpg: GT/a.png was taken, not a.bmp, a_mask.png",)


def test_which_of_two_mask_folders_was_taken_is_said(tmp_path):
    for folder in ("Imgs", "GT", "Masks"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            (tmp_path / folder / f"{name}.png").touch()
    found = look_through(tmp_path)
    assert found.sets[0].second == (
        "Imgs: the masks in GT were taken (2 fit), not those in Masks: --mask-folder names others",
    )
    assert [(each.place, each.count) for each in found.unused] == [("Masks", 2)]


def make(root: Path, **folders: list[str]) -> Path:
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).touch()
    return root


def test_folders_and_a_suffix_that_are_named(tmp_path):
    root = make(tmp_path / "s", A=["1.jpg", "2.jpg"], B=["1_x.png", "2_x.png"], C=["1.png"])
    with pytest.raises(InputError, match="--image-folder DIR --mask-folder DIR"):
        find_datasets(root)
    reading = Reading(images="A", masks="B", suffix="_x")
    (one,) = find_datasets(root, reading)
    assert [pair.mask.name for pair in one.train] == ["1_x.png", "2_x.png"]
    with pytest.raises(InputError, match=r"--mask-folder D: no folder of images.*A, B, C"):
        find_datasets(root, Reading(images="A", masks="D"))
    (one,) = find_datasets(root, Reading(images="?", masks="C"))
    assert len(one.train) == 1


def test_named_folders_train_even_if_they_are_called_test(tmp_path):
    root = make(tmp_path / "s", test_images=["1.jpg"], test_masks=["1.png"])
    assert not find_datasets(root)[0].train
    (one,) = find_datasets(root, Reading(images="test_images", masks="test_masks"))
    assert len(one.train) == 1
    root = make(
        tmp_path / "t", test_images=["1.jpg"], test_masks=["1.png"], x=["2.jpg"], xgt=["2.png"]
    )
    (one,) = find_datasets(root, Reading(images="test_images,x", masks="test_masks,xgt"))
    assert (len(one.train), len(one.test)) == (1, 1)


def test_two_sets_numbered_alike_may_be_named_at_once(tmp_path):
    root = tmp_path / "s"
    for place in ("a", "b"):
        make(
            root / place,
            photos=["1.jpg", "2.jpg"],
            drawn=["1.png", "2.png", "3.png"][: 2 + (place == "a")],
        )
    (one, two) = find_datasets(root, Reading(images="*/photos", masks="*/drawn"))
    assert len(one.train) == len(two.train) == 2
    for pair in (*one.train, *two.train):
        assert pair.image.parents[1] == pair.mask.parents[1]


def test_of_several_masks_the_kind_without_loss_is_taken():
    kinds = ["png", "tif", "tiff", "bmp", "gif", "jpg"]  # the first that is there
    for place, kind in enumerate(kinds):
        masks = [f"x.{each}" for each in kinds[place:]]
        found = pair_names(["x.jpeg"], masks[::-1])
        assert found.files == {"x.jpeg": f"x.{kind}"}
        others = {"x.jpeg": tuple(masks[:0:-1])} if len(masks) > 1 else {}
        assert found.second == others


def test_a_mask_belongs_to_one_image_and_an_image_keeps_its_nearest_name():
    assert pair_names(["cat.jpg", "cat.jpeg"], ["cat.png"]).files == {"cat.jpeg": "cat.png"}
    found = pair_names(["a.jpg"], ["a.png", "a_mask.png"])
    assert found == ({"a.jpg": "a.png"}, {"a.jpg": ("a_mask.png",)})
    assert pair_names(["Cat.jpg", "cat.jpg"], ["cat.png"]).files == {"cat.jpg": "cat.png"}
    # Two images that only words tell apart: whose the mask is, nobody knows.
    assert pair_names(["x_image.jpg", "x_photo.jpg"], ["x_mask.png"]).files == {}


def test_a_suffix_that_is_named_is_the_only_one():
    names = ["x.png", "x_mask.png", "y_MASK.png", "z_gt.png"]
    for suffix in ("_mask", "_mask.png", "_Mask"):
        found = pair_names(["x.jpg", "y.jpg", "z.jpg"], names, suffix).files
        assert found == {"x.jpg": "x_mask.png", "y.jpg": "y_MASK.png"}


def test_three_files_of_one_stem_are_no_photo_and_mask():
    assert pair_in_one_folder(["a.jpg", "a.png", "a.gif"]).files == {}
    assert pair_in_one_folder(["a.jpg", "a.png", "b.jpg", "b.png"]).files == {
        "a.jpg": "a.png",
        "b.jpg": "b.png",
    }
