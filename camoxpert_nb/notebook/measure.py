"""One real training step, measured in a child process: the notebook's kernel stays light."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runs.run import RUNS
from ..settings.config import Config
from .choice import count_devices, on_cpu

KEPT = RUNS / "estimate.json"  # the last one made here, so that 03 need not repeat that of 02


def measure(config: Config, card: str = "", limit: float | None = None) -> dict[str, Any]:
    """Return what a training of `config` would cost, as `train --dry-run --json` writes it.

    card: forecast the training there instead. limit: seconds after which the child is ended. Raises
    InputError with the child's words when these settings or images cannot train, or no such card is
    known; TimeoutError when the limit was reached.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, result = Path(folder) / "config.json", Path(folder) / "estimate.json"
        config.save(file)
        command = [sys.executable, "-m", "camoxpert_nb", "train", "--dry-run"]
        command += ["--config", str(file), "--json", str(result)]
        command += ["--on", card] if card else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"no step was measured within {limit:.0f} s") from error
        if done.returncode:
            raise InputError(done.stderr.strip().rpartition("\n")[2])
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if not card:
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps({**found, "of": _print_of(config)}), encoding="utf-8")
    return found


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
