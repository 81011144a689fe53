"""Pairs, their sets, and names that tell them apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb.data.pairs import DEEPEST, ImageSet, Pair, is_noncam, unique_names


def pair(path: str) -> Pair:
    return Pair(Path(path).stem, Path(path), Path("masks") / Path(path).name, "set")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([], []),
        (["a/1.png", "a/2.png"], ["1", "2"]),
        (["a/1.png", "b/1.png", "b/2.png"], ["a/1", "b/1", "2"]),
        (["x/a/im/1.png", "x/b/im/1.png"], ["a/im/1", "b/im/1"]),
        (["x/a/1.png", "y/a/1.png", "b/1.png"], ["x/a/1", "y/a/1", "b/1"]),
    ],
)
def test_names_are_as_long_as_it_takes_to_tell_them_apart(
    paths: list[str], names: list[str]
) -> None:
    assert unique_names([pair(path) for path in paths]) == names


def test_one_image_twice_ends_the_search() -> None:
    deep = "/".join("abcdefghijklmnop") + "/1.png"
    twice = unique_names([pair(deep), pair(deep)])
    assert twice[0] == twice[1] and twice[0].count("/") == DEEPEST - 1


def test_a_set_is_all_its_splits_in_order() -> None:
    train, test, held = (pair(f"{name}/1.png") for name in ("train", "test", "val"))
    found = ImageSet("s", "layout", Path("s"), (train,), (test,), validation=(held,))
    assert found.pairs == (train, held, test)


def test_noncam_is_told_by_the_name_in_any_case() -> None:
    assert is_noncam(pair("COD10K-NonCAM-5-x.jpg")) and is_noncam(pair("noncam_1.png"))
    assert not is_noncam(pair("NonCAM/COD10K-CAM-1-x.jpg"))
