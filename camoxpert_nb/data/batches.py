"""Batches of decoded images, and the order in which they come.

A batch is one copy out of the cache; everything else happens on the device. Order and chance are
functions of (seed, epoch, index), never of a worker, a rank or the past: a run can go on from the
middle of an epoch by naming the epoch and the batch.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import c_double
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data._utils import signal_handling

from ..errors import InputError, TrainingError
from .augment import K
from .cache import Cache

Batch = dict[str, Tensor]

POLL = 5.0  # seconds after which a wait for a worker is looked at
PATIENCE = 45.0  # seconds without an image after which it is said that none comes
STARTING = 300.0  # the same while workers start: they import PyTorch, perhaps from a slow disk
SHARED = "/dev/shm"
ENOUGH_WORKERS = 2  # reading a batch is one copy; more processes only take memory


class PairDataset(Dataset[Batch]):
    """Batches by position: `dataset[[3, 5]]` is the batch of the images 3 and 5 in epoch 0.

    A position is epoch * len(dataset) + index, so that a worker knows the epoch by itself.
    A batch holds image (B, 3, S, S) uint8, mask (B, 1, S, S) uint8 of 0 and 1 (with an ignored
    label two channels, the second 1 where pixels count nowhere), index (B,)
    int64 and uniform (B, K) float32 in [0, 1), which depends on seed, epoch and index alone.
    """

    def __init__(self, cache: Cache, seed: int = 0) -> None:
        self.cache, self.seed = cache, seed

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, positions: Sequence[int]) -> Batch:
        epochs, rows = np.divmod(np.asarray(positions, np.int64), len(self))
        chance = [
            uniforms(self.seed, int(epoch), len(self))[row]
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
        self.epoch, self.seen, self.limit = 0, 0, count
        if training and count < per_rank * world:
            division = f" ({per_rank} on each of {world} devices)" if world > 1 else ""
            advice = f"--batch-size {count // world} or less, or " if count >= world else ""
            raise InputError(
                f"A batch of {per_rank * world} images{division} is larger than the training "
                f"data, {count} images. Use {advice}more images."
            )

    def set_epoch(
        self, epoch: int, seen: int = 0, limit: int | None = None, per_rank: int | None = None
    ) -> None:
        """Make the next pass that of `epoch` (from 0), from its image number `seen` on.

        `seen` images were taken by all ranks together, in batches of whatever size; at most
        `limit` batches follow, of `per_rank` images if that changes.
        """
        self.per_rank = per_rank or self.per_rank
        self.epoch, self.seen = epoch, seen
        self.limit = self.count if limit is None else limit

    def __len__(self) -> int:
        """Return the batches of a whole epoch on this rank, wherever the next pass starts."""
        if self.training:
            return self.count // (self.per_rank * self.world)
        return -(-len(range(self.rank, self.count, self.world)) // self.per_rank)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.count)
        if self.training:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        mine = (order + self.epoch * self.count)[self.seen :][self.rank :: self.world].tolist()
        whole = (self.count - self.seen) // (self.per_rank * self.world)
        for batch in range(min(whole, self.limit) if self.training else len(self)):
            yield mine[batch * self.per_rank : (batch + 1) * self.per_rank]


class Feed:
    """The training batches of a process, pass after pass, all from the same workers.

    Iterating gives the pass that was begun. `starting` is how many seconds of the last wait for a
    batch went by until its worker had started, which happens once.
    """

    def __init__(
        self, dataset: PairDataset, batches: Batches, *, workers: int, pin_memory: bool
    ) -> None:
        self.batches, self.workers, self.starting = batches, workers, 0.0
        self.say: Callable[[str], None] = lambda message: None  # told when no image comes
        self._waiting, self._taken = False, 0
        self._ready = multiprocessing.get_context("spawn").RawValue(c_double, 0.0)
        self._loader = make_loader(
            dataset,
            batches,
            workers=workers,
            pin_memory=pin_memory,
            ready=self._ready,
            poll=POLL,
        )
        self._pass: tuple[int | None, ...] = ()  # the one that was begun last
        self._coming: Iterator[Batch] | None = None

    def begin(self, *place: int | None) -> None:
        """Have the workers load the first batches of a pass now; `place` is set_epoch's."""
        if self._coming is not None and place == self._pass:
            return
        self.batches.set_epoch(*place)  # type: ignore[arg-type]
        self._pass = place
        # Without workers nothing is loaded ahead, and making the iterator costs nothing.
        self._coming = iter(self._loader) if self.workers else None

    def close(self) -> None:
        """End the workers, whoever still holds this or its batches, and tell nobody any more.

        A process waits at its end for workers that run, for ever.
        """
        self._coming, self.say = None, lambda message: None
        if running := getattr(self._loader, "_iterator", None):
            running._shutdown_workers()

    def __iter__(self) -> Iterator[Batch]:
        coming = iter(self._loader) if self._coming is None else self._coming
        self._coming = None
        with self._watched():
            while True:
                began, self._waiting = time.monotonic(), True
                batch = self._next(coming)
                self._waiting, self._taken = False, self._taken + 1
                if batch is None:
                    return
                waited = time.monotonic() - began
                self.starting = min(max(self._ready.value - began, 0.0), waited)
                yield batch

    def _next(self, coming: Iterator[Batch]) -> Batch | None:
        """Return the next batch, None at the end.

        Raises LoadingError within a minute of silence; workers that still start have longer.
        """
        began = time.monotonic()
        while True:
            try:
                return next(coming, None)
            except RuntimeError as error:
                started = self._ready.value or began + STARTING - PATIENCE
                if "timed out" in str(error) and time.monotonic() - max(began, started) < PATIENCE:
                    continue
                _end_workers(coming)
                raise LoadingError(why_silent(error)) from error

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Say so where this process itself waits for its images: nobody else can end that."""
        ended = threading.Event()

        def watch() -> None:
            taken = -1
            while not ended.wait(PATIENCE):
                if taken == self._taken and self._waiting:
                    self.say(
                        f"no image has come for {PATIENCE:.0f} s: the disk with the decoded images "
                        "hangs, or is very slow. Wait, or go on from the last save with a local "
                        "--cache-dir."
                    )
                taken = self._taken

        thread = threading.Thread(target=watch, daemon=True)
        if not self.workers:
            thread.start()
        try:
            yield
        finally:
            ended.set()


class LoadingError(TrainingError):
    """No image comes any more; the message says why, and what to change."""


def _end_workers(coming: Any) -> None:
    """End loading processes that may hang: they do not listen to a request to stop.

    PyTorch watches them, and would report their end as an error of its own, anywhere.
    """
    with suppress(AttributeError):
        signal_handling._remove_worker_pids(id(coming))
        coming._worker_pids_set = False
    for worker in getattr(coming, "_workers", ()):
        worker.kill()


def why_silent(error: Exception) -> str:
    """Say why the loading processes bring nothing, by PyTorch's error, and what to change."""
    said = str(error).splitlines()[0].rstrip(". ")
    if "timed out" in said:
        return (
            f"no image has come from the loading processes for {PATIENCE:.0f} s: the disk with the "
            "decoded images hangs (name a local --cache-dir), or shared memory, /dev/shm, is full "
            "(in Docker, --shm-size=1g gives more; --num-workers 0 needs none)."
        )
    return (
        f"a loading process died ({said}). The system does that when memory runs out, or shared "
        "memory, /dev/shm (in Docker, --shm-size=1g gives more). --num-workers 0 loads without."
    )


