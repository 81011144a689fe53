"""A choice of the runs that are here: where, from when, how far, how good."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from ..runs.latest import LATEST
from ..runs.place import in_words, list_runs, usual_places, when_text
from ..runs.run import Run
from .dashboard import Dashboard
from .picker_fields import muted, table
from .shown import close_all, take_place, unattended, view_of

GOING = ("starting", "running", "paused", "stopping")
HEAD = ("run", "state", "epochs", "best IoU", "last sign of life", "data")


class RunChoice:
    """The runs of a folder, the newest first; `run` is the one that is chosen.

    Shown in a notebook it is a list to choose from, above a table. Cells below take `run` when they
    are run.
    """

    def __init__(self, chosen: Path | str = "", folder: Path | str = "") -> None:
        self._folder, self._handle = folder, None
        self._watched: list[Dashboard] = []  # of runs that had not ended when this was shown
        self.which = widgets.Dropdown(
            description="run", layout={"width": "640px", "max_width": "100%"}
        )
        hint = muted("After another choice run the cells below again.")
        self._below = widgets.HTML()
        self.box = widgets.VBox([self.which, widgets.HTML(hint), self._below])
        self._look(chosen)

    def _look(self, chosen: Path | str) -> None:
        """List the runs that are here now, with this one chosen."""
        self.rows = list_runs([Path(self._folder)] if self._folder else usual_places())
        first = Run(chosen).folder.resolve() if str(chosen) else None
        options = [(_label(row), row["folder"]) for row in self.rows]
        here = {Path(row["folder"]).resolve(): row["folder"] for row in self.rows}
        if first is not None and first not in here:  # named, and somewhere else, or not there yet
            options.insert(0, (str(chosen), str(chosen)))
        value = here.get(first, str(chosen)) if first else (options[0][1] if options else None)
        self.which.options = options  # takes the first
        self.which.value = value
        self._below.value = self._table()

    @property
    def run(self) -> Run:
        """The chosen run; runs/latest where there is none yet."""
        return Run(self.which.value or f"runs/{LATEST}")

    def __repr__(self) -> str:
        lines = [f"{name:<28}{rest}" for name, rest in map(_plain, self.rows)]
        return "\n".join([f"chosen: {self.run.folder}", *lines])

    def close(self) -> None:
        """Let go of the widgets; `run` stays."""
        self._watched, self._handle = [], None
        close_all(self.box)

    def update(self) -> None:
        """Show the runs as they are now, in the same place; what is chosen stays."""
        if self._handle is not None:
            self._look(self.which.value or "")
            self._handle.update(self._bundle(), raw=True)

    def _table(self) -> str:
        return table([_cells(row) for row in self.rows], HEAD) if self.rows else "No run here yet."

    def _ipython_display_(self) -> None:
        """Show itself, and anew whenever one of the runs that are trained now ends."""
        if not unattended():
            take_place(self)
        self._handle = display(self._bundle(), raw=True, display_id=True)
        going = [row["folder"] for row in self.rows if row["state"] in GOING]
        self._watched = [Dashboard(folder) for folder in going]
        for each in self._watched:
            each.keep(self)

    def _bundle(self) -> dict[str, Any]:
        chosen = f"<p>chosen: {html.escape(str(self.run.folder))}</p>"
        still = {"text/plain": repr(self), "text/html": chosen + self._table()}
        if unattended():
            return still
        return still | view_of(self.box)


def choose_run(chosen: Path | str = "", folder: Path | str = "") -> RunChoice:
    """Return a choice of the runs in `folder` (else runs/); `chosen` is taken at first.

    Without `chosen` that is the newest.
    """
    return RunChoice(chosen, folder)


def _cells(row: dict[str, Any]) -> list[str]:
    said = in_words(row)
    said["data"] = row.get("note") or said["data"]
    return [said[name] for name in ("run", "state", "epochs", "best IoU", "when", "data")]


def _plain(row: dict[str, Any]) -> tuple[str, str]:
    name, *rest = _cells(row)
    return name, "  ".join(filter(None, rest))


def _label(row: dict[str, Any]) -> str:
    best = "no score yet" if row["best_iou"] is None else f"IoU {row['best_iou']:.3f}"
    return f"{row['folder']}: {row['state']}, {best}, {when_text(row['when'])}"
