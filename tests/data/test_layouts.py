"""Every layout is found, every image meets its own mask, and nothing is lost in silence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from camoxpert_nb.data.layouts import TABLE, ImageSet, Pair, find_datasets
from camoxpert_nb.data.selection import select
from camoxpert_nb.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    """Make files without content: finding and pairing must not open any."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def fill(root: Path, images: str, masks: str, *stems: str) -> Path:
    touch(root / images, *(f"{stem}.jpg" for stem in stems))
    touch(root / masks, *(f"{stem}.png" for stem in stems))
    return root


def cod10k(root: Path) -> Path:
    cam = ("COD10K-CAM-1-Aquatic-1-BatFish-1", "COD10K-CAM-3-Flying-53-Bird-2")
    empty = ("COD10K-NonCAM-5-Background-1", "COD10K-NonCAM-6-Other-2", "COD10K-NonCAM-6-Other-3")
    fill(root, "Train/Image", "Train/GT_Object", *cam, *empty)
    touch(root / "Train/GT_Instance", *(f"{stem}.png" for stem in cam))
    touch(root / "Train/GT_Edge", *(f"{stem}.png" for stem in cam))
    return fill(root, "Test/Image", "Test/GT_Object", "COD10K-CAM-2-Ter-4", "COD10K-NonCAM-9")


def camo(root: Path) -> Path:
    touch(root / "Images/Train", "camourflage_1.jpg", "camourflage_2.jpg")
    touch(root / "Images/Test", "camourflage_3.jpg")
    touch(root / "GT", *(f"camourflage_{i}.png" for i in (1, 2, 3)))
    return root


def names(pairs: tuple[Pair, ...]) -> list[str]:
    return [pair.name for pair in pairs]


def only(sets: list[ImageSet]) -> ImageSet:
    assert len(sets) == 1, [(found.name, found.layout, found.root) for found in sets]
    return sets[0]


def error(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        find_datasets(root)
    return str(caught.value)


# ---------------------------------------------------------------------------------- the layouts


def test_cod10k_is_found_from_above_from_itself_and_from_its_split(tmp_path):
    root = cod10k(tmp_path / "data" / "COD10K-v3")
    for start in (tmp_path, tmp_path / "data", root):
        found = only(find_datasets(start))
        assert (found.name, found.layout, found.root) == ("COD10K-v3", "COD10K-v3", root)
        assert (len(found.train), len(found.test)) == (5, 2)
        assert found.train[0].mask.parent.name == "GT_Object"
    train, test = only(find_datasets(root / "Train")), only(find_datasets(root / "Test"))
    assert (train.name, len(train.train), len(train.test)) == ("COD10K-v3", 5, 0)
    assert (test.name, len(test.train), len(test.test)) == ("COD10K-v3", 0, 2)


def test_camo_has_one_mask_folder_for_both_splits(tmp_path):
    camo(tmp_path / "CAMO-V.1.0-CVIU2019" / "CAMO-V.1.0-CVIU2019")  # as its archive unpacks
    found = only(find_datasets(tmp_path))
    assert (found.name, found.layout) == ("CAMO", "CAMO-V.1.0")
    assert names(found.train) == ["camourflage_1", "camourflage_2"]
    assert names(found.test) == ["camourflage_3"]
    assert not found.images_without_mask and not found.masks_without_image


def test_train_dataset_and_named_test_sets(tmp_path):
    fill(tmp_path, "TrainDataset/Imgs", "TrainDataset/GT", "a", "b")
    touch(tmp_path / "TrainDataset/Edge", "a.png", "b.png")
    for name in ("CAMO", "CHAMELEON", "COD10K", "NC4K", "Mine"):
        fill(tmp_path, f"TestDataset/{name}/Imgs", f"TestDataset/{name}/GT", f"{name}-1")
    chosen = select(find_datasets(tmp_path))
    assert names(chosen.train) == ["a", "b"]
    assert {name: names(pairs) for name, pairs in chosen.test.items()} == {
        name: [f"{name}-1"] for name in ("CAMO", "CHAMELEON", "COD10K", "NC4K", "Mine")
    }


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("TestDataset", "TestDataset"),
        ("CHAMELEON", "CHAMELEON"),
        ("CHAMELEON_TestingDataset", "CHAMELEON"),
        ("NC4K", "NC4K"),
        ("nc4k-dataset/Data", "Data"),
        ("COD10K-TE", "COD10K"),
        ("TE-CAMO", "CAMO"),
        ("Test/CAMO", "CAMO"),
        ("TestDataset/NewSet", "NewSet"),
    ],
)
@pytest.mark.parametrize(("images", "masks"), [("Imgs", "GT"), ("Image", "GT")])
def test_folders_that_only_test(tmp_path, folder, name, images, masks):
    fill(tmp_path / folder, images, masks, "a", "b")
    for start in (tmp_path, tmp_path / folder):
        found = only(find_datasets(start))
        assert (found.name, names(found.train), names(found.test)) == (name, [], ["a", "b"])


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (("Train/Imgs", "Train/GT"), ("Test/Imgs", "Test/GT")),
        (("Training/images", "Training/GT"), ("Testing/images", "Testing/GT")),
        (("Train", "TrainGT"), ("Test", "TestGT")),
        (("images/train", "masks/train"), ("images/test", "masks/test")),
    ],
)
def test_both_splits_below_one_folder(tmp_path, train, test):
    root = tmp_path / "animals"
    fill(root, *train, "a", "b")
    fill(root, *test, "c")
    for start in (tmp_path, root):
        found = only(find_datasets(start))
        assert (found.name, found.root) == ("animals", root)
        assert (names(found.train), names(found.test)) == (["a", "b"], ["c"])


