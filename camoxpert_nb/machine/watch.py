"""What the processes of a training know of each other besides what they compute together.

Each says in short intervals that it is alive, from a thread that needs neither the GPU nor the
others; the first notices who does not. And who fails leaves its reason where all can read it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from torch import distributed as dist

from ..errors import PeerLost
from .joining import Card, Place, connect, named, say

BEAT = 2.0  # seconds between two signs of life
SILENCE = 30.0  # seconds without one after which a process is named
GRACE = 6.0  # seconds to notice by itself that another one failed; a GPU may wait for ever
LEAVES = "leaves"  # set in the store by the process that failed
LAST_WORDS = 2.0  # seconds it takes from there to its exit
HEARD = 12.0  # seconds for the others to read why one failed, before torchrun ends them

Tell = Callable[[str], None]


class Watch:
    """This process's signs of life, and in the first one the watch over those of the others."""

    def __init__(self, place: Place, store: dist.Store, cards: Sequence[Card]) -> None:
        self.place, self.store, self.cards = place, store, cards
        self.tell: Tell = say
        self.failed: Callable[[PeerLost], None] = lambda error: None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give no more signs."""
        self._ended.set()
        self._thread.join(timeout=2.0)

    @contextmanager
    def told(self, tell: Tell, failed: Callable[[PeerLost], None]) -> Iterator[None]:
        """Have `tell` hear of silent processes, and `failed` of another one's failure.

        Both are called from the watching thread.
        """
        before, self.tell, self.failed = (self.tell, self.failed), tell, failed
        try:
            yield
        finally:
            self.tell, self.failed = before

    # -- failures ----------------------------------------------------------------------------

    def post(self, error: BaseException) -> None:
        """Let the others read why this process ends; who fails first is the cause."""
        with suppress(RuntimeError):  # the store may be gone already
            self.store.compare_set("failure", "", json.dumps(self._described(error)))

    def cause(self) -> dict[str, Any] | None:
        """Return what a process that failed left, if one did."""
        return _read(self.store)

    def heard(self) -> None:
        """Say that this process has told its user what happened."""
        with suppress(RuntimeError):
            self.store.set(f"heard {self.place.rank}", "")

    def wait_until_heard(self) -> None:
        """Wait, but not for long, until all others have told their users, and say that this leaves.

        What this one has to say it says as it leaves: the others stay until then.
        """
        self._wait_for(
            [f"heard {card.rank}" for card in self.cards if card.rank != self.place.rank]
        )
        with suppress(RuntimeError):
            self.store.set(LEAVES, "")

    def let_go_first(self) -> None:
        """Wait, but not for long, until the process that failed is gone.

        Whoever is gone first has the others ended, and what the cause has to say would be lost.
        """
        if self.cause() and self._wait_for([LEAVES]):
            time.sleep(LAST_WORDS)

    def _wait_for(self, keys: list[str]) -> bool:
        until = time.monotonic() + HEARD
        with suppress(RuntimeError):
            while time.monotonic() < until:
                if self.store.check(keys):
                    return True
                time.sleep(0.05)
        return False

    def _described(self, error: BaseException) -> dict[str, Any]:
        return described(self.place.rank, self.cards[self.place.rank].host, error)

    # -- signs of life -----------------------------------------------------------------------

    def _work(self) -> None:
        with suppress(RuntimeError):  # the store is gone: the training ends, or its starter did
            store = connect(self.place)
            pulse = _Pulse(self.cards)
            noticed = 0.0
            for beat in range(2**62):
                store.set(_key(self.place.rank), str(beat))
                if self.place.rank == 0:
                    for message in pulse.news([_beat(store, c.rank) for c in self.cards]):
                        self.tell(message)
                if found := _read(store):
                    noticed = noticed or time.monotonic()
                    if time.monotonic() - noticed > GRACE:
                        self._end(store, found)
                if self._ended.wait(BEAT):
                    return

    def _end(self, store: dist.Store, cause: dict[str, Any]) -> None:
        """End this process, whose main thread waits for one that will not come."""
        if cause["process"] == self.place.rank or self._ended.is_set():
            return
        error = lost(cause, speaks=self.place.local_rank == 0)
        with suppress(Exception):
            self.failed(error)
        complain(error)
        store.set(f"heard {self.place.rank}", "")
        sys.stdout.flush()
        os._exit(error.exit_code)


class _Pulse:
    """When each process last gave a sign, by this process's clock."""

    def __init__(self, cards: Sequence[Card]) -> None:
        now = time.monotonic()
        self.cards, self.looked = cards, now
        self.beats: dict[int, tuple[bytes, float]] = {card.rank: (b"", now) for card in cards}
        self.silent: dict[int, float] = {}  # by rank: when it was heard last

    def news(self, beats: Sequence[bytes]) -> Iterator[str]:
        """Yield a sentence for each process that fell silent, and that answers again."""
        now = time.monotonic()
        if now - self.looked > max(SILENCE / 2, 3 * BEAT):  # it was this one that stood still
            self.beats = {rank: (beat, now) for rank, (beat, _) in self.beats.items()}
        self.looked = now
        for card, beat in zip(self.cards, beats, strict=True):
            before, since = self.beats[card.rank]
            if beat != before:
                self.beats[card.rank] = beat, now
                if card.rank in self.silent:
                    seconds = now - self.silent.pop(card.rank)
                    yield f"{named(card)} answers again, after {seconds:.0f} s"
            elif now - since > SILENCE and card.rank not in self.silent:
                self.silent[card.rank] = since
                yield (
                    f"{named(card)} has not answered for {now - since:.0f} s: it is stopped, or "
                    "its machine or the network is. The others wait for it."
                )


def described(rank: int, host: str, error: BaseException) -> dict[str, Any]:
    """Return a failure as plain values, for the store and for other processes."""
    kind = type(error).__name__
    message = str(error) if getattr(error, "exit_code", None) else f"{kind}: {error}".rstrip(": ")
    return {"process": rank, "host": host, "kind": kind, "message": message}


def lost(cause: dict[str, Any], *, speaks: bool) -> PeerLost:
    """Return the error for the processes beside the one that failed."""
    message = f"process {cause['process']} on {cause['host']}: {cause['message']}"
    return PeerLost(message, cause, silent=not speaks)


def complain(error: PeerLost) -> None:
    """Tell the user now: this process may be ended before its error is."""
    if not error.silent:
        say(f"camoxpert: {error}", sys.stderr)
        error.silent = True


def _read(store: dist.Store) -> dict[str, Any] | None:
    with suppress(RuntimeError):
        if store.check(["failure"]):
            found: dict[str, Any] = json.loads(store.get("failure"))
            return found
    return None


def _beat(store: dist.Store, rank: int) -> bytes:
    return store.get(_key(rank)) if store.check([_key(rank)]) else b""


def _key(rank: int) -> str:
    return f"beat {rank}"
