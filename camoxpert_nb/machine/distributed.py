"""The processes of one training: how they start, what they agree on, and how they end together.

torchrun (or `start_ranks`, which is torchrun's launcher in this process) starts one process per
GPU and tells each its place in environment variables; `joined` reads them. What decides anything
is agreed on by all: whether to stop, to pause or to save is asked after each step, so no process
waits for one that has left. A training of one process is the same code with nobody to ask.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import platform
import signal
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from ..errors import STOPPED, InputError, KitError, PeerLost, RankFailed
from .devices import cpu_count
from .joining import Card, expected, join, named, read_place
from .watch import Tell, Watch, complain, described, lost

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # one process may have to decode all images for the others
JOIN_MINUTES = 5.0  # to wait for the others at the start, unless it is told
RUN_ID = "TORCHELASTIC_RUN_ID"
OWN_LAUNCHER = "camoxpert-"  # how the ids begin that our own launcher gives

_watch: Watch | None = None  # of the processes this one has joined


@dataclass(frozen=True)
class Ranks:
    """This process's place among the `world` processes of one training.

    `local_rank` counts within the machine. With a world of 1 nothing is sent anywhere.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    cards: tuple[Card, ...] = ()  # what each process told of itself, by rank
    parent: int = 0  # the process that started this one, if it is to end with it

    @property
    def first(self) -> bool:
        """Say whether this process writes the run folder and talks to the user."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, on the device of `values`."""
        if self.world == 1:
            return values
        values = values.clone()
        with together():
            dist.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes, on the device of `values`."""
        return self.total(values) / self.world

    def any(self, *requests: bool) -> list[bool]:
        """Return for each request whether any process has it."""
        counts = torch.tensor(requests, dtype=torch.int32)  # on the CPU: no wait for the GPU
        return [count > 0 for count in self.total(counts).tolist()]

    def gather(self, value: T) -> list[T]:
        """Return every process's plain value, by rank."""
        values: list[Any] = [value] * self.world
        if self.world > 1:
            with together():
                dist.all_gather_object(values, value)
        return values

    def from_first(self, work: Callable[[], T]) -> T:
        """Return, in all processes, what `work` gives in the first; its error ends all."""
        value = [self.in_turn(work if self.first else lambda: None)]
        if self.world > 1:
            with together():
                dist.broadcast_object_list(value, src=0)
        return value[0]  # type: ignore[return-value]

    def in_turn(self, work: Callable[[], T]) -> T:
        """Return `work()`, run by the first process of each machine before the others.

        Thus one decodes and the others find it done. When it fails anywhere all end: with the
        error where it happened, elsewhere with PeerLost that says the same.
        """
        result, error = None, None
        for leads in (True, False):
            if leads == (self.local_rank == 0):
                try:
                    result = work()
                except KitError as caught:
                    error = caught
            if self.any(error is not None)[0]:
                own = described(self.rank, self.host, error) if error else {}
                cause = next(filter(None, self.gather(own)))
                raise error or lost(cause, speaks=self.local_rank == 0)
        return result  # type: ignore[return-value]

    def spread(self, tensors: Iterator[Tensor]) -> None:
        """Overwrite these tensors with the first process's."""
        for tensor in tensors if self.world > 1 else ():
            with together():
                dist.broadcast(tensor, src=0)

    @property
    def host(self) -> str:
        """The name of this process's machine."""
        return platform.node()

    @property
    def machine(self) -> int:
        """The number of this process's machine, from 0."""
        return self.cards[self.rank].machine if self.cards else 0

    @property
    def nccl(self) -> bool:
        """Say whether the processes' GPUs talk directly, which a CPU cannot join."""
        return _on_gpus(self.cards)

    @property
    def started(self) -> str:
        """Name what started this process as one of several, if the user did not leave it to us."""
        return "torchrun" if by_torchrun() else ""

    def name(self, rank: int) -> str:
        """Return how a process is called in a sentence."""
        return named(self.cards[rank]) if self.cards else f"process {rank}"

    @property
    def orphaned(self) -> bool:
        """Say whether the launcher that started this process is gone."""
        return self.parent > 0 and os.getppid() != self.parent

    def told(self, tell: Tell, failed: Callable[[PeerLost], None]) -> AbstractContextManager[None]:
        """Have `tell` hear which process falls silent, and `failed` which one failed.

        Both may be called from another thread.
        """
        return _watch.told(tell, failed) if _watch else contextlib.nullcontext()


ALONE = Ranks()


def _on_gpus(cards: Sequence[Card]) -> bool:
    return bool(cards) and all(card.cuda for card in cards)


def by_torchrun() -> bool:
    """Say whether torchrun itself, and not `start_ranks`, started this process."""
    return expected() and not os.environ.get(RUN_ID, OWN_LAUNCHER).startswith(OWN_LAUNCHER)


