"""What a run came to, by name: for people who look at one in Python."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import KitError
from ..outside.foreign import listed
from ..settings.config import Config
from .history import kept_epoch


class Result:
    """The results of a run, read from its folder; None or nothing while they are not there."""

    folder: Path
    config_path: Path

    def load_json(self, name: str) -> dict[str, Any]:
        """Return what `name`.json holds."""
        raise NotImplementedError

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the records of the history."""
        raise NotImplementedError

    @property
    def config(self) -> Config:
        """Return the settings it was trained with; InputError without any."""
        return Config.load(self.config_path)

    @property
    def best_iou(self) -> float | None:
        """Return the mean IoU of its best weights on its validation images, 0...1."""
        return self._best().get("iou")

    @property
    def best_epoch(self) -> int | None:
        """Return the epoch of its best weights, from 1."""
        return self._best().get("epoch")

    @property
    def epochs(self) -> int:
        """Return how many epochs are done."""
        return len(self.records("epoch"))

    @property
    def finished(self) -> bool:
        """Say whether it was trained to its end; False also while it trains and after a stop."""
        ends = [each["kind"] for each in self.records() if each["kind"] in ("start", "stop", "end")]
        return ends[-1:] == ["end"]

    @property
    def own_parts(self) -> dict[str, str]:
        """Return the names of the user's own parts it was trained with: loss, augment, optimizer.

        Such a run goes on by `fit` alone.
        """
        return self.load_json("own")

    def _best(self) -> dict[str, Any]:
        if self.finished and (best := self.load_json("summary").get("best")):
            return dict(best)
        epochs = self.records("epoch")
        kept = kept_epoch(epochs)
        return {} if kept is None else {"epoch": epochs[kept.place]["epoch"], "iou": kept.iou}

    def _facts(self) -> Iterable[tuple[str, str]]:
        """Yield what a notebook shows, by name."""
        yield "folder", str(self.folder)
        if not self.records():
            yield "state", "nothing is trained here yet"
            return
        if self.best_iou is not None:
            yield "best validation IoU", f"{self.best_iou:.3f} at epoch {self.best_epoch}"
        state = "finished" if self.finished else "not finished: fit(run, resume=True) goes on"
        yield "epochs", f"{self.epochs} of {self.config.epochs}, {state}"
        if self.own_parts:
            yield "your own", listed(self.own_parts)

    def __repr__(self) -> str:
        known = ""
        with contextlib.suppress(KitError, OSError):
            if self.records():
                best = "None" if self.best_iou is None else f"{self.best_iou:.3f}"
                known = f", best_iou={best}, epochs={self.epochs}, finished={self.finished}"
        return f"Run({str(self.folder)!r}{known})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._shown()
        )
        return f"<table>{rows}</table>"

    def _shown(self) -> list[tuple[str, str]]:
        try:
            return list(self._facts())
        except KitError as error:  # a file that cannot be read
            return [("folder", str(self.folder)), ("state", str(error))]
