"""What lies beside a data set and is not used: each folder and kind, with why and what mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb.data.folders import list_folders
from camoxpert_nb.data.layouts import look_through
from camoxpert_nb.data.leftover import Unused, nothing_found, unused_files
from camoxpert_nb.data.reading import AUTOMATIC, MaskReading, Reading


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def unused(root: Path) -> list[Unused]:
    """What is not used of a set with Imgs and GT."""
    touch(root, "Imgs/a.jpg", "Imgs/b.jpg", "GT/a.png", "GT/b.png")
    return list(look_through(root, AUTOMATIC).unused)


def test_a_set_and_nothing_else_leaves_nothing(tmp_path: Path) -> None:
    assert unused(tmp_path) == []


def test_folders_of_images_say_why_they_are_not_used(tmp_path: Path) -> None:
    touch(tmp_path, *(f"extra/{n}.jpg" for n in range(5)), "masks of more/x.png", "Edge/q.png")
    found = {each.place: each for each in unused(tmp_path)}
    three = ("0.jpg", "1.jpg", "2.jpg")
    assert found == {
        "extra": Unused("extra", 5, "images whose masks were not found", three),
        "masks of more": Unused(
            "masks of more", 1, "masks whose images were not found", ("x.png",)
        ),
        "Edge": Unused("Edge", 1, "files beside the images and masks used", harmless=True),
    }
    assert str(found["extra"]) == (
        "extra: 5 images whose masks were not found (0.jpg, 1.jpg, 2.jpg)"
    )
    assert str(found["Edge"]) == "Edge: 1 files beside the images and masks used"


def test_kinds_that_are_not_read_are_told_with_what_mends_them(tmp_path: Path) -> None:
    touch(tmp_path, "new/b.HEIC", "new/a.heic", "new/c.zip", "new/readme.md", "new/x.jpg.1")
    touch(tmp_path, "raw/1", "raw/2", "raw/3", "few/1", "few/2", "Imgs/o.json", "outlines/o.json")
    found = [str(each) for each in unused(tmp_path)]
    assert found == [
        "Imgs: 1 JSON file, which is not read: masks are read from image files only: draw these "
        "outlines as PNG (o.json)",
        "new: 2 HEIC files, which are not read: save them as JPEG or PNG (a.heic, b.HEIC)",
        "new: 1 ZIP file, which is not read: unpack the archive (c.zip)",
        "new: 1 files that look like images of another ending: rename them if they are meant "
        "(x.jpg.1)",
        "outlines: 1 JSON file, which is not read: masks are read from image files only: draw "
        "these outlines as PNG (o.json)",
        "raw: 3 files without a suffix, which are not read: add .jpg or .png (1, 2, 3)",
    ]


def test_outlines_matter_where_images_or_masks_lie(tmp_path: Path) -> None:
    touch(tmp_path, "Imgs/o.json", "outlines/o.json", "outlines/p.heic", "GT/q.mat")
    harmless = {(each.place, each.reason.split()[0]): each.harmless for each in unused(tmp_path)}
    assert harmless == {
        ("Imgs", "JSON"): False,
        ("GT", "MAT"): False,
        ("outlines", "JSON"): True,
        ("outlines", "HEIC"): False,
    }


def test_hidden_images_and_folders_that_cannot_be_listed_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f".trash/{n}.jpg" for n in range(4)), ".x.png", "Imgs/._a.jpg")
    (found,) = unused(tmp_path)
    reason = "hidden images (in a folder or of a name that begins with a dot)"
    assert (found.place, found.count, found.reason) == (".", 5, reason)
    assert len(found.names) == 3 and found.harmless
    tree = list_folders(tmp_path)
    object.__setattr__(tree.folders[0], "problem", "cannot be listed (Permission denied)")
    assert "GT: 1 folder cannot be listed (Permission denied)" in map(str, unused_files(tree, []))


def test_lists_that_were_read_are_not_told_here(tmp_path: Path) -> None:
    touch(tmp_path, "names.xml", "other.xml")
    tree = list_folders(tmp_path)
    told = unused_files(tree, [], {tmp_path / "names.xml"})
    assert [each.names for each in told] == [("other.xml",)]


def said(root: Path, reading: Reading = AUTOMATIC) -> str:
    return str(nothing_found(list_folders(root), ["Imgs + GT", "im + gt"], reading))


def test_a_run_is_no_data_set(tmp_path: Path) -> None:
    touch(tmp_path, "config.json", "history.jsonl", "pictures/a.png")
    assert said(tmp_path) == (
        f"{tmp_path} is a run, and no data set: it holds what a training wrote. Expected a folder "
        "of images and masks here; a run is given as --run, or to `camoxpert compare`."
    )
    (tmp_path / "history.jsonl").unlink()
    assert "is a run" not in said(tmp_path)


def test_without_an_image_it_is_said_what_there_is(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/c.zip", ".h/x.png")
    text = said(tmp_path)
    assert text.startswith(f"{tmp_path}: no image files (.jpg .jpeg .png ")
    assert text.endswith(
        ") here or in the 2 folders below. Found: a/b: 1 ZIP file, which is not read: unpack the "
        "archive (c.zip). 1 hidden images are not used (.h/x.png): give that folder. Check the "
        "path and its permissions; an archive must be unpacked first."
    )


def test_images_without_masks_are_told_with_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "top.bmp", "imagez/a.jpg", "imagez/b.JPG", "imagez/c.png", "annotation/x.png")
    touch(tmp_path, "imagez/d.heic")
    lines = said(tmp_path, Reading(how=MaskReading(invert=True))).splitlines()
    assert lines[:4] == [
        f"{tmp_path}: no image has its mask (5 images) with --mask-invert.",
        "  Found: this folder itself (1), annotation (1), imagez (2 jpg, 1 png). annotation has "
        "x.png. 'imagez' looks like 'image'.",
        "  imagez: 1 HEIC file, which is not read: save them as JPEG or PNG (d.heic).",
        "  Looked for: Imgs + GT, im + gt.",
    ]
    assert lines[-1] == (
        "  Where nothing can be renamed, say what is what: --image-folder DIR --mask-folder DIR "
        "(below the data set; * stands for anything), --mask-suffix _mask."
    )
    assert "no image has its mask (5 images).\n" in said(tmp_path)


@pytest.mark.parametrize("many", [8, 9])
def test_of_many_folders_eight_are_told(tmp_path: Path, many: int) -> None:
    touch(tmp_path, *(f"f{number}/{number}.png" for number in range(many)))
    more = " and 1 more" if many == 9 else ""
    eight = ", ".join(f"f{number} (1)" for number in range(8))
    assert f"Found: {eight}{more}." in said(tmp_path)
