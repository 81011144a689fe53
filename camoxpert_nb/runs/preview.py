"""preview.npz: the same few validation images each time, as a run predicts them now."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InputError
from ..outside.reading import ordinary

MOST = 2**30  # bytes: a dozen images of 3,000 px; more would fill the memory of whoever looks
DIMENSIONS = {"image": 4, "mask": 3, "probability": 3, "gates": 3, "names": 1}


def write_preview(file: IO[bytes], arrays: dict[str, Any]) -> None:
    """Write names and, (n, ...) each, image, mask and probability in uint8, and gates."""
    np.savez_compressed(file, **arrays)


def read_preview(path: Path) -> dict[str, Any]:
    """Return these arrays; InputError for a file that is no such one, broken, or swollen."""
    try:
        with ordinary(path).open("rb") as file:
            arrays = _arrays(file)
    except (FileNotFoundError, InputError):
        raise
    except Exception as error:  # of zip, zlib and NumPy, which have no common class
        raise InputError(
            f"{path}: cannot be read as the run's pictures ({error or type(error).__name__}). "
            "Remove it: nothing but pictures is lost, and training writes it anew."
        ) from error
    return arrays


def _arrays(file: IO[bytes]) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        if (held := sum(each.file_size for each in archive.infolist())) > MOST:
            raise ValueError(f"it would swell to {held / 2**30:.1f} GiB")
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        arrays = dict(stored)
    if arrays:
        _check(arrays)
    return arrays


def _check(arrays: dict[str, Any]) -> None:
    """Raise ValueError unless all are of one count, and pictures of one size."""
    for name, dimensions in DIMENSIONS.items():
        found = arrays.get(name)
        if found is None and name == "gates":
            continue
        if found is None or found.ndim != dimensions or len(found) != len(arrays["names"]):
            raise ValueError(f"its {name} are not as training writes them")
    wrong = [name for name in ("image", "mask", "probability") if arrays[name].dtype != np.uint8]
    size = arrays["mask"].shape
    sizes = {arrays["probability"].shape, arrays["image"].shape[:3], size}
    if wrong or len(sizes) > 1 or arrays["image"].shape[3] != 3 or 0 in size[1:]:
        raise ValueError("its pictures are not as training writes them")
    if arrays["names"].dtype.kind != "U":
        raise ValueError("its names are no texts")