@pytest.mark.parametrize("images", ["Image", "Images", "Imgs", "img", "image", "IMAGES"])
@pytest.mark.parametrize(
    "masks", ["GT", "GT_Object", "Mask", "Masks", "masks", "gt", "Ground Truth", "gt-object"]
)
def test_unusual_spellings(tmp_path, images, masks):
    fill(tmp_path / "set", images, masks, "a", "b")
    found = only(find_datasets(tmp_path))
    assert (found.name, found.layout, names(found.train)) == ("set", "flat", ["a", "b"])


def test_a_training_folder_called_after_its_set(tmp_path):
    for folder in ("CAMO-Train", "COD10K-TR", "camoxpert", "COD10K_CAMO_Combined"):
        fill(tmp_path / folder, "Imgs", "GT", f"{folder}-1")
    found = {found.root.name: found for found in find_datasets(tmp_path)}
    assert {folder: item.name for folder, item in found.items()} == {
        "CAMO-Train": "CAMO",
        "COD10K-TR": "COD10K",
        "camoxpert": "camoxpert",
        "COD10K_CAMO_Combined": "COD10K_CAMO_Combined",
    }
    assert all(item.train and not item.test for item in found.values())


def test_every_row_of_the_table_can_be_found(tmp_path):
    for number, row in enumerate(TABLE):
        root = tmp_path / str(number) / "set"
        for split in ("Train", "Test") if "SPLIT" in row.images else ("",):
            images, masks = (path.replace("SPLIT", split) for path in row[1:])
            fill(root, images, masks.replace("*GT", f"{split}GT"), f"of-{split}")
        found = only(find_datasets(root))
        assert (found.layout, found.root) == (row.name, root)
        assert found.train and bool(found.test) == ("SPLIT" in row.images)


# ------------------------------------------------------------------------------ walking the disk


@pytest.mark.parametrize("mount", ["cod10k-dataset", "datasets/owner/cod10k-dataset"])
def test_kaggle_mounts(tmp_path, mount):
    slug = tmp_path / "kaggle" / "input" / mount
    cod10k(slug / "COD10K-v3")
    camo(slug.parent / "camo-dataset" / "CAMO-V.1.0-CVIU2019" / "CAMO-V.1.0-CVIU2019")
    sets = find_datasets(tmp_path / "kaggle" / "input")
    assert [(found.name, len(found.train), len(found.test)) for found in sets] == [
        ("CAMO", 2, 1),
        ("COD10K-v3", 5, 2),
    ]


