"""Clocks that jump while a training works, or differ between two processes of it."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from random import Random

from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config

from .kills import RANKS, reference, train_two
from .moments import any_line, do_at
from .tally import Fault, Tally
from .whole_runs import differences, nothing, tiny, train

DAY = 86400.0
DAYS = (-400, -2, -1 / 24, 1 / 24, 2, 400)
LONG = 90.0  # seconds that no such training takes


def shift(days: float) -> None:
    """Set this process's clock by so many days, as a machine does that finds a time server."""
    before = time.time
    time.time = lambda: before() + days * DAY  # type: ignore[assignment]


def _jumps(folder: Path, times: int, seed: int) -> Tally:
    """Set the clock at a random line, and back in the process that goes on after a stop."""
    tally, random, whole = Tally(), Random(seed), reference(0)
    for trial in range(times):
        config, days = whole.named(f"{folder.name}-{trial}"), random.choice(DAYS)
        moment = any_line(whole.counts, random)
        code, said = train(config, partial(do_at, moment, folder, partial(shift, days)))
        lost = _lost(whole.config, config, code, said)
        tally.count(not lost, f"{days:+.2f} days at {moment}: {lost}")
    return tally


def _apart(folder: Path, times: int, seed: int) -> Tally:
    tally, random = Tally(), Random(seed)
    whole = tiny(folder, "whole", **RANKS)
    assert [code for code, _ in train_two(whole)] == [0, 0]
    for trial in range(times):
        config, days = tiny(folder, f"apart-{trial}", **RANKS), random.choice(DAYS)
        acts = [nothing, partial(shift, days)]
        random.shuffle(acts)
        ends = train_two(config, acts)
        code, said = max(ends)
        lost = _lost(whole, config, code, said)
        tally.count(not lost, f"{days:+.2f} days: {lost}")
    return tally


def _lost(whole: Config, config: Config, code: int, said: str) -> str:
    if code:
        return f"exit code {code}: {said}"
    run = Run(config.checkpoint_dir)
    spent = [each["seconds"] for each in run.records("epoch")]
    spent.append(run.load_json("summary")["seconds"])
    odd = [f"{each} s were counted" for each in spent if not 0 <= each < LONG]
    return "; ".join([*odd, *differences(Path(whole.checkpoint_dir), run.folder)])


CLOCKS = (
    Fault(
        "clock set by up to 400 days at any line",
        "all is as with a steady one; times spent are those of the training",
        _jumps,
        few=1,
        many=30,
    ),
    Fault(
        "clocks of two processes up to 400 days apart",
        "the same",
        _apart,
        few=1,
        many=10,
    ),
)
