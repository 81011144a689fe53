"""The form's estimate: a button, a card to estimate for, a clock, and a way to call it off."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable

import ipywidgets as widgets

from ..errors import InputError
from ..settings.config import Config
from .measure import Cancelled, measure, measured
from .picker_fields import alarm

HERE = "this machine"
# Where an estimate can be for; `camoxpert train --dry-run --on CARD` knows more.
CARDS = (HERE, "t4x2", "t4", "p100", "l4", "a100", "h100", "rtx3060", "rtx3090", "rtx4090")
LIMIT = 300.0  # seconds; what has not taken a step by then takes days to train


class Estimate:
    """Measures the settings that `config` returns; `row` and `shown` are its widgets.

    One at a time: a second one waits until the first is over.
    """

    def __init__(self, config: Callable[[], Config], limit: float = LIMIT) -> None:
        self._config, self.limit = config, limit
        self._cancel, self._turn = threading.Event(), threading.Lock()
        wide = {"width": "220px"}
        self.button = widgets.Button(description="Estimate memory and time", layout=wide)
        self.card = widgets.Dropdown(options=CARDS, description="on", layout=wide)
        self.stop = widgets.Button(
            description="Cancel", icon="times", layout={"width": "110px", "display": "none"}
        )
        self.shown = widgets.HTML()
        self.row = widgets.HBox([self.button, self.card, self.stop])
        self.button.on_click(lambda button: self._start())
        self.stop.on_click(lambda button: self._cancel.set())

    def text(self, *, again: bool = False) -> str:
        """Return the estimate in words; what was measured of these settings need not be again.

        After `limit` seconds a sentence takes its place. Raises InputError, see `measure`.
        """
        config, card = self._config(), "" if self.card.value == HERE else self.card.value
        with self._turn:
            known = None if again or card else measured(config)
            if known and "text" in known:
                return str(known["text"])
            self._cancel.clear()
            self.stop.layout.display, self.button.disabled = "", True
            began = time.strftime("%H:%M:%S")
            try:
                found = measure(
                    config,
                    card,
                    self.limit,
                    cancel=self._cancel,
                    tick=lambda gone: self._tick(gone, began, card),
                )
                return str(found["text"])
            except TimeoutError as error:
                return (
                    f"not known: {error}. Such a training takes days here. Choose smaller images "
                    "(--img-size), a smaller --backbone or --batch-size, or estimate for a GPU."
                )
            except Cancelled:
                return "not known: the estimate was cancelled."
            finally:
                self.shown.value = ""
                self.stop.layout.display, self.button.disabled = "none", False

    def _tick(self, gone: float, began: str, card: str) -> None:
        what = "The work of a step is counted" if card else "One real step is measured"
        self.shown.value = (
            f"{what} in a process of its own, since {began}: {gone:.0f} s of at most "
            f"{self.limit:.0f} s."
        )

    def _start(self) -> None:
        self.button.disabled = True
        self.thread = threading.Thread(target=self._show, daemon=True)
        self.thread.start()

    def _show(self) -> None:
        try:
            self.shown.value = f"<pre>{html.escape(self.text(again=True))}</pre>"
        except InputError as error:
            self.shown.value = alarm(str(error))
        finally:
            self.button.disabled = False
