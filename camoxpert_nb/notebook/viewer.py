"""One picture with controls above it, and a choice of the image that a figure is drawn of."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ..errors import InputError
from .shown import close_all, take_place, unattended, view_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIEWS = ("overlay", "levels", "routing", "removed")  # what `explore.Explored` draws of an image


class Panel:
    """Widgets with one picture among them; `box` holds all, `figure` draws the picture."""

    def __init__(self, controls: Sequence[widgets.Widget]) -> None:
        # Hidden until there is a picture, which then has its own size: stretched it would blur.
        hidden = widgets.Layout(
            max_width="100%", width="auto", align_self="flex-start", display="none"
        )
        self.picture = widgets.Image(format="png", layout=hidden)
        self.message = widgets.HTML()
        row = widgets.HBox(controls, layout=widgets.Layout(flex_flow="row wrap"))
        self.box = widgets.VBox([row, self.message, self.picture])

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


class ImageViewer(Panel):
    """A figure of one image of an `explore.Explored`; `which` chooses the image by its row.

    view: one of VIEWS. Of two viewers on one data set each has its own choice.
    """

    def __init__(self, explored: Any, view: str, image: str | int | None = None) -> None:
        if view not in VIEWS:
            raise InputError(f"no view '{view}' of an image: choose {', '.join(VIEWS)}.")
        self.explored, self.view = explored, view
        self.which = choice_of_images(explored, image)
        super().__init__([self.which])
        self.which.observe(self._change, "value")
        self.draw()

    def __repr__(self) -> str:
        return f"{self.view} of {self.explored.table['name'][self.which.value]}"

    def figure(self) -> Figure:
        """Return the figure of the chosen image."""
        figure: Figure = getattr(self.explored, self.view)(self.which.value)
        return figure

    def _change(self, change: Any) -> None:
        self.message.value = "drawing ..."
        self.draw()
        self.message.value = ""


def image_viewer(explored: Any, view: str, image: str | int | None = None) -> ImageViewer:
    """Return a figure of one image with a choice of the others.

    view: "overlay", "levels", "routing" or "removed", as `explore.Explored` draws them. image: the
    first one, by name or row; None: the worst, which stands first in the choice.
    """
    return ImageViewer(explored, view, image)


def worst_first(explored: Any) -> list[int]:
    """Return the rows of an `explore.Explored` from worst to best; last those without an object."""
    scores = explored.table["iou"].sort_values(na_position="last", kind="stable")
    rows: list[int] = scores.index.tolist()
    return rows


def choice_of_images(explored: Any, image: str | int | None = None) -> widgets.Dropdown:
    """Return a drop-down of the images of an `explore.Explored`, from worst to best; its value is
    the row. image: what is chosen at first, by name or row; None: the worst.
    """
    table = explored.table
    rows = worst_first(explored)
    names = [f"{table['name'][row]}, IoU {table['iou'][row]:.2f}" for row in rows]
    return widgets.Dropdown(
        options=list(zip(names, rows, strict=True)),
        value=rows[0] if image is None else explored.row_of(image),
        description="image",
        layout={"width": "480px", "max_width": "100%"},
    )
