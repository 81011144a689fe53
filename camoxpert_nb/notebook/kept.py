"""Outputs that keep up with a run: what a cell shows now becomes what is true when it ended."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..outside.terminal import PAGE, folded
from ..runs.process import status, tail
from ..runs.records import Watch
from ..runs.run import Run
from .panel_text import COLUMNS, HEADS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Bundle = dict[str, Any]


class Keeping(Protocol):
    """What can be shown anew in its place."""

    def update(self) -> None:
        """Show it as it is now."""


class Kept:
    """A part of a run as one output of a cell; `keep` hears of it, to show it anew at the end."""

    def __init__(self, keep: Callable[[Kept], None], bundle: Callable[[], Bundle]) -> None:
        self.keep, self.bundle = keep, bundle
        self._handle: Any = None

    def __repr__(self) -> str:
        return str(self.bundle()["text/plain"])

    def _ipython_display_(self) -> None:
        from IPython.display import display

        self._handle = display(self.bundle(), raw=True, display_id=True)
        self.keep(self)

    def update(self) -> None:
        """Show it as it is now, in the same place."""
        if self._handle is not None:
            self._handle.update(self.bundle(), raw=True)


class Parts:
    """Parts of a run as outputs of cells: each shows what is true then, and anew at the end."""

    run: Run

    def keep(self, kept: Keeping) -> None:
        """Show `kept` anew when the run ended."""
        raise NotImplementedError

    def line(self) -> Kept:
        """Return how the run is, in a line."""
        return Kept(self.keep, partial(line_bundle, self.run))

    def table(self) -> Kept:
        """Return the epochs in numbers."""
        return Kept(self.keep, partial(table_bundle, self.run))

    def figure(self) -> Kept:
        """Return the curves as one figure."""
        return Kept(self.keep, partial(figure_bundle, self.run))

    def log(self, lines: int = 40) -> Kept:
        """Return the end of the log."""
        return Kept(self.keep, partial(log_bundle, self.run, lines))

    def how_to_go_on(self) -> Kept:
        """Return what to write, or on Kaggle what to click, so that the run goes on."""
        return Kept(self.keep, partial(way_on_bundle, self.run))

    def runs(self, *others: Run | Path | str) -> Kept:
        """Return these runs (else all that are here) as one figure, with this one's end in it."""
        return Kept(self.keep, partial(runs_bundle, self.run, others))


def line_bundle(run: Run) -> Bundle:
    """Return how it is, in a line."""
    return _of_now(run, Watch(run).line())


def way_on_bundle(run: Run) -> Bundle:
    """Return what to write or click so that it goes on, or that there is nothing to do."""
    from ..kaggle.earlier import how_to_go_on

    return _of_now(run, how_to_go_on(run))


def runs_bundle(run: Run, others: Sequence[Run | Path | str]) -> Bundle:
    """Return these runs, else all that are here, as one figure."""
    from ..figures.several import show_runs

    # No HTML beside it: a page would show that and not the picture.
    plain = _of_now(run, "validation IoU and loss of several runs")["text/plain"]
    return {"text/plain": plain, **_picture(show_runs(others))}


def table_bundle(run: Run) -> Bundle:
    """Return all epochs in numbers."""
    import pandas as pd

    epochs = run.records("epoch")
    if not epochs:
        return _text("No epoch has ended yet: this table follows when the training ends.")
    frame = pd.DataFrame(epochs).reindex(columns=[*COLUMNS]).dropna(axis=1, how="all").round(3)
    frame = frame.rename(columns=HEADS)
    return {"text/plain": frame.to_string(index=False), "text/html": frame.to_html(index=False)}


def figure_bundle(run: Run) -> Bundle:
    """Return the curves as one figure."""
    from ..figures.history import history_of

    count = len(run.records("epoch"))
    if not count:
        return _text("No epoch has ended yet: this figure follows when the training ends.")
    return {"text/plain": f"the curves of {count} epochs", **_picture(history_of(run))}


def log_bundle(run: Run, lines: int) -> Bundle:
    """Return the end of the log."""
    shown = [folded(line, PAGE) for line in tail(run.folder / "log.txt", lines)]
    return _text("\n".join(shown) or "No log yet.")


def _picture(figure: Figure) -> Bundle:
    drawn = figure._repr_png_()  # type: ignore[attr-defined]
    return {"image/png": base64.b64encode(drawn).decode()}


def _of_now(run: Run, text: str) -> Bundle:
    """Return a text, with a word on when it was true where that is not for good."""
    if status(run).trains:
        text += time.strftime("\n(So it was at %H:%M:%S; this follows when the training ends.)")
    return _text(text)


def _text(text: str) -> Bundle:
    look = "background:none;white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"
    return {"text/plain": text, "text/html": f'<pre style="{look}">{escape(text)}</pre>'}
