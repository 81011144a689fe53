"""Files decoded once, into one memory-mapped array that all workers and ranks share.

A cache is named by the files it was made from, and is whole or not there: it is written under
another name and renamed. `batches` reads it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..outside.paths import given
from ..outside.reading import read_json
from ..outside.scratch import scratch, sweep
from ..settings.config import Config
from .findings import NO_OBJECT
from .images import resize_image, same_shape
from .masks import look, refuse, resize_labels
from .pairs import Pair, is_noncam
from .reading import NOTHING_IGNORED

Progress = Callable[[int, int], None]
Doubts = dict[str, list[str]]  # names of masks by reason

FORMAT = 3  # of the cache file; raise it when what is stored changes
SHOWN = 5  # broken files named in a message
TIMED = 32  # pairs decoded to tell how long all take
UNFINISHED = "images"  # caches that are being made
CHUNK = 64  # pairs decoded ahead of the writer: bounds the memory


class Cache:
    """A finished cache file: `array` (N, 4, S, S) uint8, red, green, blue, mask of 0 and 1.

    Where a label is ignored there is a fifth channel, 1 where pixels count nowhere. `fingerprint`
    is a sha256 over the files it was made from; `doubts` names the masks that may mean something
    else than was read, by kind (`findings.KINDS`). Only the path is pickled; every process maps
    the file by itself, so the pixels are in memory once.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.array = np.lib.format.open_memmap(path, mode="r")
        what = "what was found while decoding; remove it, and the images are decoded anew"
        self.doubts: Doubts = read_json(_doubts_file(path), what)

    def __len__(self) -> int:
        return len(self.array)

    def __reduce__(self) -> tuple[type[Cache], tuple[Path, str]]:
        return Cache, (self.path, self.fingerprint)


def open_cache(
    pairs: Sequence[Pair], size: int, folder: Path, *, progress: Progress | None = None
) -> Cache:
    """Return the decoded `pairs` at `size` pixels a side, from `folder` or made there now.

    A cache is reused while path, size and time of every file are the same, else a new one is
    made beside it. `progress(done, total)` is called while one is made. Raises one InputError for
    all unreadable files and all masks that do not have their image's shape, and for a full disk.
    """
    if not pairs:
        raise InputError("There are no images to decode: this part of the data set is empty.")
    path, fingerprint, shape = _name(pairs, size, folder)
    sweep(path.parent, UNFINISHED)
    if not _is_whole(path, shape):
        _build(pairs, shape, path, progress or (lambda done, total: None))
    return Cache(path, fingerprint)


