"""Which fold, and which side, each picture goes to where digests and fractions are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb.data import cutting
from camoxpert_nb.data.cutting import cut, split_validation
from camoxpert_nb.data.pairs import Pair
from camoxpert_nb.errors import InputError


def pairs_of(names: str) -> list[Pair]:
    return [Pair(name, Path(f"{name}.jpg"), Path(f"{name}.png"), "made") for name in names]


def folds(monkeypatch: pytest.MonkeyPatch, digests: str, count: int, *alike: str) -> dict[str, int]:
    """Return the fold of each name; `digests` holds the names in the order of their digests."""
    pairs = pairs_of("".join(sorted(digests)))
    places = {Path(f"{name}.jpg"): f"{place:03}" for place, name in enumerate(digests)}
    monkeypatch.setattr(cutting, "digests", lambda paths: {path: places[path] for path in paths})
    looks = {Path(f"{name}.jpg"): f"={group}" for group in alike for name in group}
    return {pair.name: fold for pair, fold in cut(pairs, looks, count).items()}


def test_large_groups_are_dealt_out_first_then_single_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A group of three fills one fold of three, so the three single ones fill the other."""
    found = folds(monkeypatch, "fedcba", 2, "abc")
    assert found == {"a": 1, "b": 1, "c": 1, "d": 2, "e": 2, "f": 2}
    two = folds(monkeypatch, "xabcyz", 2, "abc", "yz")
    assert two == {"a": 1, "b": 1, "c": 1, "y": 2, "z": 2, "x": 2}


def test_equals_are_dealt_out_by_their_digests_and_not_by_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert folds(monkeypatch, "ba", 2) == {"b": 1, "a": 2}
    assert folds(monkeypatch, "dcba", 2, "ab", "cd") == {"c": 1, "d": 1, "a": 2, "b": 2}


def test_pictures_that_are_alike_are_one_where_folds_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match="3 folds are wanted, but the 4 images make 2 different"):
        folds(monkeypatch, "abcd", 3, "abc")


def held(
    monkeypatch: pytest.MonkeyPatch, fractions: list[float], share: float, *groups: str
) -> str:
    """Return the names, a and on, that validate; each has its fraction."""
    names = [chr(ord("a") + place) for place in range(len(fractions))]
    known = dict(zip(names, fractions, strict=True))
    monkeypatch.setattr(cutting, "_fraction", known.__getitem__)
    pairs = pairs_of("".join(names))
    by_name = {pair.name: pair for pair in pairs}
    together = [[by_name[name] for name in group] for group in groups]
    training, validation = split_validation(pairs, share, together)
    assert {*training, *validation} == {*pairs} and training and validation
    return "".join(pair.name for pair in validation)


def test_names_below_the_share_validate(monkeypatch: pytest.MonkeyPatch) -> None:
    far = [0.9, 0.8, 0.7, 0.6]
    assert held(monkeypatch, [*far, 0.05, 0.19, 0.2, 0.31, 0.32, 0.33], 0.2) == "ef"
    many = [0.1] * 12 + [0.5] * 12  # twelve of 24, where a fifth would be five
    assert held(monkeypatch, many, 0.2) == "abcdefghijkl"


def test_where_chance_gives_too_few_the_next_ones_make_up_the_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert held(monkeypatch, [0.9, 0.5, 0.6, 0.7, 0.8], 0.4) == "bc"
    assert held(monkeypatch, [0.9, 0.5], 0.1) == "b"  # one at least
    fractions = [0.99 - place / 1000 for place in range(26)]
    assert len(held(monkeypatch, fractions, 0.5)) == 8  # but no more than eight


def test_one_image_is_left_to_train(monkeypatch: pytest.MonkeyPatch) -> None:
    assert held(monkeypatch, [0.1, 0.2, 0.3], 0.9) == "ab"


def test_a_group_goes_where_its_first_name_does(monkeypatch: pytest.MonkeyPatch) -> None:
    fractions = [0.9, 0.01, 0.15, 0.95, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert held(monkeypatch, fractions, 0.2, "ab", "cd") == "cd"


def test_the_share_is_made_up_of_images_and_not_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty films of two frames each: a fifth are eight frames, four films."""
    fractions = [0.9 - place / 1000 for place in range(40)]
    films = ["".join(chr(ord("a") + place + each) for each in (0, 1)) for place in range(0, 40, 2)]
    assert len(held(monkeypatch, fractions, 0.2, *films)) == 8


def test_a_group_larger_than_the_share_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    fractions = [0.01, 0.02, 0.03, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert held(monkeypatch, fractions, 0.2, "abc") == "de"
    assert held(monkeypatch, [0.3, 0.4, 0.5, 0.1, 0.6, 0.7], 0.1, "abc", "def") == "def"  # or all


def test_of_one_picture_alone_single_files_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    assert held(monkeypatch, [0.5, 0.1, 0.9], 0.34, "abc") == "b"
