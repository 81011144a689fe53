"""How the processes of a training find each other: where, how long, and who is missing.

torch waits for all of them in silence for a quarter of an hour. Here each puts a card into the
store of the first process (or of torchrun, which may keep one already) and waits for the cards of
the others, and while it waits it says for whom.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, TextIO

import torch
from torch import distributed as dist

from .. import __version__
from ..errors import InputError

SPEAK_EVERY = 10.0  # seconds of waiting between two words about it
GIVING_UP = 1.0  # seconds in which the others can read why, before the store is gone
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """A process's place among those that train together, as its starter told it."""

    rank: int
    world: int
    local_rank: int
    local_world: int
    host: str  # where the first process's store listens
    port: int

    @property
    def machine(self) -> int:
        """The number of this machine, from 0."""
        return int(os.environ.get("GROUP_RANK", self.rank // self.local_world))

    @property
    def machines(self) -> int:
        """How many machines train together."""
        return int(os.environ.get("GROUP_WORLD_SIZE", -(-self.world // self.local_world)))


@dataclass(frozen=True)
class Card:
    """What a process tells the others of itself before they begin."""

    rank: int
    world: int
    machine: int
    host: str
    pid: int
    kit: str
    torch: str
    cuda: bool  # whether it may compute on a GPU


def say(message: str, stream: TextIO | None = None) -> None:
    """Write a line for the user at once: who waits for long, or is ended, has no other voice."""
    stream = stream or sys.stdout
    stream.write(message + "\n")
    stream.flush()


def expected() -> bool:
    """Say whether this process was started as one of several (or by torchrun)."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def read_place() -> Place:
    """Return what the environment says; InputError names what it lacks."""
    missing = [name for name in NAMES if not os.environ.get(name)]
    numbers = [name for name in NAMES if name != "MASTER_ADDR" and name not in missing]
    wrong = [f"{n}={os.environ[n]}" for n in numbers if not os.environ[n].isdecimal()]
    if missing or wrong:
        found = f"{', '.join(missing)} not set" if missing else f"{', '.join(wrong)} is no number"
        raise InputError(
            f"RANK and WORLD_SIZE say that this process is one of several, but {found}. Start with "
            "torchrun, which sets them all, or set all six; or unset RANK to train alone."
        )
    rank, world, local_rank, local_world, port = (int(os.environ[name]) for name in numbers)
    return Place(rank, world, local_rank, local_world, os.environ["MASTER_ADDR"], port)


def join(place: Place, minutes: float, *, cuda: bool) -> tuple[dist.Store, list[Card]]:
    """Return the store that all share and everybody's card, by rank.

    Raises InputError when somebody is not there after `minutes`, or is there twice, or cannot
    train with the others.
    """
    own = Card(
        place.rank,
        place.world,
        place.machine,
        platform.node(),
        os.getpid(),
        __version__,
        torch.__version__,
        cuda,
    )
    waiting = _Waiting(place, time.monotonic() + 60 * minutes, minutes)
    with waiting.told():
        store = waiting.connect()
        _put(store, own)
        cards = waiting.collect(store)
    _check(cards)
    return store, cards


def connect(place: Place, seconds: float = 30.0) -> dist.Store:
    """Return a connection of its own to the store: each thread needs one."""
    return _prefixed(_client(place, seconds))


class _Waiting:
    """The wait for the others, about which one process of each machine speaks."""

    def __init__(self, place: Place, deadline: float, minutes: float) -> None:
        self.place, self.deadline, self.minutes = place, deadline, minutes
        self.address = f"{place.host}:{place.port}"
        self.missing = list(range(place.machines))[: -1 if place.machines > 1 else None]
        self.why = ""  # the first process's store is not reached

    def sentence(self) -> str:
        """Say for whom this process waits."""
        place = self.place
        if place.machines > 1:
            who = f"{max(len(self.missing), 1)} of {place.machines} machines"
        else:
            who = f"the other of {place.world} processes"
        return f"waiting for {who} at {self.address}" + (f": {self.why}" if self.why else "")

    @contextmanager
    def told(self) -> Iterator[None]:
        """Say it every ten seconds, from a thread: looking up an address may block for long."""
        ended, began = threading.Event(), time.monotonic()

        def speak() -> None:
            while not ended.wait(SPEAK_EVERY):
                say(f"{self.sentence()} ({time.monotonic() - began:.0f} s)")

        if self.place.local_rank == 0:
            threading.Thread(target=speak, daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def connect(self) -> dist.Store:
        """Open the store as the first process, or reach it as another."""
        place = self.place
        by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        if place.rank == 0 and not by_torchrun:
            return _prefixed(_open_store(place))
        while True:
            self.why = _unreachable(place)
            if not self.why:
                try:
                    return _prefixed(_client(place, 10.0))
                except (dist.DistError, RuntimeError):
                    self.why = "what answers there is no training"
            self.check_time(None)
            time.sleep(0.5)

    def collect(self, store: dist.Store) -> list[Card]:
        """Return all cards, by rank."""
        pause, left = 0.02, list(range(self.place.world))
        try:
            while left := [rank for rank in left if not store.check([_key(rank)])]:
                machines = {rank // self.place.local_world for rank in left}
                self.missing, self.left = sorted(machines), left
                if store.check(["given up"]):
                    raise InputError(store.get("given up").decode())
                self.check_time(store)
                time.sleep(pause)
                pause = min(2 * pause, 0.5)
            return [Card(**json.loads(store.get(_key(r)))) for r in range(self.place.world)]
        except dist.DistError as error:
            raise InputError(
                f"the first process at {self.address} left while the others were still joining; "
                "it says why. Start all of them again."
            ) from error

    def check_time(self, store: dist.Store | None) -> None:
        """Raise InputError when the time is over, which says who is missing and what to check."""
        if time.monotonic() < self.deadline:
            return
        place = self.place
        if store is None:
            who = f"the first process is not to be reached at {self.address} ({self.why})"
        else:
            names = ", ".join(map(str, self.left[:8])) + (", ..." if len(self.left) > 8 else "")
            who = f"process {names} of {place.world} did not come to {self.address}"
        message = (
            f"{who} within {self.minutes:g} minutes. Check that every machine was started, with "
            "the same address, port and number of processes and the same version of this kit; "
            f"that {place.host} is the first machine's address in the network they share, and that "
            "no firewall closes the port. --join-minutes sets how long to wait."
        )
        if store is not None:
            store.set("given up", message)
            time.sleep(GIVING_UP)
        raise InputError(message)


def _open_store(place: Place) -> dist.Store:
    try:
        return dist.TCPStore(
            place.host,
            place.port,
            is_master=True,
            wait_for_workers=False,
            multi_tenant=True,
            timeout=timedelta(seconds=30),
        )
    except (dist.DistError, RuntimeError) as error:
        raise InputError(
            f"the first process cannot be reached by the others at {place.host}:{place.port} "
            f"({_unreachable(place) or str(error).splitlines()[0]}). It must be an address of this "
            "machine, and a port that nobody uses: choose another MASTER_PORT (--master-port)."
        ) from error


def _client(place: Place, seconds: float) -> dist.Store:
    timeout = timedelta(seconds=seconds)
    return dist.TCPStore(
        place.host, place.port, is_master=False, wait_for_workers=False, timeout=timeout
    )


def _prefixed(store: dist.Store) -> dist.Store:
    # torchrun's store outlives the processes, which it may start anew.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"camoxpert {attempt}", store)


def _unreachable(place: Place) -> str:
    """Return why nothing answers at the address; nothing if something does."""
    try:
        socket.create_connection((place.host, place.port), timeout=5.0).close()
    except socket.gaierror:
        return f"no machine is known by the name {place.host}"
    except OSError as error:
        return f"nobody answers there yet, {error.strerror or error}".lower()
    return ""


def _key(rank: int) -> str:
    return f"card {rank}"


def _put(store: dist.Store, own: Card) -> None:
    text = json.dumps(asdict(own))
    there = store.compare_set(_key(own.rank), "", text).decode()
    if there != text:
        other = json.loads(there)
        raise InputError(
            f"process {own.rank} is there twice: as {other['pid']} on {other['host']} and as "
            f"{own.pid} on {own.host}. Give each machine another number (--node-rank)."
        )


def _check(cards: list[Card]) -> None:
    """Raise InputError, the same in all processes, where they cannot train together."""
    first = cards[0]
    differ: tuple[tuple[str, Callable[[Card], Any], str], ...] = (
        ("camoxpert_nb", lambda card: card.kit, "Install the same version on all machines."),
        # What follows the plus names the build, for this GPU or that.
        ("torch", lambda c: c.torch.partition("+")[0], "Install the same version on all machines."),
        ("a world of", lambda card: card.world, "Start all with the same number of processes."),
    )
    for what, value, advice in differ:
        others = [card for card in cards if value(card) != value(first)]
        if others:
            listed = "; ".join(f"{named(card)} has {what} {value(card)}" for card in others[:4])
            raise InputError(f"{listed}; {named(first)} has {value(first)}. {advice}")


def named(card: Card) -> str:
    """Return how a process is called in a sentence."""
    return f"process {card.rank} on {card.host}"
