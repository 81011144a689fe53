"""How a training looks in a notebook's cell: one output that is renewed, however long it takes."""

from __future__ import annotations

import io
import time
from typing import Any

from ..outside.terminal import Part, fitted
from ..training.console import Console

WIDTH = 100  # columns of the moving line
EPOCHS = 8  # lines of epochs in sight; the run's log.txt has all
EVERY = 0.5  # seconds between two renewals
TOLD = ("run ", "device ", "data ", "backbone ", "epochs ", "your own ")  # rows of the banner


class CellConsole(Console):
    """Show head, notes, the last epochs and the moving line in one output."""

    def __init__(self, experts: tuple[str, ...]) -> None:
        super().__init__(experts, stream=io.StringIO())
        self._moving = True
        self._lines: list[str] = []
        self._line = ""
        self._output: Any = None

    def say(self, text: str) -> None:
        """Add lines, and log them."""
        super().say(text)
        self._lines += _worth_showing(text.splitlines())
        self._line = ""
        self._renew()

    def _due(self, last: bool = False) -> bool:
        now = time.monotonic()
        if now - self._drawn < EVERY and not last:
            return False
        self._drawn = now
        return True

    def _draw(self, *parts: Part) -> None:
        self._line = fitted(parts, WIDTH)
        self._renew()

    def _renew(self) -> None:
        from IPython.display import display

        epochs = [line for line in self._lines if line.startswith("epoch ")]
        hidden = set(epochs[:-EPOCHS])
        shown = [line for line in self._lines if line not in hidden]
        if hidden:
            first = next(place for place, line in enumerate(shown) if line.startswith("epoch "))
            shown.insert(first, f"... {len(hidden)} epochs before: log.txt in the run's folder")
        text = "\n".join([*shown, *filter(None, [self._line])])
        bundle = {"text/plain": text}
        if self._output is None:
            self._output = display(bundle, raw=True, display_id=True)
        else:
            self._output.update(bundle, raw=True)


def _worth_showing(lines: list[str]) -> list[str]:
    """Return the lines that a cell has room for: of what trains its gist, of epochs the scores."""
    if len(lines) > 20:  # the banner
        return [line for line in lines if line.startswith((*TOLD, "NOTE", "WARNING", "CamoXpert"))]
    told = [line for line in lines if line.strip() and not line.startswith(" " * 10)]
    return [line for line in told if not line.endswith(".png")]  # lie in the run's folder