def seconds_to_decode(pairs: Sequence[Pair], size: int, folder: Path) -> float:
    """Return how long the cache of `pairs` will take, by a few of them; 0 if it is there.

    Raises InputError as `open_cache` does.
    """
    path, _, shape = _name(pairs, size, folder)
    if _is_whole(path, shape):
        return 0.0
    few = pairs[:: max(len(pairs) // TIMED, 1)]
    started = time.perf_counter()
    _decode_into(io.BytesIO(), few, shape, lambda done, total: None)
    return (time.perf_counter() - started) * len(pairs) / len(few)


def _name(
    pairs: Sequence[Pair], size: int, folder: Path
) -> tuple[Path, str, tuple[int, int, int, int]]:
    """Return file, fingerprint (sha256 over path, size and time of the files) and shape."""
    hows = sorted({pair.how for pair in pairs})
    digest = hashlib.sha256(f"{FORMAT} {size} {hows}".encode())
    channels = 5 if any(how.ignore != NOTHING_IGNORED for how in hows) else 4
    problems = []
    for path in (path for pair in pairs for path in (pair.image, pair.mask)):
        try:
            status = path.stat()
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
            continue
        facts = [str(path.absolute()), status.st_size, status.st_mtime_ns]
        digest.update(json.dumps(facts).encode())
    _raise_if_any(problems)
    fingerprint = digest.hexdigest()
    file = Path(folder) / f"images-{size}px-{fingerprint[:16]}.npy"
    return file, fingerprint, (len(pairs), channels, size, size)


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):  # missing, short, or not an array
        return False
    return array.shape == shape and array.dtype == np.uint8 and _doubts_file(path).is_file()


def _doubts_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _build(pairs: Sequence[Pair], shape: tuple[int, ...], path: Path, progress: Progress) -> None:
    """Write the cache under another name and rename it: whoever else builds it, one whole wins."""
    try:
        with scratch(path.parent, UNFINISHED) as place:
            _require_space(path.parent, math.prod(shape))
            unfinished, beside = place / path.name, place / _doubts_file(path).name
            with unfinished.open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                doubts = _decode_into(file, pairs, shape, progress)
                file.flush()
                os.fsync(file.fileno())
            beside.write_text(json.dumps(doubts), "utf-8")
            beside.replace(_doubts_file(path))
            unfinished.replace(path)
    except OSError as error:
        raise InputError(
            f"{path.parent}: the decoded images cannot be written there ({error.strerror}). "
            "Make room, or name another folder with --cache-dir."
        ) from error


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: the decoded images need {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB "
            "are free. Make room, or name a folder on another disk with --cache-dir."
        )


def _decode_into(
    file: BinaryIO, pairs: Sequence[Pair], shape: tuple[int, ...], progress: Progress
) -> Doubts:
    """Append every pair to `file`, in order, and return the masks in doubt by reason.

    At the end it raises for all pairs that could not be decoded.
    """
    problems, doubts = [], Doubts()
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # decoding lets go of Python's lock
        for first in range(0, len(pairs), CHUNK):
            chunk = pairs[first : first + CHUNK]
            for done, result in enumerate(
                threads.map(lambda pair: _decode(pair, *shape[1:3]), chunk), 1
            ):
                progress(first + done, len(pairs))
                if isinstance(result, str):
                    problems.append(result)
                    continue
                if not problems:
                    file.write(result.array.data)
                for kind in result.doubts:
                    doubts.setdefault(kind, []).append(result.name)
    _raise_if_any(problems)
    return doubts


class _Decoded(NamedTuple):
    array: NDArray[np.uint8]  # (channels, size, size)
    name: str
    doubts: list[str]  # about the mask, kinds of findings.KINDS


def _decode(pair: Pair, channels: int, size: int) -> _Decoded | str:
    """Return the decoded pair, or the sentence that says what is wrong with it."""
    try:
        image, labels, problems, _ = look(pair)
        if not same_shape(image.shape, labels.shape):
            return str(refuse(pair.mask, labels.shape, pair.image, image.shape))
    except InputError as error:
        return str(error)
    layers = [*resize_image(image, size).transpose(2, 0, 1), *resize_labels(labels, size)]
    harmless = ("grey", "size", *(NO_OBJECT if is_noncam(pair) else ()))
    kinds = [kind for kind, _ in problems if kind not in harmless]
    return _Decoded(np.stack(layers[:channels]), pair.name, kinds)


def _raise_if_any(problems: list[str]) -> None:
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(
            f"{len(problems)} of the data set's files cannot be used:\n{listed}{more}\n"
            "Download them again, or remove image and mask; `camoxpert data DIR --all` lists "
            "them all."
        )


def cache_folder(config: Config) -> Path:
    """Return where decoded and generated images are kept."""
    if config.cache_dir:
        return Path(config.cache_dir)
    for name in ("CAMOXPERT_CACHE", "XDG_CACHE_HOME"):
        if os.environ.get(name):
            base = given(os.environ[name], f"the environment variable {name}")
            return base if name == "CAMOXPERT_CACHE" else base / "camoxpert_nb"
    return (
        given("~/.cache", "the user's cache folder (name another with --cache-dir)")
        / "camoxpert_nb"
    )
