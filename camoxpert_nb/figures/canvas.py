"""What matplotlib figures share: size, style, an empty one, a table of numbers.

Figures are objects that pyplot never sees: nothing stays open, no backend is chosen, and the same
code draws in a notebook, in a script and on a machine without a display.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..outside.paths import with_ending
from ..outside.refused import naming, sentence
from ..settings.config import MIXED
from .style import GREY

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.titlesize": 11,
    "text.usetex": False,  # whatever a user's own file says: names of files are no TeX
}
FORMATS = (".png", ".pdf", ".svg")
WIDTH = 10.0  # inches: about 1000 px, a notebook's width

Names = Sequence[str]
Floats = NDArray[np.float64]


class Picture(Figure):
    """A Figure that a notebook shows by itself, although no pyplot backend was set up for it."""

    def suptitle(self, t: str, **kwargs: Any) -> Any:
        """Write the figure's title; names of files in it are no formulas."""
        return super().suptitle(plain(t), **kwargs)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


class Sentence(Picture):
    """A picture that is nothing but a sentence: a notebook shows that as text."""

    said: tuple[str, str] = "", ""  # title and sentence

    def _ipython_display_(self) -> None:
        from IPython.display import display

        title, text = self.said
        page = f"<p><b>{escape(title)}</b><br>{escape(text)}</p>"
        display({"text/plain": f"{title}\n{text}", "text/html": page}, raw=True)


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure, by the path's suffix as PNG, PDF or SVG, else as PNG; return the path."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        path = with_ending(path, ".png")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    return path


Drawn = TypeVar("Drawn")


def try_to_draw(draw: Callable[[], Drawn], say: Callable[[str], None], what: str) -> Drawn | None:
    """Return what `draw` makes; where it cannot, say so in one line: no picture ends a command."""
    try:
        return draw()
    except Exception as error:  # of fonts, of texts, of the disk: matplotlib has no common class
        reason = sentence(error) if isinstance(error, OSError) else str(error) or repr(error)
        say(f"  {what}: left out ({reason.strip().splitlines()[0]})")
        return None


def plain(text: object) -> str:
    """Return a text as a figure shows it: `$` is no formula, what cannot be printed is a `?`."""
    shown = "".join(each if _printable(each) else "?" for each in str(text))
    return re.sub(r"(?<!\\)\$", r"\\$", shown)


def _printable(letter: str) -> bool:
    return letter == "\n" or unicodedata.category(letter) not in ("Cc", "Cs", "Cn")


def empty_picture(title: str, text: str) -> Figure:
    """Return a figure of one sentence, for when there is nothing to draw."""
    figure = Sentence(figsize=(WIDTH, 2), layout="constrained")
    figure.said = title, text
    ax = figure.subplots()
    ax.set_axis_off()
    write_note(ax, text)
    figure.suptitle(title)
    return figure


def stage_names(count: int) -> list[str]:
    """Return a name for each of the decoder's mixtures, shallow to deep."""
    known = len(MIXED) == count
    return [f"stride {MIXED[n]}" if known else f"mixture {n + 1}" for n in range(count)]


def draw_table(ax: Axes, values: Floats, rows: Names, columns: Names, signed: bool = False) -> None:
    """Draw (rows, columns) of per cent as coloured cells with their numbers; NaN stays empty."""
    most = float(np.nanmax(np.abs(values), initial=1))
    ax.imshow(
        values, cmap="PuOr" if signed else "cividis", vmin=-most * signed, vmax=most, aspect="auto"
    )
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = abs(value) > 0.6 * most if signed else value < 0.6 * most
            text = f"{round(value):+d}" if signed else f"{value:.0f}"
            ax.text(column, row, text, ha="center", va="center", color="w" if dark else "k")
    ax.set_xticks(
        range(len(columns)), columns, fontsize=8, rotation=30, ha="right", rotation_mode="anchor"
    )
    ax.set_yticks(range(len(rows)), [plain(row) for row in rows])
    ax.grid(False)


def write_note(ax: Axes, text: str) -> None:
    """Write a sentence in the middle of axes that have nothing to show."""
    ax.text(0.5, 0.5, plain(text), transform=ax.transAxes, ha="center", va="center", color=GREY)
    ax.set_yticks([])
