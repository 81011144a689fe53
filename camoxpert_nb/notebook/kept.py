"""Outputs that keep up with a run: what a cell shows now becomes what is true when it ended."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from ..runs.process import tail
from ..runs.run import Run
from .panel_text import COLUMNS, HEADS

Bundle = dict[str, Any]


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
    import base64

    from ..figures.history import show_history
    from ..figures.style import loss_name

    epochs = run.records("epoch")
    if not epochs:
        return _text("No epoch has ended yet: this figure follows when the training ends.")
    settings = run.load_json("config")
    target, loss = settings.get("target_iou"), loss_name(run.load_json("own"))
    figure = show_history(epochs, target=target, steps=run.records("step"), loss=loss)
    drawn = figure._repr_png_()  # type: ignore[attr-defined]
    text = f"the curves of {len(epochs)} epochs"
    return {"text/plain": text, "image/png": base64.b64encode(drawn).decode()}


def log_bundle(run: Run, lines: int) -> Bundle:
    """Return the end of the log."""
    return _text("\n".join(tail(run.folder / "log.txt", lines)) or "No log yet.")


def _text(text: str) -> Bundle:
    return {"text/plain": text, "text/html": f'<pre style="background:none">{escape(text)}</pre>'}
