"""A checkpoint file: read without running any code that may hide in it."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outside.reading import UNKNOWN, in_words, ordinary
from ..settings.config import Config


def load_checkpoint(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's contents, read without running any code that may hide in it.

    Raises InputError when the file is missing or is not a checkpoint.
    """
    import torch

    try:
        with ordinary(path).open("rb") as file:
            start = file.read(4096)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such checkpoint. Give a run folder that holds {path.name}."
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    try:
        refuse_swollen(path)
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # what breaks in torch, zip and pickle has no common class
        raise InputError(
            f"{path}: cannot be read as a checkpoint: {why_unreadable(start, error)}. "
            "Give a run's best.pt or last.pt, or copy it again."
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a checkpoint.")
    return state


def refuse_swollen(path: Path) -> None:
    """Raise ValueError for a zip archive that holds more than its own size: PyTorch packs nothing.

    Read, it would fill the memory.
    """
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        held, size = sum(each.file_size for each in archive.infolist()), path.stat().st_size
        if held > size:
            raise ValueError(f"{size} bytes that would swell to {held}, which PyTorch never writes")


TORCH = (b"PK\3\4", b"\x80")  # how files of PyTorch begin: a zip archive, or a pickle


def why_unreadable(start: bytes, error: Exception) -> str:
    """Say what a file is that cannot be read; PyTorch's advice to trust it is left out.

    start: its first bytes.
    """
    said = (str(error) or type(error).__name__).splitlines()[0]
    if not start.startswith(TORCH):
        found = in_words(start)
        return found if found != UNKNOWN or _ADVICE in said else f"{found} ({said})"
    if _ADVICE in str(error).lower() or "unsupported" in str(error).lower():
        return (
            "it is a pickle that holds more than tensors and plain values, as files of other "
            "programs do; it is not opened, as such a file may run code"
        )
    if start.startswith(b"PK") and b".npy" in start:
        return "it is an archive of NumPy (.npz), not of PyTorch"
    return f"it is damaged or cut short ({said})"


_ADVICE = "weights_only"


def settings_of(checkpoint: dict[str, Any], path: Path) -> Config:
    """Return the settings in a checkpoint; InputError if it holds none, or unknown ones."""
    values = checkpoint.get("config")
    if not isinstance(values, dict) or not isinstance(checkpoint.get("net"), dict):
        raise InputError(
            f"{path}: holds no settings beside its weights, so it is no checkpoint of this kit. "
            "Give a run's best.pt or last.pt; to start from other weights, use --init-from."
        )
    try:
        return Config().replace(**{str(name): value for name, value in values.items()})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def bare_keys(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict without the `module.` that a parallel wrapper puts before each key."""
    if state and all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state
