"""Whatever images there are: each trains or validates, and stays on its side."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import tried

from camoxpert_nb.data.cutting import cut, split_validation
from camoxpert_nb.data.pairs import Pair
from camoxpert_nb.settings.decide import ENOUGH

NAMES = st.lists(st.text("abcé01_ ", min_size=1, max_size=6), min_size=2, max_size=40, unique=True)
SHARES = st.floats(0.01, 0.5)


def pairs(names: list[str]) -> list[Pair]:
    return [Pair(name, Path(f"{name}.jpg"), Path(f"{name}.png"), "set") for name in names]


@tried(100)
@given(NAMES, SHARES)
def test_a_share_is_disjoint_and_complete(names: list[str], share: float) -> None:
    every = pairs(names)
    train, held = split_validation(every, share)
    assert train and held
    assert sorted((*train, *held)) == sorted(every)
    assert split_validation(every[::-1], share)[1] == tuple(
        pair for pair in every[::-1] if pair in {*held}
    )


@tried(100)
@given(NAMES, NAMES, SHARES)
def test_added_images_move_nothing(names: list[str], more: list[str], share: float) -> None:
    before = {*split_validation(pairs(names), share)[1]}
    every = pairs([*names, *(each for each in more if each not in names)])
    after = {*split_validation(every, share)[1]}
    moved = {pair for pair in pairs(names) if (pair in before) != (pair in after)}
    # One, so that neither side is empty; more only where a small set was filled up to its share.
    assert len(moved) <= 1 or len(before) <= ENOUGH
    assert len(moved) <= ENOUGH


@pytest.mark.parametrize("count", [6, 15, 25, 40, 60])
def test_a_small_set_gets_its_share(count: int) -> None:
    for start in range(20):
        _, held = split_validation(pairs([f"photo{start + i}" for i in range(count)]), 0.1)
        assert len(held) >= round(count / 10)


@tried(40)
@given(st.integers(2, 6), st.integers(0, 30), st.integers(0, 5))
def test_folds_are_disjoint_complete_and_level(folds: int, more: int, alike: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_folds(Path(folder), folds, more, alike)


def check_folds(folder: Path, folds: int, more: int, alike: int) -> None:
    every = [pair._replace(image=folder / pair.image) for pair in pairs([*map(str, range(40))])]
    every = every[: folds + more + alike]
    for number, pair in enumerate(every):
        pair.image.write_bytes(bytes([number]))
    places = cut(every, {pair.image: "=same" for pair in every[:alike]}, folds)
    sizes = [[*places.values()].count(fold) for fold in range(1, folds + 1)]
    assert {*places} == {*every} and sum(sizes) == len(every)
    assert len({places[pair] for pair in every[:alike]}) <= 1
    assert max(sizes) - min(sizes) <= max(alike, 1)
    assert places == cut(every[::-1], {pair.image: "=same" for pair in every[:alike]}, folds)
