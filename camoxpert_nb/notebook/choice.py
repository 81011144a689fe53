"""What chosen settings will do, told before anything starts and without torch."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.reading import Reading
from ..data.selection import find_data
from ..errors import InputError
from ..outside.terminal import PAGE, kernel_shell
from ..runs.run import NEXT
from ..settings.config import OPEN, Config, as_flags, make_config
from ..settings.decide import FOLLOWING, decisions, open_settings, told
from ..settings.presets import PRESETS, suggest
from ..training.schedule import Plan

Floats = NDArray[np.float64]

BY_RECIPE = "by the recipe"
POINTS = 240  # of a drawn learning rate: a curve as wide as a screen needs no more


def propose(dataset_path: str = "", devices: int | None = None) -> Config:
    """Return settings to begin with: for these images, on this machine.

    Without a data set that is a demo of half a minute. `devices` is found out when not given.
    """
    if not dataset_path:
        return make_config("demo", epochs=4, stage1_epochs=1, warmup_epochs=1)
    return on_this_machine("auto", devices, dataset_path=dataset_path)


def on_this_machine(preset: str, devices: int | None = None, **changes: Any) -> Config:
    """Return a preset's settings with these changes, as `camoxpert train --preset` makes them."""
    usual = usual_here(preset, devices, changes.get("device", "auto"))
    return make_config(preset, **{**usual, **changes})


def usual_here(preset: str, devices: int | None = None, device: str = "auto") -> dict[str, Any]:
    """Return what a preset has on this machine, or on its CPU: of `auto`, batches and size."""
    if preset != "auto":
        return {}
    memory = visible_gpus() if devices is None else [0.0] * devices
    return suggest([] if device == "cpu" else memory, own_images=True).changes


def presets_table(devices: int | None = None) -> str:
    """Return the presets side by side as they are on this machine, in Markdown.

    A place is empty where a preset has the default, and says so where the recipe decides.
    """
    every = {name: {**PRESETS[name], **usual_here(name, devices)} for name in PRESETS}
    lines = [f"| setting | {' | '.join(every)} |", "|---" * (1 + len(every)) + "|"]
    for name in dict.fromkeys(name for each in every.values() for name in each):
        cells = [_in_table(each[name]) if name in each else "" for each in every.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_table(value: Any) -> str:
    if value is None:
        return BY_RECIPE
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def chosen(path: Path | str = NEXT, dataset_path: str = "", attached: str = "") -> Config:
    """Return the settings saved in `path`, or a proposal while there are none.

    What was saved holds. A `dataset_path` takes the place of the saved one; `attached` (what a
    Kaggle session found) only where nothing was saved, or where the saved folder is not here.
    `what_trains` says when either happened.
    """
    if not Path(path).exists():
        return propose(find_data(dataset_path or attached))
    config = Config.load(Path(path))
    gone = attached and config.dataset_path and not Path(config.dataset_path).exists()
    wanted = dataset_path or (attached if gone else "")
    if not wanted:
        return config
    return config.replace(dataset_path=find_data(wanted, Reading.of(config)))


def saved_at(path: Path) -> str:
    """Return when a file was written, as a clock shows it; with the date if that was not today."""
    moment, today = time.localtime(path.stat().st_mtime), time.localtime()
    return time.strftime("%H:%M" if moment[:3] == today[:3] else "%Y-%m-%d %H:%M", moment)


def unsaved(config: Config, path: Path, problem: bool = False) -> str:
    """Say what 03 would train instead of these settings, "" where `path` holds just them.

    problem: whether a value is shown that cannot be used.
    """
    if not path.exists():
        return "not saved: 03 would train a proposal of its own."
    try:
        same = Config.load(path) == config
    except InputError as error:
        return f"not saved: {error}"
    if same and not problem:
        return ""
    return f"not saved: 03 would train the values saved at {saved_at(path)}."


def count_devices(config: Config) -> int:
    """Return how many devices would train here: GPUs that the driver lists and nobody hid, or 1."""
    if config.device == "cpu" or config.parallel == "none":
        return 1
    if config.gpus != "all":
        return len(config.gpus.split(","))
    return max(len(visible_gpus()), 1)


def on_cpu(config: Config) -> bool:
    """Say whether no GPU would train: none is here, or the settings want none."""
    return config.device == "cpu" or not visible_gpus()


def rates(plan: Plan) -> tuple[Floats, dict[str, Floats]]:
    """Return epochs (from 0, with fractions) and the learning rates of head and backbone there."""
    times = [time for stage in plan.stages for time in plan.times(stage)]
    times = times[:: max(len(times) // POINTS, 1)]
    return np.array(times), {
        "head": np.array([plan.lr(time, None) for time in times]),
        "backbone": np.array([plan.lr(time, 1) for time in times]),
    }


def command_line(config: Config) -> str:
    """Return the shell command that trains with these settings: what differs from the preset.

    In a notebook a long one stands on several lines, as a shell takes them too.
    """
    first, *words = words_of(config)
    lines = [first]
    for word in words:
        if kernel_shell() is not None and len(f"{lines[-1]} {word}") > PAGE - 2:
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return " \\\n".join(lines)


def words_of(config: Config) -> list[str]:
    """Return the words of the shell command, quoted, each flag with its value."""
    given = told(config, usual_here(config.preset, device=config.device))
    words: list[str] = []
    for word in ("--preset", config.preset, *as_flags(given)):
        if word.startswith("--") or not words:
            words.append(shlex.quote(word))
        else:
            words[-1] += f" {shlex.quote(word)}"
    return ["camoxpert train", *words]


def marks(config: Config, usual: Mapping[str, Any], photos: int, devices: int) -> dict[str, str]:
    """Return words for settings: what the preset has where that was changed, what the recipe says.

    `usual` is the preset's on this machine; `photos` to train, 0 where they are not known.
    """
    base = make_config(config.preset, **usual)
    scaled = make_config(config.preset, **{**usual, "epochs": config.epochs})
    words = {}
    for name in told(config, usual):
        value = getattr(scaled if name in FOLLOWING else base, name)
        empty = BY_RECIPE if name in OPEN else "empty"
        words[name] = f"preset: {empty if value in (None, '') else value}"
    found = decisions(config, photos, devices) if photos else {}
    for name in open_settings(config):
        words[name] = f"recipe: {found[name]}" if name in found else BY_RECIPE
    return words


def visible_gpus() -> list[float]:
    """Return the GiB of each GPU that the driver lists and nobody hid."""
    listed, visible = _listed_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return listed
    return listed[: sum(bool(name) for name in visible.split(","))]


@lru_cache(maxsize=1)
def _listed_gpus() -> list[float]:
    try:
        asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [float(line) / 1024 for line in done.stdout.split()]
