from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from camoxpert_nb.data.layouts import Pair
from camoxpert_nb.errors import InputError
from camoxpert_nb.figures.ranking import ORDERS, describe, filtered, ordered

NAMES = ("COD10K-CAM-1-Aquatic-13-Pipefish-5", "COD10K-NonCAM-4-Flying-1-Bird-2", "photo", "last")


@pytest.fixture
def table() -> pd.DataFrame:
    pairs = [Pair(name, Path("i"), Path("m"), "set") for name in NAMES]
    rows = {"iou": [0.5, 0.0, 0.9, 0.2], "object_share": [0.01, 0.0, 0.009, 0.15]}
    return describe(pd.DataFrame({"name": NAMES} | rows), pairs, uncertainty=[0.2, 0.9, 0.1, 0.4])


def test_groups_are_class_size_and_set(table: pd.DataFrame) -> None:
    assert table["class"].tolist() == ["Aquatic", "Flying", "other names", "other names"]
    assert table["size"].tolist() == ["1 to 5 %", "no object", "under 1 %", "15 % and more"]
    assert table["size"].sort_values().tolist()[:2] == ["no object", "under 1 %"]
    assert set(table["dataset"]) == {"set"}


def test_names_that_occur_twice_get_their_set() -> None:
    pairs = [Pair("a", Path("i"), Path("m"), name) for name in ("CAMO", "NC4K")]
    rows = pd.DataFrame({"name": ["a", "a"], "object_share": [0.1, 0.1]})
    assert describe(rows, pairs)["name"].tolist() == ["CAMO/a", "NC4K/a"]


def test_orders(table: pd.DataFrame) -> None:
    assert ordered(table, "worst") == [3, 0, 2]  # an image without object has no IoU
    assert ordered(table, "best", 2) == [2, 0]
    assert ordered(table, "uncertain", 1) == [1]
    assert sorted(ordered(table, "random")) == [0, 1, 2, 3]
    assert ordered(table, "random", seed=1) == ordered(table, "random", seed=1)
    with pytest.raises(InputError, match=", ".join(ORDERS)):
        ordered(table, "prettiest")


def test_filters_and_sorting_work_together(table: pd.DataFrame) -> None:
    assert filtered(table, {"class": "other names"}, "iou") == [3, 2]
    assert filtered(table, {"class": "other names"}, "iou", ascending=False) == [2, 3]
    assert filtered(table, {"class": "other names", "size": "under 1 %"}, "iou") == [2]
    assert filtered(table, {"class": "Flying", "size": "under 1 %"}, "iou") == []
