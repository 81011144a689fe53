"""What chosen settings will do, told before anything starts and without torch."""

from __future__ import annotations

import os
import shlex
import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.selection import find_data
from ..runs.run import NEXT
from ..settings.config import Config, as_flags, differences, make_config
from ..settings.presets import suggest
from ..training.schedule import Plan

Floats = NDArray[np.float64]

FOLLOWING = ("lr_batch", "stage2_lr_batch")  # settings that follow from others
POINTS = 240  # of a drawn learning rate: a curve as wide as a screen needs no more


def propose(dataset_path: str = "", devices: int | None = None) -> Config:
    """Return settings to begin with: for these images, on this machine.

    Without a data set that is a demo of half a minute. `devices` is found out when not given.
    """
    if not dataset_path:
        return make_config("demo", epochs=4, stage1_epochs=1)
    memory = _visible_gpus() if devices is None else [0.0] * devices
    preset, _reason = suggest(memory, own_images=True)
    return make_config(preset, dataset_path=dataset_path)


def chosen(path: Path | str = NEXT, dataset_path: str = "") -> Config:
    """Return the settings saved in `path`, or a proposal while there are none.

    A `dataset_path` takes the place of the saved one.
    """
    if not Path(path).exists():
        return propose(find_data(dataset_path))
    config = Config.load(Path(path))
    return config.replace(dataset_path=find_data(dataset_path)) if dataset_path else config


def count_devices(config: Config) -> int:
    """Return how many devices would train here: GPUs that the driver lists and nobody hid, or 1."""
    if config.device == "cpu" or config.parallel == "none":
        return 1
    if config.gpus != "all":
        return len(config.gpus.split(","))
    return max(len(_visible_gpus()), 1)


def rates(plan: Plan) -> tuple[Floats, dict[str, Floats]]:
    """Return epochs (from 0, with fractions) and the learning rates of head and backbone there."""
    times = [time for stage in plan.stages for time in plan.times(stage)]
    times = times[:: max(len(times) // POINTS, 1)]
    return np.array(times), {
        "head": np.array([plan.lr(time, None) for time in times]),
        "backbone": np.array([plan.lr(time, 1) for time in times]),
    }


def command_line(config: Config) -> str:
    """Return the shell command that trains with these settings: what differs from the preset."""
    changes = differences(config, make_config(config.preset))
    # A rate that is given alone counts for the batch at hand: most often nothing is left to say.
    given = {name: value for name, value in changes.items() if name not in FOLLOWING}
    given |= differences(config, make_config(config.preset, **given))
    return shlex.join(["camoxpert", "train", "--preset", config.preset, *as_flags(given)])


def _visible_gpus() -> list[float]:
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
