"""A run, live in a notebook: how it is, its curves, its predictions, its log, and its buttons.

Everything shown is read from the run folder, so a dashboard can be opened on any run, at any time,
as often as wished; the buttons only leave requests there. Core ipywidgets alone (7.7 to 8.1).
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError, TrainingError
from ..figures.curves import panels
from ..figures.live_images import live_images
from ..figures.style import loss_name
from ..outside.terminal import kernel_shell, paged
from ..runs import process
from ..runs.process import Status
from ..runs.records import Watch
from ..runs.run import Record, Run
from .kept import Keeping, Parts
from .panel_text import BOX, head_of, log_of, table_of
from .shown import cell_name, close_all, take_place, unattended, view_of

FASTEST, SLOWEST = 1.0, 5.0  # seconds between two looks at the folder
BUTTONS = {  # description: icon, help, and when it makes sense
    "Pause": ("pause", "hold the training after this step", ("running",)),
    "Resume": ("play", "go on from here or from the last save", ("paused", "stopped", "died")),
    "Save": ("save", "save now, and go on as before", ("running", "paused")),
    "Stop": ("stop", "save after this step and end", ("starting", "running", "paused")),
}
PARTS = ("head", "curves", "strip", "table", "log")
# By folder: the one whose widgets show it, in however many cells.
_live: weakref.WeakValueDictionary[Path, Dashboard] = weakref.WeakValueDictionary()


class Dashboard(Parts):
    """Watch a run, whether it lives or not, and steer it; `run` is a Run or its folder.

    In a notebook it shows itself as the last value of a cell and keeps up with the run, at most
    one redraw a second. When the run ended, a picture takes its place, which stays in the saved
    notebook. Where nobody could press a button it shows the run as it is now. Several on one run
    share one panel. `print` gives a line.
    """

    def __init__(self, run: Run | Path | str) -> None:
        folder = run.folder if isinstance(run, Run) else Path(run)
        self.run = Run(folder.resolve())  # runs/latest may name another run one day
        self._watch = Watch(self.run)
        self._lock = threading.Lock()
        self._parts = dict.fromkeys(PARTS, "")
        self._drawn: list[Record] | None = None  # the records that the curves show
        self._preview: dict[str, Any] = {}  # the arrays that the strip shows
        self._note, self._noted_at = "", ""  # of a button, and how the run was then
        self._told = ""
        self._widgets: dict[str, Any] = {}
        self._shared: Dashboard | None = None  # whose widgets show this run
        self._outputs: list[Any] = []  # handles of outputs that show the panel
        self._kept: dict[str, Keeping] = {}
        self._frozen = False  # whether the outputs hold a picture of the end
        self._buttons = True  # whether they stand beside what is said of them
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._shown_in: int | None = None  # number of the cell in which `wait` showed the run
        self.refresh()

    def __repr__(self) -> str:
        return f"Dashboard({str(self.run.folder)!r})"

    def __str__(self) -> str:
        self.refresh()
        return paged(self._watch.line())

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
        elif self.status.pid is None or self.status.ended:  # else it goes on already
            process.restart(self.run)

    def tell(self, text: str) -> None:
        """Show a sentence in the panel, for as long as it is shown."""
        self._told = text
        self.refresh()

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
            raise TrainingError(f"{self.status.cause}\n{self._watch.advice(buttons=False)}")
        return self.status

    def close(self) -> None:
        """Take the dashboard off the page; the training goes on."""
        shared = self._shared or self
        shared._closed.set()
        if shared._widgets:
            close_all(shared._widgets["all"])
            close_all(shared._widgets["again"])
        shared._widgets, shared._outputs = {}, []
        if _live.get(self.run.folder) is shared:
            del _live[self.run.folder]

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
        if watch.status.name == "gone":  # what was drawn before stays
            parts["head"] = head_of(watch, [self._told], self._buttons)
            return
        if watch.records != self._drawn:
            how = {"total": watch.total_epochs, "target": watch.target}
            loss = loss_name(self.run.load_json("own"))
            parts["curves"] = panels(watch.steps, watch.epochs, loss=loss, **how)
            self._drawn = watch.records
            parts["table"] = table_of(watch.epochs)
        if watch.status.name != self._noted_at:
            self._note = ""  # it was about how the run was then
        parts["head"] = head_of(watch, [self._told, self._note], self._buttons)
        parts["strip"] = self._strip()
        parts["log"] = log_of(self.run)

    # -- in a notebook -----------------------------------------------------------------------

    def _ipython_display_(self) -> None:
        """Show itself, unless this cell waited for the run and shows its end already."""
        from IPython.display import display

        shell = kernel_shell()
        if self._shown_in is not None and self._shown_in == getattr(shell, "execution_count", None):
            return
        bundle = self._repr_mimebundle_()
        live = self._shared or self
        take_place(live)
        if live._widgets:  # above the picture of the end, whose first lines speak of it
            display({"text/plain": "", **view_of(live._widgets["again"])}, raw=True)
        handle = display(bundle, raw=True, display_id=True)
        if live._widgets:
            live._outputs.append(handle)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """Return widgets where somebody can press them, a picture of now elsewhere, and text."""
        alone = unattended()
        self._buttons = not alone
        self.refresh()
        if alone or (self._over() and self.status.name in ("finished", "gone")):
            return self._picture()
        live = _live.setdefault(self.run.folder, self)
        self._shared = None if live is self else live
        if live is not self and self._told:
            live.tell(self._told)
        if not live._widgets:
            live._build_widgets()
        live._keep_fresh()
        return live._bundle()

    def keep(self, kept: Keeping) -> None:
        """Show `kept` anew when the run ended; of a cell that is run again, the last one."""
        live = self._shared or self
        live._kept[cell_name() or str(id(kept))] = kept
        if not live._over():
            live._keep_fresh()

    def _over(self) -> bool:
        return self.status.ended and self.status.pid is None

    def _picture(self) -> dict[str, Any]:
        return {"text/plain": self._watch.line(), "text/html": self._page()}

    def _bundle(self) -> dict[str, Any]:
        """Return what the outputs hold: the widgets, or what is true when it ended."""
        self._frozen = self._over()
        if self._frozen:
            return self._picture()
        return {"text/plain": self._watch.line(), **view_of(self._widgets["all"])}

    def _settle(self) -> None:
        """Put a picture where the panel was once the run ended, and the panel back if it goes on.

        Cells that show parts of the run show them anew.
        """
        if self._over() == self._frozen:
            return
        bundle = self._bundle() if self._widgets else {}
        self._frozen = self._over()
        for handle in self._outputs:
            handle.update(bundle, raw=True)
        for kept in list(self._kept.values()):
            kept.update()

    def _page(self) -> str:
        return "".join(self._parts[name] for name in PARTS)

    def _show_once(self) -> Callable[[], None]:
        """Return a function that puts the run, as it is, into one output of this cell."""
        shell = kernel_shell()
        if shell is None:
            return partial(_print_news, self._watch, set())
        from IPython.display import display

        self._shown_in, self._buttons = shell.execution_count, False
        handle = display(self._picture(), raw=True, display_id=True)
        return lambda: handle.update(self._picture(), raw=True)

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
        again = w.Button(description="Resume", icon="play", tooltip=BUTTONS["Resume"][1])
        again.on_click(self._pressed)
        self._widgets["again"] = w.VBox([again], layout=w.Layout(display="none"))
        self._update_widgets()

    def _update_widgets(self) -> None:
        if self._widgets:
            for name, text in self._parts.items():
                self._widgets[name].value = text  # sent only where it differs
            for name, (_, _, makes_sense) in BUTTONS.items():
                self._widgets[name].disabled = self.status.name not in makes_sense
            more = self._over() and self.status.name in BUTTONS["Resume"][2]
            self._widgets["again"].layout.display = "" if more else "none"

    def _pressed(self, button: Any) -> None:
        try:
            getattr(self, button.description.lower())()
            self._note = ""
        except (InputError, OSError) as error:
            self._note, self._noted_at = str(error), self.status.name
        self.refresh()
        self._settle()
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
        if dashboard._over():
            dashboard._settle()
            return
        del dashboard


def _print_news(watch: Watch, told: set[tuple[str, int]]) -> None:
    """Print the run's line when it is in another state, or an epoch further."""
    news = watch.status.name, len(watch.epochs)
    if news not in told:
        told.add(news)
        sys.stdout.write(watch.line() + "\n")
        sys.stdout.flush()
