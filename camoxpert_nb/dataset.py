"""Decoded images, batches of them, and the order in which they come.

Files are decoded and resized once, into one memory-mapped array that all workers and ranks share
through the page cache; a batch is then one copy, and everything else happens on the device. Order
and chance are functions of (seed, epoch, index), never of a worker, a rank or the past: a run can
go on from the middle of an epoch by naming the epoch and the batch.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .augment import K
from .errors import InputError
from .images import read_image, read_mask, resize_image, resize_mask, same_shape
from .layouts import Pair

Batch = dict[str, Tensor]
Progress = Callable[[int, int], None]

FORMAT = 1  # of the cache file; raise it when what is stored changes
SHOWN = 5  # broken files named in a message
CHUNK = 64  # pairs decoded ahead of the writer: bounds the memory
ENOUGH_WORKERS = 2  # reading a batch is one copy; more processes only take memory


class Cache:
    """A finished cache file: `array` (N, 4, S, S) uint8, red, green, blue, mask of 0 and 1.

    `fingerprint` is a sha256 over the files it was made from. Only the path is pickled; every
    process maps the file by itself, so the pixels are in memory once.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.array = np.lib.format.open_memmap(path, mode="r")

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
    fingerprint = _fingerprint(pairs, size)
    shape = (len(pairs), 4, size, size)
    path = Path(folder) / f"images-{size}px-{fingerprint[:16]}.npy"
    if not _is_whole(path, shape):
        _build(pairs, shape, path, progress or (lambda done, total: None))
    return Cache(path, fingerprint)


class PairDataset(Dataset[Batch]):
    """Batches by position: `dataset[[3, 5]]` is the batch of the images 3 and 5 in epoch 0.

    A position is epoch * len(dataset) + index, so that a worker knows the epoch without being
    told. A batch holds image (B, 3, S, S) uint8, mask (B, 1, S, S) uint8 of 0 and 1, index (B,)
    int64 and uniform (B, K) float32 in [0, 1), which depends on seed, epoch and index alone.
    """

    def __init__(self, cache: Cache, seed: int = 0) -> None:
        self.cache, self.seed = cache, seed

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, positions: Sequence[int]) -> Batch:
        epochs, rows = np.divmod(np.asarray(positions, np.int64), len(self))
        chance = [
            _uniforms(self.seed, int(epoch), len(self))[row]
            for epoch, row in zip(epochs, rows, strict=True)
        ]
        return {
            "image": torch.from_numpy(self.cache.array[:, :3][rows]),
            "mask": torch.from_numpy(self.cache.array[:, 3:][rows]),
            "index": torch.from_numpy(rows),
            "uniform": torch.from_numpy(np.stack(chance)),
        }