def test_no_image_is_found_twice(tmp_path):
    cod10k(tmp_path / "COD10K-v3")
    camo(tmp_path / "COD10K-v3" / "extra" / "CAMO")
    fill(tmp_path / "Train", "Imgs", "GT", "a")
    fill(tmp_path, "Imgs", "GT", "b")
    images = [pair.image for found in find_datasets(tmp_path) for pair in found.train + found.test]
    assert len(images) == len(set(images)) == 7 + 3 + 1 + 1


def test_a_link_to_a_set_is_the_same_set_and_a_circle_ends(tmp_path, monkeypatch):
    root = fill(tmp_path / "real", "Imgs", "GT", "a")
    try:
        (tmp_path / "linked").symlink_to(root, target_is_directory=True)
        (root / "circle").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("this file system has no symbolic links")
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    assert names(only(find_datasets(tmp_path)).train) == ["a"]
    assert len(listed) < 10


def test_linked_folders_may_share_their_masks(tmp_path):
    masks = touch(tmp_path / "shared", "a.png", "b.png")
    for name in ("a", "b"):
        touch(tmp_path / name / "Imgs", f"{name}.jpg")
        (tmp_path / name / "GT").symlink_to(masks, target_is_directory=True)
    assert [names(found.train) for found in find_datasets(tmp_path)] == [["a"], ["b"]]


def test_order_and_result_do_not_depend_on_the_disk(tmp_path, monkeypatch):
    cod10k(tmp_path / "COD10K-v3")
    camo(tmp_path / "CAMO")
    before = find_datasets(tmp_path)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Reversed)
    assert find_datasets(tmp_path) == before


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    fill(tmp_path / "animals", "Imgs", "GT", "a")
    monkeypatch.chdir(tmp_path / "animals")
    found = only(find_datasets("."))
    assert found.name == "animals"
    assert found.train[0].image == tmp_path / "animals" / "Imgs" / "a.jpg"


# ------------------------------------------------------------------------------- pairing by stem


def test_an_extra_file_changes_nothing_and_is_named(tmp_path):
    root = fill(tmp_path / "set", "Imgs", "GT", "b", "c", "d")
    before = only(find_datasets(root))
    touch(root / "Imgs", "a.jpg", "Thumbs.db", "notes.txt", ".DS_Store", "._b.jpg")
    touch(root / "GT", "c2.png", "list.csv")
    touch(tmp_path / "set" / "__MACOSX" / "Imgs", "b.jpg")
    after = only(find_datasets(root))
    assert after.train == before.train
    assert after.images_without_mask == (root / "Imgs" / "a.jpg",)
    assert after.masks_without_image == (root / "GT" / "c2.png",)


def test_every_pair_has_one_stem(tmp_path):
    touch(tmp_path / "Imgs", "10.jpg", "9.JPEG", "a.b.png", "x.webp", "y.bmp", "z.tif")
    touch(tmp_path / "GT", "10.png", "9.bmp", "a.b.jpg", "x.png", "y.png", "z.PNG")
    found = only(find_datasets(tmp_path))
    assert len(found.train) == 6
    assert all(pair.image.stem == pair.mask.stem == pair.name for pair in found.train)


def test_equal_stems_come_before_stems_that_differ_in_case(tmp_path):
    touch(tmp_path / "Imgs", "A.jpg", "b.jpg", "c.jpg", "D.jpg")
    touch(tmp_path / "GT", "a.png", "A.png", "B.png", "c.png")
    if len(list((tmp_path / "GT").iterdir())) < 4:
        pytest.skip("this file system does not tell a from A")
    found = only(find_datasets(tmp_path))
    assert [(p.image.name, p.mask.name) for p in found.train] == [
        ("A.jpg", "A.png"),
        ("b.jpg", "B.png"),
        ("c.jpg", "c.png"),
    ]
    assert [path.name for path in found.images_without_mask] == ["D.jpg"]
    assert found.second == ("Imgs/A.jpg: GT/A.png was taken, not a.png",)


