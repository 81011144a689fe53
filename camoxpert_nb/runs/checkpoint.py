"""A checkpoint file: read without running any code that may hide in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError


def load_checkpoint(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's contents, read without running any code that may hide in it.

    Raises InputError when the file is missing or is not a checkpoint.
    """
    import pickle

    import torch

    if not path.exists():
        raise InputError(f"{path}: no such checkpoint. Give a run folder that holds {path.name}.")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path}: cannot be read as a checkpoint ({str(error).splitlines()[0]}). If its copy "
            "was cut short, copy it again."
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a checkpoint.")
    return state


def bare_keys(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict without the `module.` that a parallel wrapper puts before each key."""
    if state and all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state
