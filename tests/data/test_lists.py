"""Lists of names beside the images are obeyed where they fit, and named where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb.data.layouts import Found, look_through


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (root / folder).mkdir(parents=True)
        for number in range(1, 9):
            (root / folder / f"im {number}.{suffix}").touch()
    return root


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def sides(found: Found) -> tuple[list[str], list[str], list[str]]:
    (one,) = found.sets
    names = [[p.name[3:] for p in side] for side in (one.train, one.validation, one.test)]
    return names[0], names[1], names[2]


LINES = {  # how a list writes the image "im 3"
    "stem": "im {}",
    "file": "im {}.jpg",
    "path": "JPEGImages/im {}.jpg",
    "backslash": "JPEGImages\\im {}.jpg",
    "absolute": "/home/them/VOC/JPEGImages/im {}.jpg",
    "with mask": "JPEGImages/im {}.jpg SegmentationClass/mask.png",
    "dot": "./JPEGImages/im {}.jpg",
    "case": "IM {}.JPG",
    "tab": "im {}\t1",
    "VOC": "im {} -1",
}


@pytest.mark.parametrize("way", LINES)
@pytest.mark.parametrize("place", ["{}.txt", "ImageSets/Segmentation/{}.txt", "lists/{}_list.txt"])
def test_a_list_is_obeyed(root, way, place):
    for split, numbers in (("train", (1, 2, 3, 4)), ("val", (5, 6)), ("test", (7, 8))):
        write(root / place.format(split), *(LINES[way].format(n) for n in numbers))
    found = look_through(root)
    assert sides(found) == (["1", "2", "3", "4"], ["5", "6"], ["7", "8"])
    assert len(found.lists) == 3 and all("is obeyed" in note for note in found.lists)
    assert not found.unlisted


def test_images_that_no_list_names_are_left_out_and_known(root):
    write(root / "train.txt", "im 1", "im 2")
    write(root / "test.txt", "im 3")
    found = look_through(root)
    assert sides(found) == (["1", "2"], [], ["3"])
    assert [pair.name for pair in found.unlisted] == [f"im {n}" for n in range(4, 9)]


def test_without_a_list_of_training_images_the_rest_trains(root):
    write(root / "test.txt", "im 3", "im 4")
    assert sides(look_through(root)) == (["1", "2", "5", "6", "7", "8"], [], ["3", "4"])


def test_a_table_with_a_column_of_splits(root):
    rows = [
        f"im {n}.jpg,{split}" for n, split in enumerate(["train"] * 5 + ["val"] + ["test"] * 2, 1)
    ]
    write(root / "meta.csv", "filename,split", *rows)
    assert sides(look_through(root)) == (["1", "2", "3", "4", "5"], ["6"], ["7", "8"])


def test_a_csv_of_names(root):
    write(root / "test.csv", "image,label", "im 1.jpg,x", "im 2.jpg,y")
    assert sides(look_through(root))[2] == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "lines", "reason"),
    [
        ("test.txt", ["im 1", "im 77"], "1 of its 2 lines name no image with a mask here: im 77"),
        ("val.txt", ["some words about validation"], "lines name no image"),
        ("train.txt", [], ""),
    ],
)
def test_a_list_that_does_not_fit_is_named_with_the_reason(root, name, lines, reason):
    write(root / name, *lines)
    found = look_through(root)
    assert len(sides(found)[0]) == 8
    assert not reason or any(name in note and reason in note for note in found.lists)


def test_an_image_in_two_lists_never_trains_and_tests(root):
    write(root / "test.txt", "im 1", "im 2")
    write(root / "train.txt", "im 2", "im 3")
    found = look_through(root)
    train, _, test = sides(found)
    assert not {*train} & {*test}
    assert any("not obeyed" in note and "another list: im 2" in note for note in found.lists)


def test_other_text_files_are_no_lists(root):
    for name in ("readme.txt", "classes.txt", "contest.txt", "latest.csv"):
        write(root / name, "im 1")
    found = look_through(root)
    assert len(sides(found)[0]) == 8 and not found.lists


def test_a_list_never_overrules_the_folders(tmp_path):
    for split in ("train", "test"):
        for folder, suffix in (("images", "jpg"), ("masks", "png")):
            (tmp_path / split / folder).mkdir(parents=True)
            (tmp_path / split / folder / f"{split}1.{suffix}").touch()
    write(tmp_path / "train.txt", "train1", "test1")
    found = look_through(tmp_path)
    assert [len(side) for side in sides(found)] == [1, 0, 1]
    assert "the folders say otherwise of 1 images: test1" in found.lists[0]


def test_lists_of_two_sets_do_not_mix(root):
    other = root.parent / "other"
    for folder, suffix in (("Imgs", "jpg"), ("GT", "png")):
        (other / folder).mkdir(parents=True)
        (other / folder / f"im 1.{suffix}").touch()
    write(root / "test.txt", "im 1")
    found = look_through(root.parent)
    assert {one.name: (len(one.train), len(one.test)) for one in found.sets} == {
        "other": (1, 0),
        "set": (7, 1),
    }
