"""A training as a process of its own: start it, end it, ask how it is.

A started training has a session of its own, so it survives the kernel, the browser and the shell
that started it. What it says on its error stream is in stderr.txt of its run folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outside.paths import make_unique
from ..outside.reading import ordinary
from ..settings.checks import flag_of
from ..settings.config import Config, as_flags, differences
from .history import ENDS
from .holder import noted_as, this_machine
from .run import REQUESTS, RUNS, Run
from .whole import in_place

ASKED = {"stop": "stopping", "pause": "paused"}  # requests, and how a run is meanwhile
# A child that ended looks alive to `kill -0` until its parent asks for its exit code.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Status:
    """How a run is: "empty", "starting", "running", "paused", "stopping", "stopped", "finished",
    "died" or "gone" (its folder was removed), the training process if it lives, and why it died.
    """

    name: str
    pid: int | None = None
    cause: str = ""

    @property
    def ended(self) -> bool:
        """Say whether nothing more will happen by itself."""
        return self.name in ("stopped", "finished", "died", "gone")

    @property
    def trains(self) -> bool:
        """Say whether a process is at it, paused or about to stop too."""
        return self.pid is not None and not self.ended


def new_folder(before: str = "") -> Path:
    """Make runs/DATE-TIME, with `before` before the date, and return it.

    No other run has it: of several that start in one second each gets another one.
    """
    wanted = RUNS / f"{before}{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        return make_unique(wanted)
    except OSError as error:
        raise InputError(
            f"{wanted} cannot be made for the run ({error.strerror or error}). Name a folder that "
            "can be written: --checkpoint-dir."
        ) from error


def discard_empty(folder: Path) -> None:
    """Remove a new folder in which nothing came to be."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def discard_untrained(folder: Path) -> None:
    """Remove a new folder in which nothing was trained, with what only tells of the attempt.

    A folder that holds anything else, as settings, history or a checkpoint, stays as it is.
    """
    with contextlib.suppress(OSError):
        found = {path.name for path in folder.iterdir()}
        if found <= {"failure.json", "process.json", "lock.json", *REQUESTS}:
            for name in found:
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


@contextlib.contextmanager
def begun(folder: Path, *, new: bool) -> Iterator[None]:
    """Remove `folder`, if it is `new`, where what is done meanwhile ends before it trained."""
    try:
        yield
    except BaseException:  # a Ctrl-C while images are decoded, too
        if new:
            discard_untrained(folder)
        raise


def start(config: Config, *, resume: bool = False) -> Run:
    """Start a training process and return its run at once.

    With `resume` a run that lives in `config.checkpoint_dir` goes on, with the settings of
    `config`. Raises InputError when the folder is being trained in, or when it holds a run and
    `resume` was not asked for; where no folder is named, when any run in runs/ is being trained.
    """
    for busy in [Run(config.checkpoint_dir)] if config.checkpoint_dir else _alive_runs():
        _refuse_second(busy)  # a cell that is run again shall not start a second training
    run = Run(config.checkpoint_dir or new_folder())
    if run.exists() and not resume:
        raise InputError(
            f"{run.folder} already holds a run. Look at it: Dashboard('{run.folder}'). Go on with "
            "it: launch(config, resume=True). Or start another one: "
            "launch(config.replace(checkpoint_dir='')) chooses a new folder."
        )
    config = config.replace(checkpoint_dir=str(run.folder))
    changes: dict[str, Any] = {}
    if run.exists():
        changes = differences(config, Config.load(run.config_path))
        changes.pop("preset", None)
    else:
        run.folder.mkdir(parents=True, exist_ok=True)
        run.save_config(config)
    _spawn(run, as_flags(changes))
    return run


def going_on(config: Config) -> Run | None:
    """Return the run that is being trained where `start` would train `config`, or None.

    Where no folder is named that is any in runs/: of several one with these settings, or the one
    that began last.
    """
    here = [Run(config.checkpoint_dir)] if config.checkpoint_dir else _alive_runs()
    alive = [run for run in here if status(run).trains]
    began = {run: run.process().get("started", 0.0) for run in alive}
    return max(alive, key=lambda run: (not other_settings(config, run), began[run]), default=None)


