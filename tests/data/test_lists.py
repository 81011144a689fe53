"""Lists of names beside the images are obeyed where they fit, and named where they do not."""

from __future__ import annotations

import json
import shutil
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


TABLES = {  # files that say of eight images which train (1-4), validate (5, 6) and test (7, 8)
    "split.csv": ("utf-8", "image_id,fold,set\n", "im {n},{k},{s}\n"),
    "meta.csv": ("utf-8-sig", "Image Name;Split\n", "im {n}.jpg;{s}\n"),
    "meta.tsv": ("utf-16", "filename\tsubset\n", "im {n}.jpg\t{s}\n"),
    "folds.csv": ("utf-16-le", "photo,label,split\n", "im {n}.jpg,cat,{s}\n"),
    "unnamed.csv": ("utf-8", "a,b,partition\n", "im {n}.jpg,cat,{s}\n"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_many_programs(root, name):
    encoding, head, line = TABLES[name]
    words = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    lines = [line.format(n=n, k=n % 5, s=word) for n, word in enumerate(words, 1)]
    (root / name).write_text(head + "".join(lines), encoding)
    found = look_through(root)
    assert sides(found) == (["1", "2", "3", "4"], ["5", "6"], ["7", "8"])
    assert len(found.lists) == 3


def by_split(numbers):
    return {"train": numbers[:4], "valid": numbers[4:6], "Test": numbers[6:]}


NAMED = [f"im {n}.jpg" for n in range(1, 9)]
JSONS = {
    "splits.json": by_split(NAMED),
    "split.json": {name: s for s, names in by_split(NAMED).items() for name in names},
    "my_split.json": [{"file": n, "split": s} for s, ns in by_split(NAMED).items() for n in ns],
    "folds/partition.json": {s: [{"image": n} for n in ns] for s, ns in by_split(NAMED).items()},
}


@pytest.mark.parametrize("name", JSONS)
def test_splits_in_json(root, name):
    write(root / "splits" / name, json.dumps(JSONS[name]))
    found = look_through(root)
    assert sides(found) == (["1", "2", "3", "4"], ["5", "6"], ["7", "8"])
    assert not found.unused  # it is no file with outlines


def test_a_json_of_names(root):
    write(root / "val_names.json", json.dumps(NAMED[:2]))
    assert sides(look_through(root))[1] == ["1", "2"]


NOT_UNDERSTOOD = {
    "train_val.xlsx": ("", "XLSX files are not read as lists: save it as CSV"),
    "splits.yaml": ("train: a", "YAML files are not read"),
    "splits.json": ("{", "it is not JSON"),
    "test.json": ('{"a": 1}', "expected a list of names, names by split, or records"),
    "split_0.json": ('{"fold0": ["im 1"], "train": []}', "what it calls fold0 is no split"),
    "folds.csv": ("image,fold\nim 1,0\nim 2,1\n", "its column fold is not understood"),
    "meta.csv": ("name,is_valid\nim 1,True\nim 2,False\n", "its column is_valid is not understood"),
    "split.txt": ("im 1\nim 2\n", "it has no column of splits"),
    "split.csv": ("image,split\nim 1,train\nim 2,unused\nim 3,test\n", "1 of its lines say no"),
    "other.csv": ("image,split\nim 1,train\nim 2\nim 3,test\n", "1 of its lines have not 2"),
}


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
def test_a_list_that_is_not_understood_is_named(root, name):
    text, reason = NOT_UNDERSTOOD[name]
    write(root / name, text)
    found = look_through(root)
    assert len(sides(found)[0]) == 8
    (note,) = found.lists
    assert name in note and "is not obeyed" in note and reason in note


def renamed(root, *names):
    """Name the eight images and their masks so."""
    for folder in (root / "JPEGImages", root / "SegmentationClass"):
        for path, name in zip(sorted(folder.iterdir()), names, strict=True):
            path.rename(path.with_stem(name))


@pytest.mark.parametrize("held", ["val_{}", "{}_val", "Val-{}", "valid{}"])
def test_names_of_files_that_say_their_split_are_obeyed(root, held):
    """In the name's middle a word tells where a photo came from, as in DUTS-TR."""
    middle = ["ILSVRC2012_test_04", "ILSVRC2012_val_05", "developer_1", "contest_2"]
    renamed(root, *middle, *(held.format(n) for n in (1, 2)), "test_7", "test 8")
    found = look_through(root)
    (one,) = found.sets
    assert [len(side) for side in (one.train, one.validation, one.test)] == [4, 2, 2]
    assert found.lists == ("set: names of images are obeyed: 2 validation, 2 test",)


def test_where_all_names_say_test_they_train_and_it_is_said(root):
    renamed(root, *(f"test_{n}" for n in range(8)))
    found = look_through(root)
    assert len(found.sets[0].train) == 8
    assert "not obeyed: nothing would be left to train" in found.lists[0]


def test_a_folder_that_trains_outweighs_names(root):
    renamed(root, *(f"test_{n}" for n in range(4)), *"abcd")
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / "train").mkdir(exist_ok=True)
        (root / folder).rename(root / "train" / folder)
    found = look_through(root)
    assert len(found.sets[0].train) == 8 and not found.lists


def test_hidden_images_are_counted_and_named(root):
    hidden = root / "JPEGImages" / ".ipynb_checkpoints" / "im 1-checkpoint.jpg"
    hidden.parent.mkdir()
    for path in (hidden, root / ".spare.png", root / "._im 1.jpg", root / "__MACOSX" / "._a.jpg"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = look_through(root)
    assert [(each.place, each.count, each.harmless) for each in found.unused] == [
        (".", 1, True),
        ("JPEGImages", 1, True),
    ]
    assert "im 1-checkpoint.jpg" in str(found.unused[1])


LINES_OF_PROGRAMS = {  # a list of im 1 and im 2 as other programs write it
    "DAVIS": ("ImageSets/480p/val.txt", "/JPEGImages/{0}.jpg /SegmentationClass/{0}.png"),
    "Oxford pets": ("annotations/test.txt", "{0} 1 1 1"),
    "a comment": ("val.txt", "# chosen by hand\n{0}"),
    "without a suffix": ("test", "{0}"),
    "another suffix": ("val.list", "{0}.jpg"),
    "MONAI": ("dataset.json", None),
    "ISIC": ("metadata.csv", None),
}


@pytest.mark.parametrize("program", LINES_OF_PROGRAMS)
def test_lists_of_many_programs(root, program):
    place, line = LINES_OF_PROGRAMS[program]
    names = ["im 1", "im 2"]
    if program == "MONAI":
        images = [{"image": f"JPEGImages/{name}.jpg", "label": "x"} for name in names]
        text = json.dumps({"name": "x", "labels": {"0": "x"}, "validation": images})
    elif program == "ISIC":
        text = "isic_id,age,phase\n" + "".join(
            f"im {n},{30 + n},{'holdout' if n < 3 else 'train'}\n" for n in range(1, 9)
        )
    else:
        text = "\n".join(line.format(name) for name in names)
    write(root / place, text)
    train, validation, test = sides(look_through(root))
    assert validation + test == ["1", "2"] and len(train) == 6


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("list_eval_partition.txt", "im 1.jpg 0\nim 2.jpg 2\n", "its column of 0, 2"),
        ("test_results.csv", "image,iou\nim 1,0.31\nim 2,.5\n", "it holds numbers (iou)"),
    ],
)
def test_what_only_looks_like_a_list_moves_no_image(root, name, text, reason):
    write(root / name, text)
    found = look_through(root)
    assert len(sides(found)[0]) == 8
    assert name in found.lists[0] and reason in found.lists[0]


