"""Outputs that keep up with a run: what a cell shows now becomes what is true when it ended."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from ..runs.process import tail
from .panel_text import COLUMNS

if TYPE_CHECKING:
    from .dashboard import Dashboard

Bundle = dict[str, Any]


class Kept:
    """A part of a run as one output of a cell; its dashboard shows it anew when the run ended."""

    def __init__(self, dashboard: Dashboard, bundle: Callable[[], Bundle]) -> None:
        self.dashboard, self.bundle = dashboard, bundle
        self._handle: Any = None

    def __repr__(self) -> str:
        return str(self.bundle()["text/plain"])

    def _ipython_display_(self) -> None:
        from IPython.display import display

        self._handle = display(self.bundle(), raw=True, display_id=True)
        self.dashboard.keep(self)

    def update(self) -> None:
        """Show it as it is now, in the same place."""
        if self._handle is not None:
            self._handle.update(self.bundle(), raw=True)


def table_bundle(dashboard: Dashboard) -> Bundle:
    """Return all epochs in numbers."""
    import pandas as pd

    epochs = dashboard.run.records("epoch")
    if not epochs:
        return _text("No epoch has ended yet: this table follows when the training ends.")
    frame = pd.DataFrame(epochs).reindex(columns=[*COLUMNS]).dropna(axis=1, how="all").round(3)
    return {"text/plain": frame.to_string(index=False), "text/html": frame.to_html(index=False)}


def figure_bundle(dashboard: Dashboard) -> Bundle:
    """Return the curves as one figure."""
    import base64

    from ..figures.history import show_history

    epochs = dashboard.run.records("epoch")
    if not epochs:
        return _text("No epoch has ended yet: this figure follows when the training ends.")
    settings = dashboard.run.load_json("config")
    figure = show_history(epochs, target=settings.get("target_iou"))
    drawn = figure._repr_png_()  # type: ignore[attr-defined]
    text = f"the curves of {len(epochs)} epochs"
    return {"text/plain": text, "image/png": base64.b64encode(drawn).decode()}


def log_bundle(dashboard: Dashboard, lines: int) -> Bundle:
    """Return the end of the log."""
    return _text("\n".join(tail(dashboard.run.folder / "log.txt", lines)) or "No log yet.")


def _text(text: str) -> Bundle:
    return {"text/plain": text, "text/html": f'<pre style="background:none">{escape(text)}</pre>'}