def test_no_mask_is_used_twice(tmp_path):
    touch(tmp_path / "Imgs", "a.jpg", "a.png", "A.bmp")
    touch(tmp_path / "GT", "a.png")
    found = only(find_datasets(tmp_path))
    assert len(found.train) == 1
    assert len(found.images_without_mask) == 2


def test_the_mask_folder_that_fits_best_is_taken(tmp_path):
    fill(tmp_path, "Imgs", "Mask", "a", "b", "c")
    touch(tmp_path / "GT", "a.png")
    assert {pair.mask.parent.name for pair in only(find_datasets(tmp_path)).train} == {"Mask"}
    fill(tmp_path, "Imgs", "GT_Object", "a", "b", "c")
    assert {pair.mask.parent.name for pair in only(find_datasets(tmp_path)).train} == {"GT_Object"}
    fill(tmp_path, "Imgs", "GT", "a", "b", "c")
    assert {pair.mask.parent.name for pair in only(find_datasets(tmp_path)).train} == {"GT_Object"}


def test_a_split_without_its_masks_is_named(tmp_path):
    root = cod10k(tmp_path / "COD10K-v3")
    shutil.rmtree(root / "Train" / "GT_Object")
    found = only(find_datasets(root))
    assert (len(found.train), len(found.test)) == (0, 2)
    assert len(found.images_without_mask) == 5


# ---------------------------------------------------------------------------------- what it says


def test_no_such_folder_offers_near_names(tmp_path):
    (tmp_path / "COD10K-v3").mkdir()
    text = error(tmp_path / "COD10K-v33" / "Train")
    assert "no such folder" in text and "Did you mean COD10K-v3?" in text
    text = error(tmp_path / "zzz")
    assert "no such folder" in text and "Found: COD10K-v3" in text


def test_a_file_instead_of_a_folder(tmp_path):
    touch(tmp_path, "COD10K-v3.zip")
    text = error(tmp_path / "COD10K-v3.zip")
    assert "is a file, expected the folder" in text and "unpacked" in text


def test_no_images_at_all(tmp_path):
    touch(tmp_path / "deep" / "er", "readme.txt")
    text = error(tmp_path)
    assert "no image files (.jpg" in text and "2 folders below" in text


def test_images_but_no_masks(tmp_path):
    touch(tmp_path / "set" / "Imgs", "a.jpg", "b.jpg")
    touch(tmp_path / "set" / "Maks", "a.png", "b.png")
    text = error(tmp_path)
    assert "no image has its mask (4 images)" in text
    assert f"set{os.sep}Imgs (2), set{os.sep}Maks (2)" in text
    assert "'Maks' looks like 'mask" in text
    assert all(row.name in text for row in TABLE)
    assert "Train/Imgs + Train/GT_Object" in text
    assert "--image-folder" in text and "--mask-suffix" in text


def test_masks_under_other_names(tmp_path):
    touch(tmp_path / "Imgs", "cat.jpg")
    touch(tmp_path / "GT", "dog.png")
    text = error(tmp_path)
    assert "GT has dog.png" in text and "Imgs has cat.jpg" in text
    assert "share one name" in text


def test_no_file_is_looked_at_beyond_its_name(tmp_path, monkeypatch):
    fill(tmp_path, "Imgs", "GT", "a", "b")
    scandir = os.scandir

    class Entry:
        def __init__(self, entry):
            self.name, self.path, self.entry = entry.name, entry.path, entry

        def __getattr__(self, name):  # is_dir, is_file, stat: one trip to a slow disk each
            assert not self.name.endswith((".jpg", ".png")), f"{name} of {self.name}"
            return getattr(self.entry, name)

    class Entries:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = [Entry(entry) for entry in entries]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Entries)
    assert len(only(find_datasets(tmp_path)).train) == 2


def test_a_run_given_as_data_is_called_a_run(tmp_path: Path) -> None:
    for name in ("config.json", "history.jsonl", "preview.npz"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "figures" / "curves.png")
    with pytest.raises(InputError, match="is a run, and no data set"):
        find_datasets(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError) as raised:
        find_datasets(tmp_path)
    assert "is a run" not in str(raised.value)
