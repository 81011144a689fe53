"""Which images to look at: the table behind galleries, its groups and its orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..data.layouts import Pair
from ..errors import InputError
from ..evaluation.scores import COD10K, EDGES, SIZES, labelled

GROUPS = ("dataset", "class", "size")


# What to sort by, whether the smallest comes first, and how that is called.
ORDERS = {
    "worst": ("iou", True, "lowest IoU first"),
    "best": ("iou", False, "highest IoU first"),
    "uncertain": ("uncertainty", False, "most uncertain first"),
    "random": ("", True, "chosen at random"),
}


def describe(per_image: pd.DataFrame, pairs: Sequence[Pair], **columns: Any) -> pd.DataFrame:
    """Return the table of `Scores.per_image` with GROUPS and further columns, a row per pair.

    class: the super-class in COD10K's names. size: the object's, in words. Where two sets share a
    name, all names have their set's before them.
    """
    names, shares = [pair.name for pair in pairs], per_image["object_share"].to_numpy()
    if len(set(names)) < len(names):
        names = [f"{pair.dataset}/{pair.name}" for pair in pairs]
    found = [COD10K.match(pair.name) for pair in pairs]
    bins = np.where(shares > 0, 1 + np.searchsorted(EDGES, shares, "right"), 0)
    groups = {
        "dataset": [pair.dataset for pair in pairs],
        "class": [match[1] if match else "other names" for match in found],
        "size": pd.Categorical.from_codes(bins, SIZES, ordered=True),
    }
    return per_image.reset_index(drop=True).assign(name=names, **groups, **columns)


def ordered(table: pd.DataFrame, by: str, n: int | None = None, seed: int = 0) -> list[int]:
    """Return rows in one of ORDERS; images without an object have no IoU to be ordered by."""
    if by not in ORDERS:
        raise InputError(f"No order '{by}': choose {', '.join(ORDERS)}.")
    column, ascending, _ = ORDERS[by]
    if not column:
        return table.sample(frac=1, random_state=seed).index[:n].tolist()
    kept = table[table["object_share"] > 0] if column == "iou" else table
    return kept.sort_values(column, ascending=ascending, kind="stable").index[:n].tolist()


def evenly(items: Sequence[Any], count: int | None) -> list[Any]:
    """Return that many items, evenly from first to last; all where there are no more."""
    if count is None or count >= len(items):
        return list(items)
    return [items[place] for place in np.linspace(0, len(items) - 1, count).round().astype(int)]


def filtered(
    table: pd.DataFrame, keep: Mapping[str, str], by: str, ascending: bool = True
) -> list[int]:
    """Return the rows whose columns have the values in `keep`, sorted by a measure."""
    for column, value in keep.items():
        table = table[table[column] == value]
    return table.sort_values(by, ascending=ascending, kind="stable").index.tolist()


def called(name: str) -> str:
    """Return what the field calls a column of `describe`'s table."""
    return str(labelled([{name: 0}]).columns[0])
