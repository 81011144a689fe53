"""A run, live in a notebook: how it is, its curves, its predictions, its log, and its buttons.

Everything shown is read from the run folder, so a dashboard can be opened on any run, at any time,
as often as wished; the buttons only leave requests there. Core ipywidgets alone (7.7 to 8.1).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from ..errors import InputError, TrainingError
from ..figures.curves import panels
from ..figures.live_images import live_images
from ..figures.style import BLUE, GREEN, ORANGE, RED
from ..runs import process
from ..runs.process import Status, start, tail
from ..runs.records import Watch
from ..runs.run import Record, Run
from ..settings.config import Config

FASTEST, SLOWEST = 1.0, 5.0  # seconds between two looks at the folder
LOG_LINES = 8
GREY = "#666666"  # dark enough for white text
COLOUR = {"running": BLUE, "paused": ORANGE, "stopping": ORANGE}
COLOUR |= {"finished": GREEN, "died": RED}
BUTTONS = {  # description: icon, help, and when it makes sense
    "Pause": ("pause", "hold the training after this step", ("running",)),
    "Resume": ("play", "go on from here or from the last save", ("paused", "stopped", "died")),
    "Save": ("save", "save now, and go on as before", ("running", "paused")),
    "Stop": ("stop", "save after this step and end", ("starting", "running", "paused")),
}
BOX = "background:#fff;color:#333;font:13px/1.5 sans-serif;padding:4px 8px;max-width:864px"


class Dashboard:
    """Watch a run, whether it lives or not, and steer it; `run` is a Run or its folder.

    In a notebook it shows itself as the last value of a cell and keeps up with the run, at most
    one redraw a second, until the run ends. Where nobody could press a button it shows the run as
    it is now. `print` gives a line.
    """

    def __init__(self, run: Run | Path | str) -> None:
        folder = run.folder if isinstance(run, Run) else Path(run)
        self.run = Run(folder.resolve())  # runs/latest may name another run one day
        self._watch = Watch(self.run)
        self._lock = threading.Lock()
        self._parts = dict.fromkeys(("head", "curves", "strip", "log"), "")
        self._drawn: list[Record] | None = None  # the records that the curves show
        self._preview: dict[str, Any] = {}  # the arrays that the strip shows
        self._note = ""
        self._widgets: dict[str, Any] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._shown_in: int | None = None  # number of the cell in which `wait` showed the run
        self.refresh()

    def __repr__(self) -> str:
        return f"Dashboard({str(self.run.folder)!r})"

    def __str__(self) -> str:
        self.refresh()
        return self._watch.line()

    @property
    def status(self) -> Status:
        """How the run was at the last look."""
        return self._watch.status

    def pause(self) -> None:
        """Hold the training after its step."""
        self.run.request("pause")

    def resume(self) -> None:
        """Let a paused training go on; start a stopped or dead one from its last save."""
        self.refresh()
        if self.status.name == "paused":
            self.run.request("pause", wanted=False)
        else:
            process.restart(self.run)

    def save(self) -> None:
        """Have the training saved after its step."""
        self.run.request("save")

    def stop(self) -> None:
        """Have the training saved and ended after its step."""
        self.refresh()
        process.stop(self.run, self.status)

    def wait(self) -> Status:
        """Return how the run is once it ended; a notebook shows it meanwhile, as one output.

        The first interrupt (Ctrl-C, the square button) stops the training and waits until it is
        saved; a second one raises KeyboardInterrupt and leaves the training to its end. Raises
        TrainingError when the training died.
        """
        show, asked = self._show_once(), False
        while True:
            try:
                if self.refresh():
                    show()
                if self.status.pid is None:
                    break
                time.sleep(FASTEST)
            except KeyboardInterrupt:
                if asked:
                    raise
                asked = True
                self.stop()
        if self.status.name == "died":
            raise TrainingError(f"{self.status.cause}\n{self._watch.advice()}")
        return self.status

    def close(self) -> None:
        """Take the dashboard off the page; the training goes on."""
        self._closed.set()
        for widget in self._widgets.values():
            widget.close()
        self._widgets = {}

    def refresh(self) -> bool:
        """Read what is new in the folder and show it; say whether there was anything."""
        with self._lock:
            before = dict(self._parts)
            with contextlib.suppress(FileNotFoundError):  # gone between looking and reading
                self._read()
            self._update_widgets()
            return before != self._parts

    def _read(self) -> None:
        watch, parts = self._watch, self._parts
        watch.refresh()
        if watch.records != self._drawn:
            parts["curves"] = panels(
                watch.steps, watch.epochs, total=watch.total_epochs, target=watch.target
            )
            self._drawn = watch.records
        parts["head"] = _head(watch, self._note)
        parts["strip"] = self._strip()
        parts["log"] = _log(self.run)

    # -- in a notebook -----------------------------------------------------------------------

    def _ipython_display_(self) -> None:
        """Show itself, unless this cell waited for the run and shows its end already."""
        from IPython import get_ipython
        from IPython.display import display

        shell = get_ipython()
        if self._shown_in is None or self._shown_in != getattr(shell, "execution_count", None):
            display(self._repr_mimebundle_(), raw=True)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Return widgets where somebody can press them, a picture of now elsewhere, and text."""
        self.refresh()
        text = {"text/plain": self._watch.line()}
        if unattended():
            return text | {"text/html": self._page()}
        if not self._widgets:
            self._build_widgets()
        self._keep_fresh()
        return text | view_of(self._widgets["all"])

    def _page(self) -> str:
        return "".join(self._parts.values())

    def _show_once(self) -> Callable[[], None]:
        """Return a function that puts the run, as it is, into one output of this cell."""
        shell = _kernel_shell()
        if shell is None:
            return lambda: None
        from IPython.display import display

        def bundle() -> dict[str, Any]:
            return {"text/plain": self._watch.line(), "text/html": self._page()}

        self._shown_in = shell.execution_count
        handle = display(bundle(), raw=True, display_id=True)
        return lambda: handle.update(bundle(), raw=True)

    def _build_widgets(self) -> None:
        import ipywidgets as w

        for name in self._parts:
            self._widgets[name] = w.HTML()
        for name, (icon, tooltip, _) in BUTTONS.items():
            layout = w.Layout(width="110px")
            button = w.Button(description=name, icon=icon, tooltip=tooltip, layout=layout)
            button.on_click(self._pressed)
            self._widgets[name] = button
        row = w.HBox([self._widgets[name] for name in BUTTONS])
        head, *rest = (self._widgets[name] for name in self._parts)
        self._widgets["all"] = w.VBox([head, row, *rest])
        self._update_widgets()

    def _update_widgets(self) -> None:
        if self._widgets:
            for name, text in self._parts.items():
                self._widgets[name].value = text  # sent only where it differs
            for name, (_, _, makes_sense) in BUTTONS.items():
                self._widgets[name].disabled = self.status.name not in makes_sense

    def _pressed(self, button: Any) -> None:
        try:
            getattr(self, button.description.lower())()
            self._note = ""
        except (InputError, OSError) as error:
            self._note = str(error)
        self.refresh()
        self._keep_fresh()

    def _keep_fresh(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            arguments = (weakref.ref(self), self._closed)
            self._thread = threading.Thread(target=_refresh_often, args=arguments, daemon=True)
            self._thread.start()

    def _strip(self) -> str:
        """Draw the predictions anew if training has written new ones."""
        preview = self.run.load_preview()
        if preview is self._preview:
            return self._parts["strip"]
        drawn = f'<div style="{BOX}">{live_images(preview)}</div>' if preview else ""
        self._preview = preview  # not before: an interrupt may come while drawing
        return drawn


def view_of(widget: Any) -> dict[str, Any]:
    """Return what shows a widget, as a part of a cell's output."""
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {"application/vnd.jupyter.widget-view+json": view}


def unattended() -> bool:
    """Say whether nobody sits in front of this notebook: then a training cell has to wait.

    The environment decides where it says so: CAMOXPERT_BATCH (1 or 0), or Kaggle's
    KAGGLE_KERNEL_RUN_TYPE. Otherwise the front end does: one that takes no answer to `input()`
    (nbclient, nbconvert, papermill, nbval) has nobody in front of it. A script is attended.
    """
    if batch := os.environ.get("CAMOXPERT_BATCH", ""):
        return batch != "0"
    if os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch":
        return True
    shell = _kernel_shell()
    if shell is None:
        return False
    request = shell.kernel.get_parent("shell") or {}
    return request.get("content", {}).get("allow_stdin", True) is False


def _head(watch: Watch, note: str) -> str:
    """The status in a word, the bar, where it is, what to know and what to do."""
    now, done = watch.status, round(100 * watch.share_done(), 1)
    colour = COLOUR.get(now.name, GREY)
    ink = "#000" if colour == ORANGE else "#fff"
    process = f", process {now.pid}" if now.pid else ""
    folder = f'<span title="{escape(str(watch.run.folder))}">{escape(watch.name)}</span>'
    advice = re.sub("`(.+?)`", r"<code>\1</code>", escape(watch.advice()))
    facts = ", ".join(filter(None, [watch.place(), watch.best(), watch.saved()]))
    warnings = [
        f'<div style="color:{RED};white-space:pre-wrap">{escape(text)}</div>'
        for text in (now.cause, note)
        if text
    ]
    return (
        f'<div style="{BOX}"><span style="background:{colour};color:{ink};padding:1px 8px;'
        f'border-radius:3px;font-weight:600">{now.name}</span> {folder}{process}'
        f'<div role="progressbar" aria-valuenow="{done:g}" aria-valuemin="0" aria-valuemax="100" '
        f'style="background:#ddd;height:8px;margin:5px 0"><div style="background:{colour};'
        f'height:8px;width:{done:g}%"></div></div>{escape(facts)}{"".join(warnings)}'
        f"<div>{advice}</div></div>"
    )


def _log(run: Run) -> str:
    lines = tail(run.folder / "log.txt", LOG_LINES)
    text = escape("\n".join(lines))
    shape = "margin:0;font:11px/1.4 monospace;white-space:pre;overflow-x:auto;color:#333"
    return f'<div style="{BOX}"><b>Log</b><pre style="{shape}">{text}</pre></div>' if lines else ""


def _kernel_shell() -> Any:
    """Return the notebook's shell; None in a script, a terminal or a console."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None


def _refresh_often(reference: weakref.ref[Dashboard], closed: threading.Event) -> None:
    """Refresh until the run ended, or the dashboard is closed or gone; less often while quiet."""
    pause = FASTEST
    while not closed.wait(pause):
        dashboard = reference()
        if dashboard is None:
            return
        try:
            pause = FASTEST if dashboard.refresh() else min(1.5 * pause, SLOWEST)
        except (OSError, ValueError):  # a file system that is away for a while
            pause = SLOWEST
        if dashboard.status.ended and dashboard.status.pid is None:
            return
        del dashboard


def launch(config: Config, *, resume: bool = False, wait: bool | None = None) -> Dashboard:
    """Start the training of `config` in a new process and return its dashboard.

    The training outlives the cell, the browser and the kernel: `Dashboard(folder)` finds it again.
    An empty `checkpoint_dir` becomes runs/DATE-TIME. `resume` lets a run that lives in that folder
    go on from its last save, with the settings of `config`.

    `wait`: return at once (False), or when the training ended (True); the cell then shows one
    output that ends with curves, best value and a text summary, and an interrupt stops the
    training, saved. By default (None) it waits where nobody watches (`dashboard.unattended`).

    Raises InputError when another process trains in that folder (in any of runs/ if none is named),
    or when it holds a run and `resume` is not set; TrainingError when it waited for a training that
    died.
    """
    dashboard = Dashboard(start(config, resume=resume))
    if unattended() if wait is None else wait:
        dashboard.wait()
    return dashboard
