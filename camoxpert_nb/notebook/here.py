"""Settings as `camoxpert train` makes them on this machine, for scripts and notebooks."""

from __future__ import annotations

import os
from typing import Any

from ..settings import config as settings
from ..settings.config import Config
from .choice import on_cpu, on_this_machine


def make_config(preset: str = "", **changes: Any) -> Config:
    """Return a preset's settings with these changes, as `camoxpert train` has them on this machine.

    Without a preset that is "auto", whose numbers follow from photos, epochs and GPUs; without a
    data set and a GPU "demo". `changes` are settings by name: dataset_path="photos", epochs=6.
    Raises InputError for an unknown preset or setting, with what is like it, and for a bad value.
    """
    plain = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in changes.items()
    }
    config = on_this_machine(preset or "auto", **plain)
    if preset or config.dataset_path or not on_cpu(config):
        return config
    return settings.make_config("demo", **plain)
