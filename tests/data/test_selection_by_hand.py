"""Who trains, who validates and what is said of the rest, for pairs whose keys are their names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.data import selection
from camoxpert_nb.data.identity import Split
from camoxpert_nb.data.pairs import ImageSet, Pair
from camoxpert_nb.data.selection import (
    HELD_OUT,
    LATE,
    OTHER_FOLDS,
    Data,
    _as_before,
    hold_out,
    select,
    share_of,
)
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import make_config

ROOT = Path("/data")


def pairs(names: str, dataset: str = "own") -> list[Pair]:
    return [Pair(n, ROOT / f"{n}.jpg", ROOT / f"{n}.png", dataset) for n in names.split()]


def names(found: Any) -> str:
    return " ".join(pair.name for pair in found)


def image_set(root: str, train: str, test: str, name: str = "T") -> ImageSet:
    return ImageSet(name, "made", Path(root), tuple(pairs(train)), tuple(pairs(test, name)))


def test_several_sets_add_up_what_is_left_out() -> None:
    """Two test sets of one name both stay, each with its own images without an object."""
    sets = [
        image_set("/one", "a NonCAM-1 NonCAM-2", "t NonCAM-3"),
        image_set("/two", "b NonCAM-4", "u v NonCAM-5 NonCAM-6"),
        image_set("/three", "c", "NonCAM-7", "E"),
    ]
    found = select(sets)
    assert names(found.train) == "a b c"
    assert {name: names(each) for name, each in found.test.items()} == {"T": "t", "T (/two)": "u v"}
    assert found.left_out == {
        "NonCAM training images": ["NonCAM-1", "NonCAM-2", "NonCAM-4"],
        "NonCAM test images": ["NonCAM-3", "NonCAM-5", "NonCAM-6", "NonCAM-7"],
    }
    assert found.empty_tests == {"T": 1, "T (/two)": 2, "E": 1}
    whole = select(sets, noncam=True)
    assert names(whole.train) == "a NonCAM-1 NonCAM-2 b NonCAM-4 c" and not whole.left_out


def data_of(train: str, validation: str = "", looks: dict[str, str] | None = None) -> Data:
    every = {ROOT / f"{name}.jpg": look for name, look in (looks or {}).items()}
    return Data(ROOT, pairs(train), pairs(validation, "given"), {}, {}, looks=every)


def known(train: str, validation: str, gone: str = "", **places: str) -> Split:
    sides = [{n: places.get(n, f"{n}.jpg") for n in each.split()} for each in (train, validation)]
    return Split(*sides, by_name=True, gone=frozenset(gone.split()))


def test_a_run_that_goes_on_has_its_images_in_their_places() -> None:
    found = _as_before(data_of("a b c v new1"), known("c a b", "v"))
    assert names(found.train) == "c a b new1" and names(found.validation) == "v"
    assert found.changes == ["1 new images train from now on: new1"] and not found.left_out
    assert _as_before(data_of("a b c v"), known("c a b", "v")).changes == []


def test_a_held_out_image_that_was_saved_anew_is_still_held_out() -> None:
    """It lies where it was; and it does not train though its contents are new."""
    found = _as_before(data_of("a b c w"), known("a b c", "v", v="w.jpg"))
    assert names(found.train) == "a b c" and names(found.validation) == "w"
    assert found.changes[0] == "1 held-out images have other contents, and stay so: w"
    assert "1 of the run's validation images are not here any more" in found.changes[1]


def test_in_another_data_set_equal_places_mean_nothing() -> None:
    """Three of the run's six images are here: no majority."""
    run = known("a b c d", "v x", v="w.jpg")
    assert names(_as_before(data_of("a b x w"), run).validation) == "x"
    assert names(_as_before(data_of("a b c x w"), run).validation) == "x w"


def test_what_is_like_a_held_out_image_or_comes_late_does_not_train() -> None:
    looks = {"v": "=1", "near": "=1", "far": "=2", "late": "=3", "a": "=1"}
    found = _as_before(data_of("a b near far v", "late", looks), known("a b", "v"))
    assert names(found.train) == "a b far"  # a trained before, whatever it is like
    assert names(found.validation) == "v"
    assert found.left_out == {HELD_OUT: ["near"], LATE: ["late"]}


def test_images_that_went_and_came_again_are_told_once() -> None:
    found = _as_before(data_of("a back v"), known("a back lost", "v w", "back lost"))
    assert found.changes == [
        "1 of the run's images are here again: back.jpg",
        "1 of the run's validation images are not here any more, or were changed: w.jpg",
    ]


def test_without_images_of_both_sides_a_run_does_not_go_on() -> None:
    with pytest.raises(InputError, match="holds 2 images that may train and 0 of those"):
        _as_before(data_of("a b"), known("a b", "v"))


# --- holding out


CONFIG = make_config("tiny", val_share=0.25)


def test_sets_with_a_validation_split_keep_it_and_the_others_give_a_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image that looks like one of such a set stays on the side of training with it."""
    offered: list[Any] = []

    def split(candidates: list[Pair], share: float, together: list[list[Pair]]) -> Any:
        offered.append((names(candidates), share, [names(group) for group in together]))
        return candidates[1:], candidates[:1]

    monkeypatch.setattr(selection, "split_validation", split)
    looks = {"g": "=1", "bound": "=1", "c": "=2", "d": "=2"}
    data = data_of("a b bound c d", "v w", looks)
    data = replace(data, train=[*data.train, *pairs("g h", "given")])
    found = hold_out(data, CONFIG)
    assert offered == [("a b c d", 0.25, ["c d"])]
    assert names(found.validation) == "v w a" and names(found.train) == "b bound c d g h"


def test_a_fold_scores_its_own_images_and_a_validation_split_never_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = {"a": 1, "b": 2, "c": 3, "v": 1, "w": 2}
    monkeypatch.setattr(
        selection, "cut", lambda found, looks, count: {pair: places[pair.name] for pair in found}
    )
    found = hold_out(data_of("a b c", "v w"), CONFIG.replace(fold="2/3"))
    assert (names(found.train), names(found.validation)) == ("a c", "b w")
    assert found.left_out == {OTHER_FOLDS: ["v"]}
    assert share_of(CONFIG.replace(fold="2/3")) == pytest.approx(1 / 3)
    assert share_of(CONFIG) == 0.25
