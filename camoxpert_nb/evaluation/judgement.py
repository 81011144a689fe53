"""What `judge` returns: the scores of each set, by number or name, with tables over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import pandas as pd

from .scores import Bounds, Scores, labelled, number


class Scored:
    """Short names for what people ask of one set's `scores`."""

    name: str
    note: str
    scores: Scores

    @property
    def iou(self) -> float | None:
        """Return the mean IoU at threshold 0.5, 0...1; None without an image to average."""
        return self.scores.mean["iou"]

    @property
    def interval(self) -> Bounds | None:
        """Return the bounds of the IoU's 95 % interval, by bootstrap over the images."""
        return self.scores.interval.get("iou")

    @property
    def mean(self) -> dict[str, float | None]:
        """Return the mean of each measure, by its name: iou, dice, s_measure, mae, ..."""
        return self.scores.mean

    @property
    def per_image(self) -> pd.DataFrame:
        """Return a table with a row for each image: its name and all its measures."""
        return self.scores.per_image

    def __repr__(self) -> str:
        return f"{self.name}: IoU {number(self.iou, 3, self.interval)}, {self.note}"


class Judgement(list[Any]):
    """The scored sets (`judge.Judged`), in order; `scores["CAMO"]` is the one of that name.

    In a notebook it shows as its `table`, with what was scored, and left out, below.
    """

    def __init__(self, sets: Iterable[Scored]) -> None:
        super().__init__(sets)

    def __getitem__(self, place: Any) -> Any:
        if not isinstance(place, str):
            return super().__getitem__(place)
        for each in self:
            if each.name == place:
                return each
        raise KeyError(f"no set {place!r}: {', '.join(each.name for each in self)}")

    @property
    def iou(self) -> float | None:
        """Return the mean IoU of the first set, which mostly is the only one."""
        return self[0].iou if self else None

    @property
    def table(self) -> pd.DataFrame:
        """Return a row for each set: images, IoU with its 95 % interval, and all other measures."""
        rows = []
        for each in self:
            low, high = each.interval or (None, None)
            iou, *others = each.mean.items()
            ends = {"IoU, 95 % from": low, "to": high}
            rows.append(
                {"set": each.name, "n": each.scores.n, **dict([iou]), **ends, **dict(others)}
            )
        return labelled(pd.DataFrame(rows)).set_index("set")

    @property
    def per_image(self) -> pd.DataFrame:
        """Return a row for each image of all sets, with the set's name as "dataset"."""
        tables = {each.name: each.per_image for each in self}
        return pd.concat(tables, names=["dataset"]).reset_index("dataset").reset_index(drop=True)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))

    def _repr_html_(self) -> str:
        table = self.table.rename_axis(None)
        shown = table.map(lambda value: f"{value:.3f}" if isinstance(value, float) else value)
        notes = (f"<p>{escape(f'{each.name}: {each.note}')}</p>" for each in self)
        return shown.to_html() + "".join(notes)