def other_settings(config: Config, run: Run, here: str = "here") -> str:
    """Return, in words, what a run trains otherwise than `config` says; "" where nothing is.

    here: what to call `config`.
    """
    if not run.config_path.exists():
        return ""
    own = Config.load(run.config_path)
    asked = config.replace(checkpoint_dir=own.checkpoint_dir, preset=own.preset)
    theirs = own.as_dict()
    return ", ".join(
        f"{flag_of(name)} {as_word(theirs[name])} ({here} {as_word(value)})"
        for name, value in differences(asked, own).items()
        if value is not None
        and (value or not name.endswith("lr_batch"))  # else decided at the start
    )


def as_word(value: Any) -> str:
    """Return a setting's value as one word of a sentence."""
    return "none" if value in (None, "") else str(value)


def restart(run: Run) -> None:
    """Let a stopped or dead run go on from its last save; InputError if it cannot."""
    _refuse_second(run)
    older = run.folder / "launch.json"  # the settings of a run that an older kit started
    if older.exists() and not run.config_path.exists():
        older.rename(run.config_path)
    if not run.config_path.exists():
        raise InputError(f"{run.folder} holds no run. Start one there: launch(config).")
    _spawn(run, [])


def stop(run: Run, now: Status) -> None:
    """Ask the training to save and end; one that is still starting has nothing to save."""
    run.request("stop")
    if now.name == "starting" and now.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(now.pid, signal.SIGTERM)


def status(run: Run) -> Status:
    """Say how the run is."""
    for each in _children:
        each.poll()
    last, known = run.newest(), run.process()
    trainer, starter = run.training_pid() or run.far_away(), run.starter_pid()
    if trainer is not None:
        asked = [name for request, name in ASKED.items() if run.wants(request)]
        return Status([*asked, "running"][0], trainer)
    failure = run.load_json("failure").get("message", "")
    began = last.get("time", 0) > known.get("started", 0)
    if began and not failure and last["kind"] in ENDS:
        return Status(ENDS[last["kind"]], starter)  # it may still be drawing figures
    if starter is not None and not failure:
        return Status("running" if began else "starting", starter)
    if not (known or last or failure):
        return Status("empty")
    killed = "trainer" in known
    if run.wants("stop") and not (killed or failure):
        return Status("stopped")  # before it began
    return Status("died", cause=failure or _cause(run, killed))


def _refuse_second(run: Run) -> None:
    now = status(run)
    if now.trains:
        raise InputError(
            f"{run.folder} is being trained by process {now.pid}. Watch it: "
            f"Dashboard('{run.folder}'). End it: its Stop button, or `touch {run.folder}/stop`. "
            "Or train beside it, in a folder that you name: "
            "launch(config.replace(checkpoint_dir='runs/another'))."
        )


def _alive_runs() -> list[Run]:
    runs = [Run(path.parent) for path in sorted(RUNS.glob("*/process.json"))]
    return [run for run in runs if run.training_pid() or run.starter_pid()]


def command_for(run: Run, flags: list[str]) -> list[str]:
    """Return the command that trains what the run's folder holds; a run goes on with `flags`."""
    command = [sys.executable, "-m", "camoxpert_nb"]
    if run.exists():
        return [*command, "resume", str(run.folder), *flags]
    return [*command, "train", "--config", str(run.config_path)]


def environment() -> dict[str, str]:
    """Return the environment in which another process finds this very package."""
    home = str(Path(__file__).parents[2])  # the kernel may have found the package by sys.path
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _spawn(run: Run, flags: list[str]) -> None:
    command = command_for(run, flags)
    run.clear()
    with in_place(run.folder / "stderr.txt").open("wb") as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            env=environment(),
        )
    _children.append(child)
    run.save_process({**this_machine(), **noted_as("pid", child.pid), "started": time.time()})


def _cause(run: Run, killed: bool) -> str:
    """Return why it died; `killed`: while it trained, so that older words are of another one."""
    errors, *files = (run.folder / name for name in ("stderr.txt", "process.json", "lock.json"))
    began = max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
    lines = tail(errors, 3)
    if lines and (not killed or errors.stat().st_mtime > began):
        return "\n".join(line.removeprefix("camoxpert: ") for line in lines)
    if killed:
        return (
            "the process was killed without a word: most often because the memory ran out, or "
            "because the machine or the session ended."
        )
    return "the process ended before the training began, without a word."


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a text file, each whole; none while there is no file."""
    try:
        with ordinary(path).open("rb") as file:
            size, taken = path.stat().st_size, 400 * lines
            while True:
                file.seek(max(size - taken, 0))
                found = file.read().decode("utf-8", "replace").rstrip().splitlines()
                if len(found) > lines or taken >= size:  # the first may be cut
                    return found[-lines:]
                taken *= 4
    except FileNotFoundError:
        return []
