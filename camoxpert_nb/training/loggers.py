"""Where records go besides the history: history.csv always, TensorBoard and W&B where asked for.

A logger is a guest. What goes wrong with it is said once, and the training goes on.
"""

from __future__ import annotations

import contextlib
import importlib
import netrc
import os
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from ..errors import InputError
from ..runs.run import Onlooker, Run
from ..runs.table import flat, write_table
from ..settings.checks import log_names
from ..settings.config import Config

Report = Callable[[dict[str, Any]], None]

# By name: the module that is used, a name it must have, and the package that brings it. An empty
# folder of that name, as a run has one, can be imported too, and has nothing.
NEEDS = {
    "tensorboard": ("torch.utils.tensorboard", "SummaryWriter", "tensorboard"),
    "wandb": ("wandb", "init", "wandb"),
}
NO_SCALARS = ("time", "step", "steps", "stage")  # of a record: places and words
REACHED_WITHIN = 3.0  # seconds in which W&B's server must answer, or the run is kept offline


class Logger(Protocol):
    """One place that records go to."""

    def take(self, record: dict[str, Any]) -> None:
        """Keep a record of a step or an epoch."""

    def close(self) -> None:
        """Write what is still held."""


class Loggers:
    """All loggers of a training: `report` hands a record on, and to each of them.

    step: those taken so far; what a logger holds of later steps is of a process that died. The
    loggers are opened here, so history.csv is renewed at once. `report` is told everything too.
    """

    def __init__(self, run: Run, config: Config, step: int, report: Report) -> None:
        self._run, self._report = run, report
        self._open: dict[str, Logger] = {}
        self._failed: set[str] = set()
        if isinstance(run, Onlooker):
            return
        makers: dict[str, Callable[[], Logger]] = {
            "csv": lambda: _Table(run),
            "tensorboard": lambda: _TensorBoard(run, step),
            "wandb": lambda: _Wandb(run, config, lambda text: self._say(text, step)),
        }
        for name in dict.fromkeys(["csv", *log_names(config.log)]):
            with self._guarded(name, step):
                self._open[name] = makers[name]()

    def report(self, record: dict[str, Any]) -> None:
        """Report a record, and log it if it tells of a step or an epoch."""
        self._report(record)
        if record["kind"] in ("step", "epoch"):
            for name, logger in list(self._open.items()):
                with self._guarded(name, record["step"]):
                    logger.take(record)

    def close(self) -> None:
        """Close all loggers, whatever comes of it."""
        for name, logger in self._open.items():
            with self._guarded(name, 0):
                logger.close()
        self._open = {}

    @contextlib.contextmanager
    def _guarded(self, name: str, step: int) -> Any:
        """Say once what goes wrong with a logger; one that holds files open is left out then."""
        try:
            yield
        except Exception as error:  # whatever a package of others may raise
            first = name not in self._failed
            self._failed.add(name)
            if name == "csv":
                way_on = "It is renewed at the next epoch's end; close the program that holds it"
            else:
                way_on = "It gets nothing more until the run is resumed"
                self._open = {key: each for key, each in self._open.items() if key != name}
            if first:
                self._say(f"--log {name} failed ({_gist(error)}); training goes on. {way_on}", step)

    def _say(self, message: str, step: int) -> None:
        self._report(self._run.log("note", step=step, message=message))


def require(log: str) -> None:
    """Raise InputError where a logger that `--log` names cannot be loaded here."""
    for name in log_names(log):
        if name not in NEEDS:
            continue
        module, wanted, package = NEEDS[name]
        without = "or leave it out of --log: history.csv is written anyway"
        try:
            if hasattr(importlib.import_module(module), wanted):
                continue
            reason = ""
        except Exception as error:  # also of versions that do not fit each other
            missing = isinstance(error, ImportError) and error.name in (package, module)
            reason = "" if missing else _gist(error)
        if reason:
            raise InputError(
                f"--log {name}: the package {package} cannot be loaded ({reason}). Renew it: "
                f"`pip install --upgrade {package}`, {without}."
            )
        raise InputError(
            f"--log {name} needs the package {package}, which is not here. Install it: "
            f"`pip install {package}`, {without}."
        )


class _Table:
    """history.csv."""

    def __init__(self, run: Run) -> None:
        self._run = run
        write_table(run)

    def take(self, record: dict[str, Any]) -> None:
        """Renew the table where an epoch ends."""
        if record["kind"] == "epoch":
            write_table(self._run)

    def close(self) -> None:
        """Do nothing: the file is whole."""


class _TensorBoard:
    """Event files in RUN/tensorboard. Its readers drop what older files hold of later steps."""

    def __init__(self, run: Run, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run.folder / "tensorboard"), purge_step=step + 1)

    def take(self, record: dict[str, Any]) -> None:
        """Write a record's numbers, at its step."""
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, record["step"])
        if record["kind"] == "epoch":
            self._writer.flush()

    def close(self) -> None:
        """Write all."""
        self._writer.close()


class _Wandb:
    """A run of Weights & Biases, under the id that RUN/wandb.json keeps: resumed, it goes on."""

    def __init__(self, run: Run, config: Config, say: Callable[[str], None]) -> None:
        wandb: Any = importlib.import_module("wandb")
        identity = run.load_json("wandb").get("id") or uuid.uuid4().hex[:8]
        run.save_json("wandb", {"id": identity})
        how: dict[str, Any] = {
            "id": identity,
            "resume": "allow",
            "project": os.environ.get("WANDB_PROJECT", "camoxpert"),
            "name": run.folder.resolve().name,
            "dir": str(run.folder),
            "settings": wandb.Settings(console="off", silent=True),
        }
        chosen = "WANDB_MODE" not in os.environ
        mode = ("online" if can_log_in() else "offline") if chosen else None
        try:
            self._run: Any = wandb.init(**how, mode=mode)
        except Exception as error:
            if mode != "online":
                raise
            mode = "offline"
            say(f"W&B cannot be reached ({_gist(error)}), so this run is kept offline")
            self._run = wandb.init(**how, mode=mode)
        self._run.config.update(config.as_dict(), allow_val_change=True)
        if mode == "offline":
            say(f"W&B is offline; to send it: `wandb sync {run.folder / 'wandb'}/offline-run-*`")

    def take(self, record: dict[str, Any]) -> None:
        """Log a record's numbers, at its step."""
        self._run.log(scalars(record), step=record["step"])

    def close(self) -> None:
        """Send or write all."""
        self._run.finish()


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """Return a record's numbers by tag, as "step/loss" or "epoch/lr/head"."""
    numbers = flat(record)
    return {f"{record['kind']}/{key}": x for key, x in numbers.items() if key not in NO_SCALARS}


def can_log_in() -> bool:
    """Say whether W&B's server answers, and a key for it is here: WANDB_API_KEY or .netrc."""
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    name = host.hostname or "api.wandb.ai"
    if not (os.environ.get("WANDB_API_KEY") or _in_netrc(name)):
        return False
    port = host.port or (80 if host.scheme == "http" else 443)
    with contextlib.suppress(OSError):
        socket.create_connection((name, port), REACHED_WITHIN).close()
        return True
    return False


def _in_netrc(host: str) -> bool:
    places = [os.environ.get("NETRC", ""), Path.home() / ".netrc", Path.home() / "_netrc"]
    for place in filter(None, places):
        with contextlib.suppress(OSError, netrc.NetrcParseError, ValueError):
            if netrc.netrc(str(place)).authenticators(host):
                return True
    return False


def _gist(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
