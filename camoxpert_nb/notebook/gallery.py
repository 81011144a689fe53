"""Widgets to look through results: a gallery to page, a threshold to move, a picture of your own.

Core ipywidgets only, 7.7 to 8.1. Where nobody can press them (a batch run, a script) each shows its
figure instead. PyTorch and matplotlib are imported when something is drawn, not before.
"""

from __future__ import annotations

import base64
import html
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np
from PIL import Image

from ..data.images import Array, read_grey, read_image
from ..data.layouts import Pair
from ..data.masks import mask_size
from ..errors import InputError
from .shown import close_all, take_place, unattended, view_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Panel:
    """Widgets with one picture among them; `box` holds all, `figure` draws the picture."""

    def __init__(self, controls: Sequence[widgets.Widget]) -> None:
        hidden = widgets.Layout(max_width="100%", display="none")  # until there is a picture
        self.picture = widgets.Image(format="png", layout=hidden)
        self.message = widgets.HTML()
        self.box = widgets.VBox([widgets.HBox(controls), self.message, self.picture])

    def figure(self) -> Figure:
        """Return what is shown now as a matplotlib figure."""
        raise NotImplementedError

    def draw(self, *_: Any) -> None:
        """Draw the picture anew; what is wrong is said in its place."""
        try:
            self.picture.value = self.figure()._repr_png_()  # type: ignore[attr-defined]
            self.picture.layout.display = ""
        except InputError as error:
            self.message.value = html.escape(str(error))

    def close(self) -> None:
        """Let go of the widgets."""
        close_all(self.box)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        text = {"text/plain": repr(self)}
        if not unattended():
            take_place(self)
            return text | view_of(self.box)
        drawn = self.figure()._repr_png_()  # type: ignore[attr-defined]
        return text | {"image/png": base64.b64encode(drawn).decode()}


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
        from ..figures.ranking import GROUPS

        self.table, self.pairs, self.map_of, self.rows, self.page = table, pairs, map_of, rows, 0
        measures = table.select_dtypes("number").columns.tolist()
        self.by = widgets.Dropdown(options=measures, value="iou", description="sort by")
        falling = [("lowest first", True), ("highest first", False)]
        self.ascending = widgets.Dropdown(options=falling, layout={"width": "130px"})
        self.filters = {
            name: widgets.Dropdown(options=["all", *map(str, choices)], description=name)
            for name in GROUPS
            if len(choices := table[name].sort_values().unique()) > 1
        }
        back, on = widgets.Button(description="previous"), widgets.Button(description="next")
        back.on_click(lambda _: self.turn(-1))
        on.on_click(lambda _: self.turn(1))
        controls = [self.by, self.ascending, *self.filters.values()]
        for control in controls:
            control.observe(lambda _: self.turn(-self.page), "value")
        super().__init__(controls)
        self.box.children = (*self.box.children, widgets.HBox([back, on]))
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

        every, by = self.chosen(), self.by.value
        rows = every[self.page * self.rows :][: self.rows]
        files = [read_pair(self.pairs[row]) for row in rows]
        preview = {
            "names": self.table["name"][rows].tolist(),
            "image": [image for image, _ in files],
            "mask": [mask for _, mask in files],
            "probability": [self.map_of(row) for row in rows],
            "notes": [f"{by} {self.table[by][row]:.3f}" * (by != "iou") for row in rows],
        }
        place = f"{self.page * self.rows + 1} to {self.page * self.rows + len(rows)}"
        self.message.value = (
            f"images {place} of {len(every)}" if rows else "no image passes the filters"
        )
        return show_predictions(preview, rows=self.rows, title=f"{place} of {len(every)} images")


