"""Widgets to look through results: a gallery to page, and a threshold to move.

Core ipywidgets only, 7.7 to 8.1. Where nobody can press them (a batch run, a script) each shows its
figure instead. PyTorch and matplotlib are imported when something is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ..data.images import Array, read_grey
from ..data.layouts import Pair
from ..data.masks import mask_size
from .viewer import Panel, choice_of_images, worst_first

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


# Measures people know, and what else tells images apart.
SORTED_BY = (
    *("iou", "dice", "boundary_iou", "s_measure", "weighted_f", "mean_e", "adaptive_e", "mean_f"),
    *("adaptive_f", "mae", "object_share", "false_alarm", "uncertainty"),
)


class Gallery(Panel):
    """Pages through images, filtered by group and sorted by any measure.

    `table` is that of `ranking.describe`; `pairs` has a pair for each row; `map_of` returns the map
    of a row, uint8 at the mask's size.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        pairs: Sequence[Pair],
        map_of: Callable[[int], Array],
        rows: int = 4,
    ) -> None:
        from ..figures.ranking import GROUPS, called

        self.table, self.pairs, self.map_of, self.rows, self.page = table, pairs, map_of, rows, 0
        measures = [name for name in SORTED_BY if name in table.columns]
        named = [(called(name), name) for name in measures]
        self.by = widgets.Dropdown(options=named, value="iou", description="sort by")
        falling = [("lowest first", True), ("highest first", False)]
        self.ascending = widgets.Dropdown(options=falling, layout={"width": "130px"})
        self.filters = {
            name: widgets.Dropdown(options=["all", *map(str, choices)], description=name)
            for name in GROUPS
            if len(choices := table[name].sort_values().unique()) > 1
        }
        self.back = widgets.Button(description="previous")
        self.on = widgets.Button(description="next")
        self.back.on_click(lambda _: self.turn(-1))
        self.on.on_click(lambda _: self.turn(1))
        controls = [self.by, self.ascending, *self.filters.values()]
        for control in controls:
            control.observe(lambda _: self.turn(-self.page), "value")
        super().__init__(controls)
        self.box.children = (*self.box.children, widgets.HBox([self.back, self.on]))
        self.draw()

    def __repr__(self) -> str:
        return f"Gallery of {len(self.table)} images, page {self.page + 1}"

    def chosen(self) -> list[int]:
        """Return the rows that pass the filters, in order."""
        from ..figures.ranking import filtered

        keep = {name: box.value for name, box in self.filters.items() if box.value != "all"}
        return filtered(self.table, keep, self.by.value, self.ascending.value)

    def turn(self, pages: int) -> None:
        """Turn that many pages, as far as there are any."""
        last = max(len(self.chosen()) - 1, 0) // self.rows
        self.page = min(max(self.page + pages, 0), last)
        self.draw()

    def figure(self) -> Figure:
        """Return the page that is shown as a figure."""
        from ..figures.predictions import read_pair, show_predictions
        from ..figures.ranking import called

        every, by = self.chosen(), self.by.value
        rows = every[self.page * self.rows :][: self.rows]
        self.back.disabled = self.page == 0
        self.on.disabled = (self.page + 1) * self.rows >= len(every)
        files = [read_pair(self.pairs[row]) for row in rows]
        preview = {
            "names": self.table["name"][rows].tolist(),
            "image": [image for image, _ in files],
            "mask": [mask for _, mask in files],
            "probability": [self.map_of(row) for row in rows],
            "notes": [f"{called(by)} {self.table[by][row]:.3f}" * (by != "iou") for row in rows],
        }
        place = f"{self.page * self.rows + 1} to {self.page * self.rows + len(rows)}"
        self.message.value = (
            f"images {place} of {len(every)}" if rows else "no image passes the filters"
        )
        return show_predictions(preview, rows=self.rows, title=f"{place} of {len(every)} images")


class ThresholdSlider(Panel):
    """Cuts one image's map at a threshold that a slider moves; `which` chooses another image."""

    def __init__(
        self,
        image: Array,
        probability: Array,
        mask: Array,
        name: str = "",
        explored: Any = None,
    ) -> None:
        self.arrays, self.name = (image, probability, mask), name
        self.slider = widgets.FloatSlider(
            value=0.5, min=0, max=0.99, step=0.01, description="threshold", continuous_update=False
        )
        self._explored = explored
        self.which = choice_of_images(explored, name) if explored is not None else None
        super().__init__([self.slider, *([self.which] if self.which else [])])
        self.slider.observe(self.draw, "value")
        if self.which:
            self.which.observe(lambda change: self._take(change["new"]), "value")
        self.draw()

    def __repr__(self) -> str:
        return f"ThresholdSlider of {self.name}, at {self.slider.value:.2f}"

    def figure(self) -> Figure:
        """Return the image at the slider's threshold, with its curves."""
        from ..figures.predictions import show_threshold

        return show_threshold(*self.arrays, threshold=self.slider.value, name=self.name)

    def _take(self, row: int) -> None:
        picture, mask, self.name = self._explored.files_of(row)
        self.arrays = (picture, self._explored.map_of(row), mask)
        self.draw()


def gallery(scored: Any, maps: Path | str = "", rows: int = 4) -> Gallery:
    """Return a gallery of an `explore.Explored`, or of a `judge.Judged` and its folder of maps."""
    from ..figures.predictions import counted, fitted
    from ..figures.ranking import describe

    if not maps:
        return Gallery(scored.table, scored.pairs, scored.map_of, rows)

    def map_of(row: int) -> Array:
        pair = scored.pairs[row]
        stored = read_grey(Path(maps) / f"{pair.name}.png")
        return counted(fitted(stored, mask_size(pair)), pair)

    return Gallery(describe(scored.scores.per_image, scored.pairs), scored.pairs, map_of, rows)


def threshold_slider(explored: Any, image: str | int | None = None) -> ThresholdSlider:
    """Return a slider for one image (its name, or row) of an `explore.Explored`, or any other.

    image: None for the worst.
    """
    if image is None:
        image = worst_first(explored)[0]
    picture, mask, name = explored.files_of(image)
    return ThresholdSlider(picture, explored.map_of(image), mask, name, explored)
