"""One real training step, measured in a child process: the notebook's kernel stays light."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runs.run import RUNS
from ..settings.config import Config
from .choice import count_devices, on_cpu

KEPT = RUNS / "estimate.json"  # the last one made here, so that 03 need not repeat that of 02
TICK = 0.5  # seconds between two looks at the child
GRACE = 3.0  # seconds that it has to end by itself


class Cancelled(Exception):
    """Somebody did not want to wait for an estimate any more."""


def measure(
    config: Config,
    card: str = "",
    limit: float | None = None,
    *,
    cancel: threading.Event | None = None,
    tick: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Return what a training of `config` would cost, as `train --dry-run --json` writes it.

    card: forecast the training there instead. limit: seconds after which the child is ended.
    cancel: ends the child when it is set. tick: hears the seconds gone, twice a second. Raises
    InputError with the child's words when these settings or images cannot train, or no such card is
    known; TimeoutError when the limit was reached; Cancelled.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, result = Path(folder) / "config.json", Path(folder) / "estimate.json"
        config.save(file)
        command = [sys.executable, "-m", "camoxpert_nb", "train", "--dry-run"]
        command += ["--config", str(file), "--json", str(result)]
        command += ["--on", card] if card else []
        words = _run(command, limit, cancel or threading.Event(), tick or (lambda gone: None))
        if words is not None:
            raise InputError(words)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if not card:
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps({**found, "of": _print_of(config)}), encoding="utf-8")
    return found


def _run(
    command: list[str],
    limit: float | None,
    cancel: threading.Event,
    tick: Callable[[float], None],
) -> str | None:
    """Run a command to its end; return None, or the last line it complained with.

    Nothing of it stays, whatever ends the waiting: it may have started processes itself.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )
        try:
            while child.poll() is None:
                gone = time.monotonic() - began
                if limit is not None and gone > limit:
                    raise TimeoutError(f"no step was measured within {limit:.0f} s")
                tick(gone)
                if cancel.wait(TICK):
                    raise Cancelled
        finally:
            _end(child)
        errors.seek(0)
        words = errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        return None if child.returncode == 0 else words


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child, and the group it leads, if it still runs."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if hasattr(os, "killpg"):
                    os.killpg(child.pid, number)
                else:
                    child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)


def measured(config: Config) -> dict[str, Any] | None:
    """Return the last estimate made here if it was of these settings, on this machine."""
    try:
        found = json.loads(KEPT.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(found, dict) and found.get("of") == _print_of(config)
    return found if same and isinstance(found.get("seconds"), (int, float)) else None


def _print_of(config: Config) -> str:
    """Return what another setting, machine or data folder would change."""
    settings = config.replace(checkpoint_dir="").as_dict()
    data = Path(config.dataset_path)
    changed = data.stat().st_mtime if config.dataset_path and data.exists() else 0
    here = (platform.node(), count_devices(config), on_cpu(config), changed)
    return hashlib.sha256(json.dumps([settings, here]).encode()).hexdigest()[:16]