class ThresholdSlider(Panel):
    """Cuts one image's map at a threshold that a slider moves."""

    def __init__(self, image: Array, probability: Array, mask: Array, name: str = "") -> None:
        self.arrays, self.name = (image, probability, mask), name
        self.slider = widgets.FloatSlider(
            value=0.5, min=0, max=0.99, step=0.01, description="threshold", continuous_update=False
        )
        super().__init__([self.slider])
        self.slider.observe(self.draw, "value")
        self.draw()

    def __repr__(self) -> str:
        return f"ThresholdSlider of {self.name}, at {self.slider.value:.2f}"

    def figure(self) -> Figure:
        """Return the image at the slider's threshold, with its curves."""
        from ..figures.predictions import show_threshold

        return show_threshold(*self.arrays, threshold=self.slider.value, name=self.name)


class OwnPicture(Panel):
    """Takes pictures from the reader's computer and gives back overlay, mask and map.

    The run's network is loaded at the first picture. `results` holds (name, image, map) of each.
    """

    def __init__(self, run: Any, device: str = "auto") -> None:
        self.run, self.device, self.results = run, device, list[tuple[str, Array, Array]]()
        self._predictor: Any = None
        self.upload = widgets.FileUpload(accept="image/*", multiple=True, description="picture")
        super().__init__([self.upload])
        self.upload.observe(self._take, "value")

    def __repr__(self) -> str:
        return f"OwnPicture for {self.run}, {len(self.results)} pictures so far"

    def predict(self, path: Path | str) -> Figure:
        """Return the picture in a file with what was found on it."""
        from ..figures.explore import open_predictor

        self._predictor = self._predictor or open_predictor(self.run, self.device)
        path, found = Path(path), self._predictor.predict_one(path).probability
        self.results.append((path.name, read_image(path), found))
        return self.figure()

    def figure(self) -> Figure:
        """Return the last picture with what was found on it."""
        from ..figures.canvas import empty_picture
        from ..figures.predictions import show_overlay

        if not self.results:
            return empty_picture("Your own picture", "None was given yet.")
        name, image, probability = self.results[-1]
        return show_overlay(image, probability, name=name)

    def _take(self, change: dict[str, Any]) -> None:
        self.results, self.message.value, lines = [], "looking...", list[str]()
        for name, content in uploaded(change["new"]):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / Path(name).name
                path.write_bytes(content)
                try:
                    self.predict(path)
                    lines.append(downloads(*self.results[-1]))
                except InputError as error:
                    lines.append(f"<p>{html.escape(str(error))}</p>")
        self.message.value, self.picture.value = "".join(lines), b""
        if self.results:
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


def threshold_slider(explored: Any, image: str | int = 0) -> ThresholdSlider:
    """Return a slider for one image (its name, or row) of an `explore.Explored`."""
    picture, mask, name = explored.files_of(image)
    return ThresholdSlider(picture, explored.map_of(image), mask, name)


def own_picture(run: Any, device: str = "auto") -> OwnPicture:
    """Return a field for the reader's own pictures; `run`: a run or its folder."""
    return OwnPicture(run, device)


def uploaded(value: Any) -> list[tuple[str, bytes]]:
    """Return name and content of what a FileUpload holds, in ipywidgets 7 (dict) or 8 (tuple)."""
    if isinstance(value, dict):
        return [(name, bytes(each["content"])) for name, each in value.items()]
    return [(each["name"], bytes(each["content"])) for each in value]


def downloads(name: str, image: Array, probability: Array) -> str:
    """Return links to overlay, mask (0 and 255) and map of a picture, as HTML without files."""
    from ..figures.predictions import overlay

    found, stem = probability > 127, html.escape(Path(name).stem)
    files = {
        "overlay": overlay(image, found),
        "mask": found.astype(np.uint8) * np.uint8(255),
        "map": probability,
    }
    links = [
        f'<a download="{stem}_{kind}.png" href="{_data_uri(array)}">{kind}</a>'
        for kind, array in files.items()
    ]
    share = f"{found.mean():.1%} of the picture above probability 0.5"
    return f"<p><b>{html.escape(name)}</b>: {share}. Download {', '.join(links)}.</p>"


def _data_uri(array: Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
