"""Trainings that are killed, go on, and must come to the end they would have come to."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

from camoxpert_nb.settings.config import Config

from .moments import Counts, Moment, any_line, any_write, kill_at, record
from .tally import Fault, Tally
from .whole_runs import differences, ended, leftovers, nothing, started, tiny, train

KILLED = -9
# Settings under which other files are written at other times: a last checkpoint that is an epoch
# old where the process dies; epochs of one step; a save at each step.
VARIANTS: tuple[dict[str, Any], ...] = (
    {"batch_size": 2},
    {"batch_size": 7, "keep_best": 1},
    {"batch_size": 2, "save_minutes": 1e-9},
)


@cache
def reference(number: int) -> Reference:
    """Return the undisturbed training of a variant, trained once."""
    return Reference(Path(_shared().name), number)


@cache
def _shared() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of what all kinds compare with, which lasts as long as this process."""
    return tempfile.TemporaryDirectory(prefix="faults-")


class Reference:
    """An undisturbed training with the settings of a variant, and the places it came to."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.config = self.named(f"whole-{number}")
        counts = folder / f"whole-{number}-places.json"
        code, said = train(self.config, partial(record, counts, folder))
        assert code == 0, said
        self.counts: Counts = json.loads(counts.read_text())

    def named(self, name: str) -> Config:
        """Return the settings of another training of this variant."""
        return tiny(self.folder, name, **VARIANTS[self.number])

    def lost_by(self, moments: list[Moment], name: str) -> tuple[int, str]:
        """Kill a training at these moments, one after the other; say how often, and what is lost.

        Moments that a process does not come to do nothing. Then it goes on to its end.
        """
        config, deaths = self.named(name), 0
        for moment in moments:
            code, said = train(config, partial(kill_at, moment, self.folder))
            if code != KILLED:
                break
            deaths += 1
        else:
            code, said = train(config)
        if code != 0:
            return deaths, f"it does not go on (exit code {code}): {said.strip()}"
        found = differences(Path(self.config.checkpoint_dir), Path(config.checkpoint_dir))
        if left := leftovers(config):
            found.append(f"left behind: {left}")
        return deaths, "; ".join(found)


def _any(counts: Counts, random: Random) -> Moment:
    return random.choice((any_line, any_write))(counts, random)


def _killed(
    draw: Callable[[Counts, Random], Moment], most: int, folder: Path, times: int, seed: int
) -> Tally:
    """Kill so many trainings, each up to `most` times, the later times also while it goes on."""
    tally, random = Tally(), Random(seed)
    references = [reference(number) for number in range(2 if times < 10 else len(VARIANTS))]
    for trial in range(3 * times):
        whole = references[trial % len(references)]
        moments = [draw(whole.counts, random) for _ in range(random.randint(min(most, 2), most))]
        deaths, lost = whole.lost_by(moments, f"{folder.name}-{seed}-{trial}")
        if deaths:
            tally.count(not lost, f"{' and '.join(map(str, moments[:deaths]))}: {lost}")
        if tally.tried == times:
            break
    return tally


def _killed_ranks(folder: Path, times: int, seed: int) -> Tally:
    """Kill one of two processes, let the other end, and go on with two."""
    tally, random = Tally(), Random(seed)
    config = tiny(folder, "whole", **RANKS)
    counts = [folder / f"places-{rank}.json" for rank in (0, 1)]
    found = train_two(config, [partial(record, each, folder) for each in counts])
    assert [code for code, _ in found] == [0, 0], found
    places = [json.loads(each.read_text()) for each in counts]
    for trial in range(3 * times):
        rank = random.randint(0, 1)
        moment = (any_write if rank == 0 and trial % 3 == 0 else any_line)(places[rank], random)
        killed = tiny(folder, f"killed-{trial}", **RANKS)
        acts = [partial(kill_at, moment, folder) if each == rank else nothing for each in (0, 1)]
        codes = [code for code, _ in train_two(killed, acts)]
        if KILLED not in codes:
            continue
        lost = "the other process hangs" if -15 in codes else ""
        again = train_two(killed)
        lost = lost or "; ".join(said for code, said in again if code)
        parts = differences(Path(config.checkpoint_dir), Path(killed.checkpoint_dir))
        lost = lost or "; ".join(parts) or leftovers(killed)
        tally.count(not lost, f"process {rank} at {moment}: {lost}")
        if tally.tried == times:
            break
    return tally


RANKS: dict[str, Any] = {"batch_size": 2, "save_minutes": 1e-9, "epochs": 2}


def train_two(config: Config, acts: Any = (nothing, nothing)) -> list[tuple[int, str]]:
    """Train in two processes that each do one of `acts` before; return how each ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    world["LOCAL_WORLD_SIZE"] = "2"
    processes = [
        started(config, act, RANK=str(rank), LOCAL_RANK=str(rank), **world)
        for rank, act in enumerate(acts)
    ]
    until = time.monotonic() + 90
    return [ended(each, config, max(until - time.monotonic(), 0.1)) for each in processes]


KILLS = (
    Fault(
        "kill -9 before any line of the kit",
        "resumed, all is as uninterrupted, bit for bit; no file is torn or left behind",
        partial(_killed, any_line, 1),
        few=3,
        many=120,
    ),
    Fault(
        "kill -9 within a write, half of it done",
        "the same",
        partial(_killed, any_write, 1),
        few=3,
        many=60,
    ),
    Fault(
        "kill -9 two to four times, also while it goes on",
        "the same",
        partial(_killed, _any, 4),
        few=1,
        many=30,
    ),
    Fault(
        "kill -9 of one of two processes (gloo)",
        "the other ends by itself; resumed, all is as uninterrupted",
        _killed_ranks,
        few=1,
        many=20,
    ),
)