@contextmanager
def joined(minutes: float = JOIN_MINUTES, *, cpu: bool = False) -> Iterator[Ranks]:
    """Join the processes that were started together, if any, and leave them at the end.

    It waits so many minutes for them. `cpu`: this one will not use a GPU. Raises InputError for
    who does not come or does not fit.
    """
    if not expected():
        yield ALONE
        return
    place = read_place()
    store, cards = join(place, minutes, cuda=torch.cuda.is_available() and not cpu)
    parent = os.getppid() if RUN_ID in os.environ else 0
    four = place.rank, place.world, place.local_rank, place.local_world
    ranks = Ranks(*four, cards=tuple(cards), parent=parent)
    with _grouped(ranks, store), _watched(Watch(place, store, cards)):
        yield ranks
        # Whoever ends first with an error code has the others terminated: leave together.
        ranks.any(False)


@contextmanager
def _grouped(ranks: Ranks, store: dist.Store) -> Iterator[None]:
    """Connect the processes with each other, and let go at the end."""
    # NCCL knows GPUs alone: where one process has none, all talk over gloo.
    backend = "cpu:gloo,cuda:nccl" if ranks.nccl else "gloo"
    store.set_timeout(PATIENCE)
    try:
        dist.init_process_group(
            backend, store=store, timeout=PATIENCE, rank=ranks.rank, world_size=ranks.world
        )
    except RuntimeError as error:
        raise InputError(
            f"the processes found each other, but {ranks.name(ranks.rank)} could not be connected "
            f"with all of them ({str(error).splitlines()[0]}). Where a machine has several "
            "networks, name the one they share: GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0."
        ) from error
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _watched(watch: Watch) -> Iterator[None]:
    """Know of the others, and when it fails here let them know why."""
    global _watch
    _watch = watch
    try:
        yield
    except PeerLost as error:
        complain(error)
        watch.heard()
        watch.let_go_first()
        raise
    except Exception as error:
        watch.post(error)
        _hang_up(error)
        watch.wait_until_heard()
        raise
    finally:
        watch.close()
        _watch = None


def _hang_up(error: Exception) -> None:
    """Break the connections, so that the others notice now."""
    traceback.clear_frames(error.__traceback__)  # DDP is in one of them, and holds the group
    gc.collect()
    dist.destroy_process_group()


def leave(code: int) -> None:
    """End this process now, if torchrun started it.

    The threads behind the connections may abort a Python that shuts down in its usual way, and
    the exit code, which says why a training ended, would be lost.
    """
    if expected():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start_ranks(arguments: Sequence[str], processes: int) -> None:
    """Run `python -m ARGUMENTS...` in `processes` processes of this machine, to their end.

    It is torchrun's own launcher: Ctrl-C is passed on, and when one process fails the others are
    ended within half a minute. Raises RankFailed, which names the process.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # said below, once
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=OWN_LAUNCHER + uuid.uuid4().hex,
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        with _threads_for(processes):
            elastic_launch(config, sys.executable)("-m", *arguments)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        raise _failed(codes, processes) from error
    except SignalException as error:
        raise RankFailed("stopped on request", STOPPED, silent=True) from error


@contextmanager
def _threads_for(processes: int) -> Iterator[None]:
    """Share the cores out, unless the user has: processes that fight for cores crawl."""
    name = "OMP_NUM_THREADS"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(max(cpu_count() // processes, 1))
    try:
        yield
    finally:
        del os.environ[name]


def _failed(codes: dict[int, int], processes: int) -> RankFailed:
    """Return the error for these exit codes, of which one is the cause and the rest follow.

    Bad input and a stop are told by the process itself; a killed process tells nothing.
    """
    own = {r: c for r, c in codes.items() if c in (InputError.exit_code, STOPPED)}
    causes = {r: c for r, c in codes.items() if c not in (PeerLost.exit_code, -signal.SIGTERM)}
    rank, code = min((own or causes or codes).items(), key=lambda item: (item[1], item[0]))
    if code >= 0:
        return RankFailed(f"process {rank} of {processes} ended with code {code}.", code, True)
    name = signal.Signals(-code).name
    why = " The system does that when memory runs out: lower --num-workers or the batch size."
    return RankFailed(
        f"process {rank} of {processes} was killed ({name}), so the others were ended."
        + (why if name == "SIGKILL" else ""),
        1,
        False,
    )


@contextmanager
def together() -> Iterator[None]:
    """Turn a connection that breaks, in our own messages or in DDP's, into PeerLost."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, KitError) or not _broken(error):
            raise
        raise _why_broken(error) from error


def _why_broken(error: RuntimeError) -> PeerLost:
    """Return what the lost process said, or that it said nothing."""
    leads = _watch is not None and _watch.place.local_rank == 0
    if _watch and (cause := _watch.cause()):
        return lost(cause, speaks=leads)
    message = (
        "the connection to another process of this training broke "
        f"({str(error).splitlines()[0]}). Go on from the last save with `camoxpert resume`."
    )
    own = os.environ.get(RUN_ID, "").startswith(OWN_LAUNCHER)  # it says which process was killed
    return PeerLost(message, silent=own or not leads)


def _broken(error: RuntimeError) -> bool:
    words = str(error).lower()
    signs = ("connection", "gloo", "nccl", "peer", "timed out", "socket")
    return isinstance(error, dist.DistError) or any(sign in words for sign in signs)