class Batches(Sampler[list[int]]):
    """The batches of one rank, as lists of positions for `PairDataset`.

    In training the order is a permutation that follows from (seed, epoch). Rank r of w takes every
    w-th image from the r-th on, so that all ranks together see in each step what one process with
    a w times larger batch sees. An incomplete last batch is left out: it would be a step of
    another effective batch. In evaluation (`training=False`) nothing is shuffled, left out or
    seen twice; ranks may then differ by one image and one batch.

    Raises InputError if training data do not fill one batch.
    """

    def __init__(
        self,
        count: int,
        per_rank: int,
        *,
        seed: int = 0,
        training: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.count, self.per_rank, self.seed, self.training = count, per_rank, seed, training
        self.rank, self.world = rank, world
        self.epoch = self.start = 0
        if training and count < per_rank * world:
            raise _batch_too_large(count, per_rank, world)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Make the next pass that of `epoch` (from 0), without its first `start` batches."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Return the batches of a whole epoch on this rank, wherever the next pass starts."""
        if self.training:
            return self.count // (self.per_rank * self.world)
        return -(-len(range(self.rank, self.count, self.world)) // self.per_rank)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.count)
        if self.training:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        mine = (order + self.epoch * self.count)[self.rank :: self.world].tolist()
        for batch in range(self.start, len(self)):
            yield mine[batch * self.per_rank : (batch + 1) * self.per_rank]


def make_loader(
    dataset: PairDataset, batches: Batches, *, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Batch]:
    """Return a loader of `Batch`; its workers stay alive from epoch to epoch.

    Workers are spawned: forking a process that runs threads, as every process with torch does, can
    deadlock, and Python warns of it from 3.12 on. A script that uses workers therefore needs the
    usual `if __name__ == "__main__":`.
    """
    return DataLoader(
        dataset,
        batch_size=None,  # the sampler's items are whole batches
        sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator(),  # else every pass would draw from torch's global numbers
    )


def choose_workers(requested: int | None, cpus: int, processes: int = 1) -> tuple[int, str]:
    """Return how many loading processes each of `processes` training processes gets, and why.

    None asks for the number that fits `cpus`. Any other number is taken as it is, with a warning
    in the reason if it is more than the machine or the loader has use for.
    """
    fitting = min(ENOUGH_WORKERS, max(0, cpus // processes - 2))
    machine = f"{cpus} CPUs and {processes} training process" + "es" * (processes > 1)
    if requested is None:
        return fitting, f"{machine}; the decoded cache needs {ENOUGH_WORKERS} at most"
    if requested > max(fitting, 1):
        return requested, (
            f"as asked; warning: {fitting} would do with {machine}, as images come decoded from "
            "the cache. Leave out --num-workers to have the number chosen"
        )
    return requested, "as asked"


@lru_cache(maxsize=4)  # prefetching crosses from one epoch to the next
def _uniforms(seed: int, epoch: int, count: int) -> NDArray[np.float32]:
    """Return the epoch's (count, K) numbers; the 1 keeps them apart from the order's."""
    return np.random.default_rng((seed, epoch, 1)).random((count, K), np.float32)


def _batch_too_large(count: int, per_rank: int, world: int) -> InputError:
    batch = per_rank * world
    division = f" ({per_rank} on each of {world} devices)" if world > 1 else ""
    largest = count // world
    advice = f"--batch-size {largest} or less, or " if largest else ""
    return InputError(
        f"A batch of {batch} images{division} is larger than the training data, {count} images. "
        f"Use {advice}more images."
    )


def _fingerprint(pairs: Sequence[Pair], size: int) -> str:
    """Return the sha256 that names the cache of these files at this size."""
    digest = hashlib.sha256(f"{FORMAT} {size}".encode())
    problems = []
    for pair in pairs:
        for path in (pair.image, pair.mask):
            try:
                status = path.stat()
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
                continue
            facts = [str(path.absolute()), status.st_size, status.st_mtime_ns]
            digest.update(json.dumps(facts).encode())
    _raise_if_any(problems)
    return digest.hexdigest()


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):  # missing, short, or not an array
        return False
    return array.shape == shape and array.dtype == np.uint8


def _build(pairs: Sequence[Pair], shape: tuple[int, ...], path: Path, progress: Progress) -> None:
    """Write the cache under another name and rename it: whoever else builds it, one whole wins."""
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_space(path.parent, math.prod(shape))
        with unfinished.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            _decode_into(file, pairs, shape[-1], progress)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise InputError(
            f"{path.parent}: the decoded images cannot be written there ({error.strerror}). "
            "Make room, or name another folder with --cache-dir."
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: the decoded images need {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB "
            "are free. Make room, or name a folder on another disk with --cache-dir."
        )


def _decode_into(file: BinaryIO, pairs: Sequence[Pair], size: int, progress: Progress) -> None:
    """Append every pair to `file`, in order; at the end raise for all that could not be."""
    problems = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # decoding lets go of Python's lock
        for first in range(0, len(pairs), CHUNK):
            chunk = pairs[first : first + CHUNK]
            for done, result in enumerate(threads.map(lambda pair: _decode(pair, size), chunk), 1):
                if isinstance(result, str):
                    problems.append(result)
                elif not problems:
                    file.write(result.data)
                progress(first + done, len(pairs))
    _raise_if_any(problems)


def _decode(pair: Pair, size: int) -> NDArray[np.uint8] | str:
    """Return the pair's (4, size, size), or the sentence that says what is wrong with it."""
    try:
        image, mask = read_image(pair.image), read_mask(pair.mask)
    except InputError as error:
        return str(error)
    if not same_shape(image.shape, mask.shape):
        found, expected = ("x".join(map(str, a.shape[1::-1])) for a in (mask, image))
        return f"{pair.mask}: the mask is {found} pixels, its image {pair.image.name} {expected}"
    channels = resize_image(image, size).transpose(2, 0, 1)
    return np.stack([*channels, resize_mask(mask, size)])


def _raise_if_any(problems: list[str]) -> None:
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(
            f"{len(problems)} of the data set's files cannot be used:\n{listed}{more}\n"
            "Download them again, or remove image and mask; `camoxpert data DIR` lists them all."
        )