def test_a_list_above_two_sets_names_images_of_both(root):
    other = root.parent / "other"
    shutil.copytree(root, other)
    for path in [*other.rglob("*.jpg"), *other.rglob("*.png")]:
        path.rename(path.with_stem(path.stem.replace("im", "pic")))
    write(root.parent / "val.txt", "im 1", "pic 2")
    found = look_through(root.parent)
    assert [[pair.name for pair in one.validation] for one in found.sets] == [["pic 2"], ["im 1"]]
    assert len(found.lists) == 1 and "is obeyed" in found.lists[0]


def test_short_words_count_where_others_say_train(root):
    renamed(root, "tr_1", "tr_2", "tr_3", "tr_4", "te_1", "te_2", "eval 1", "7")
    (one,) = look_through(root).sets
    assert [len(side) for side in (one.train, one.validation, one.test)] == [5, 0, 3]
    renamed(root, "team", *(f"te_{n}" for n in range(11, 18)))
    assert len(look_through(root).sets[0].train) == 8


def test_a_line_that_names_nothing_in_any_set_spoils_a_list_above_several(root):
    other = shutil.copytree(root, root.parent / "other")
    for path in sorted(other.rglob("im *.*")):
        path.rename(path.with_name(path.name.replace("im", "photo")))
    write(root.parent / "test.txt", "im 1", "photo 2", "nowhere 3")
    found = look_through(root.parent)
    assert not any(one.test for one in found.sets)
    assert any(
        "1 of its 3 lines name no image with a mask here: nowhere 3" in n for n in found.lists
    )
    write(root.parent / "test.txt", "im 1", "photo 2")
    named = {one.name: [pair.name for pair in one.test] for one in look_through(root.parent).sets}
    assert named == {"set": ["im 1"], "other": ["photo 2"]}


def test_the_nearest_list_speaks(root):
    """The list in the set itself outweighs one above it."""
    write(root.parent / "test.txt", "im 1")
    write(root / "test.txt", "im 2")
    assert sides(look_through(root.parent))[2] == ["2"]


def test_of_a_path_as_much_counts_as_is_there(tmp_path):
    root = tmp_path / "deep"
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        for part in ("a", "b"):
            (root / folder / part).mkdir(parents=True)
            for number in (1, 2):
                (root / folder / part / f"im {number}.{suffix}").touch()
    write(root / "test.txt", "b/im 1")
    found = [pair for one in look_through(root).sets for pair in one.test]
    assert [pair.image.parent.name for pair in found] == ["b"]


def test_trainval_is_read_after_the_lists_that_it_holds(root):
    """Whatever its place in the alphabet: its images that validate do not train."""
    for name in ("a_trainval", "trainval"):
        write(root / "ImageSets" / f"{name}.txt", *(f"im {n}" for n in range(1, 7)))
        write(root / "ImageSets" / "val.txt", "im 5", "im 6")
        found = look_through(root)
        assert sides(found)[1] == ["5", "6"], found.lists
        (root / "ImageSets" / f"{name}.txt").unlink()
