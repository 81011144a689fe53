"""Which image is which, and what a split.json remembers: by hand, without any training."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from camoxpert_nb.data.identity import Split, below, digest
from camoxpert_nb.data.pairs import Pair


def pair(root: Path, name: str, image: str = "", mask: str = "") -> Pair:
    """An image and a mask with these contents, in folders of their own."""
    files = [root / "Image" / f"{name}.jpg", root / "GT" / f"{name}.png"]
    for file, text in zip(files, (image or f"i {name}", mask or f"m {name}"), strict=True):
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(text)
    return Pair(name, *files, "made")


def test_a_split_knows_images_and_masks_by_contents_and_places_from_its_root(
    tmp_path: Path,
) -> None:
    a, b, c = (pair(tmp_path, name) for name in "abc")
    split = Split.of([a, b], [c], tmp_path, {a.image: "look a", Path("/other"): "look o"})
    keys = split.keys([a, b, c])
    assert len({*keys}) == 3
    assert split.train == {keys[0]: "Image/a.jpg", keys[1]: "Image/b.jpg"}
    assert split.validation == {keys[2]: "Image/c.jpg"}
    assert split.masks == {key: digest(p.mask) for key, p in zip(keys, (a, b, c), strict=True)}
    assert split.looks == {keys[0]: "look a"}
    assert below(Path("/elsewhere/x.jpg"), tmp_path) == "/elsewhere/x.jpg"


def test_scores_compare_where_the_same_images_and_masks_validate(tmp_path: Path) -> None:
    a, b, c, d = (pair(tmp_path, name) for name in "abcd")
    scored = Split.of([a], [c, d], tmp_path).scored
    assert Split.of([a, b], [d, c], tmp_path).scored == scored  # whatever trains, in any order
    assert Split.of([a], [c], tmp_path).scored != scored
    assert Split.of([a], [b, d], tmp_path).scored != scored
    redrawn = pair(tmp_path / "again", "d", "i d", "another mask")
    assert Split.of([a], [c, redrawn], tmp_path).scored != scored


def test_a_file_that_is_written_anew_is_known_anew(tmp_path: Path) -> None:
    """Of the same size too, a moment later."""
    file = tmp_path / "x.jpg"
    file.write_text("one")
    first = digest(file)
    file.write_text("two")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000))
    assert digest(file) != first
    file.write_text("one")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 2_000_000))
    assert digest(file) == first


def test_a_split_remembers_what_is_gone_and_what_has_changed() -> None:
    """Places and masks are those of now; what is not here any more keeps its own."""
    before = Split(
        {"a": "old/a.jpg", "b": "old/b.jpg"},
        {"v": "old/v.jpg", "w": "old/w.jpg"},
        masks={"a": "ma", "b": "mb", "v": "mv", "w": "mw"},
        looks={"a": "la", "b": "lb"},
    )
    now = Split(
        {"a": "new/a.jpg", "c": "new/c.jpg"},
        {"v": "new/v.jpg"},
        masks={"a": "other", "c": "mc", "v": "mv"},
        looks={"a": "another", "c": "lc"},
    )
    saved = now.after(before)
    assert saved["train"] == {"a": "new/a.jpg", "b": "old/b.jpg", "c": "new/c.jpg"}
    assert saved["validation"] == {"v": "new/v.jpg", "w": "old/w.jpg"}
    assert saved["gone"] == ["b", "w"]
    assert saved["masks"] == {"a": "other", "b": "mb", "c": "mc", "v": "mv", "w": "mw"}
    assert saved["looks"] == {"a": "another", "b": "lb", "c": "lc"}
    loaded = Split.load(saved)
    assert loaded.gone == {"b", "w"} and loaded.masks == saved["masks"] and not loaded.by_name
    assert loaded.train == saved["train"] and loaded.looks == saved["looks"]


def test_of_an_older_kits_split_a_name_is_all_that_is_left() -> None:
    before = Split.load({"train": ["a", "b"], "validation": ["v"]})
    assert before.by_name and before.keys([Pair("b", Path("x"), Path("y"), "")]) == ["b"]
    saved = Split({"1": "new/a.jpg"}, {"2": "new/v.jpg"}).after(before)
    assert saved["train"] == {"name:b": "b", "1": "new/a.jpg"}
    assert (saved["validation"], saved["gone"]) == ({"2": "new/v.jpg"}, ["name:b"])


@pytest.mark.parametrize(("side", "found"), [("train", {0, 2}), ("validation", {1})])
def test_a_near_picture_is_looked_for_on_its_own_side(side: str, found: set[int]) -> None:
    """Flat pictures, which look like their equals alone."""
    split = Split({"a": "", "b": ""}, {"v": ""}, looks={"a": "=1", "b": "=3", "v": "=2"})
    assert split.near(["=1", "=2", "=3", "=4"], side) == found