def shared_memory_short(workers: int, batch_bytes: int, processes: int = 1) -> str:
    """Say why so many loading processes cannot hand over such batches; "" if they can.

    Each has two batches on the way, and they meet in /dev/shm; Docker gives it 64 MB.
    """
    try:
        free = shutil.disk_usage(SHARED).free
    except OSError:  # another system
        return ""
    needed = (2 * workers + 2) * batch_bytes * processes
    if not workers or free >= needed:
        return ""
    return (
        f"{SHARED} has {free / 2**20:.1f} MiB free, but {workers} loading processes need "
        f"{needed / 2**20:.1f} MiB: images are loaded in the training process instead, as with "
        "--num-workers 0. In Docker, --shm-size=1g gives more."
    )


def _begin(ready: Any, worker: int) -> None:
    """Prepare a worker, and note that the one that loads the first batch has started.

    Ctrl-C in a terminal, `timeout` and batch systems signal every process of a training. Its main
    process ends the step and saves, and needs its workers until then.
    """
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.SIG_IGN)
    if worker == 0 and ready is not None:
        ready.value = time.monotonic()


def make_loader(
    dataset: PairDataset,
    batches: Batches,
    *,
    workers: int = 0,
    pin_memory: bool = False,
    ready: Any = None,
    poll: float = 0.0,
) -> DataLoader[Batch]:
    """Return a loader of `Batch`; its workers stay alive from epoch to epoch.

    `ready`, a shared number, takes the moment when the first of them had started, as
    time.monotonic() tells it, which is one clock for all processes of a machine.
    With `poll` it raises RuntimeError when workers bring nothing for so many seconds; it can be
    asked again.

    Workers are spawned: forking a process that runs threads, as every process with torch does, can
    deadlock, and Python warns of it from 3.12 on. A script that uses workers therefore needs the
    usual `if __name__ == "__main__":`.
    """
    return DataLoader(
        dataset,
        batch_size=None,  # the sampler's items are whole batches
        sampler=batches,
        num_workers=workers,
        timeout=poll if workers else 0,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=partial(_begin, ready) if workers else None,
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
        return fitting, f"{machine}; the decoded cache is fast, {ENOUGH_WORKERS} are always enough"
    if requested > max(fitting, 1):
        return requested, (
            f"as num_workers is set; warning: {fitting} would do with {machine}, as "
            "images come decoded from the cache. Leave out --num-workers to have the number chosen"
        )
    return requested, "as num_workers is set"


@lru_cache(maxsize=4)  # prefetching crosses from one epoch to the next
def uniforms(seed: int, epoch: int, count: int) -> NDArray[np.float32]:
    """Return the epoch's (count, K) numbers; the 1 keeps them apart from the order's."""
    return np.random.default_rng((seed, epoch, 1)).random((count, K), np.float32)
