"""How long a training will still take: by the steps it takes, and by what its later stages cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from ..errors import InputError
from .run import Run

Row = Mapping[str, Any]

ESTIMATE = "estimate"  # .json in a run: what a dry run of its settings measured before it began

LOOK_BACK = 40  # stretches between two step records: two epochs of them
EXPECTED = 5  # stretches that a stage begins with, made of the last one's; each real one ends one
HELD = 3.0  # times the usual: a stretch that long held a pause, or something that happens once
# What a step costs by open backbone blocks, beside one of stage one with the same batch. Counted
# for edgenext_base at 320 px on a T4 (`camoxpert train --dry-run --on t4`); a small network on a
# CPU took 1.8 with all four.
WORK = {0: 1.0, 1: 1.2, 2: 1.4}
WHOLE = 1.9


class Pace:
    """Hears a training's records and says how many seconds are left.

    stages: those of the plan, in order, each with "name", "first_epoch", "epochs", "steps" of an
    epoch, "open_blocks", "batch" and perhaps "area", the share of an image's pixels that trains;
    none of an older run, all of whose steps count alike.
    estimate: rows of "name" and "seconds_per_epoch", as a dry run measured them, else WORK holds.
    """

    def __init__(self, stages: Sequence[Row] = (), estimate: Sequence[Row] = ()) -> None:
        whole = all(map(_is_stage, stages))
        self.stages = list(stages) if whole else []
        self._measured = {row["name"]: row["seconds_per_epoch"] for row in estimate}
        self._stretches: deque[float] = deque(maxlen=LOOK_BACK)  # seconds a step
        self._expected: list[float] = []  # the same, before as many were seen
        self._between: deque[float] = deque(maxlen=LOOK_BACK)  # seconds from epoch to epoch
        self._last: dict[str, Any] = {}
        self._steps = 0

    def hear(self, record: Row) -> None:
        """Take a "step" or "epoch" record with its "time" in seconds; others say nothing."""
        kind, last = record.get("kind"), self._last
        if kind not in ("step", "epoch"):
            return
        if last and record.get("stage") != last.get("stage"):
            self._enter(record)
        seconds, steps = (record.get(key, 0) - last.get(key, 0) for key in ("time", "step"))
        if last.get("kind") == "step":
            if kind == "epoch":
                self._between.append(max(seconds - steps * (self._a_step() or 0.0), 0.0))
            elif steps > 0 and record.get("epoch") == last.get("epoch"):
                self._stretches.append(seconds / steps)
                self._expected = self._expected[1:]
        self._steps = record.get("steps", self._steps)
        self._last = dict(record)

    def _enter(self, record: Row) -> None:
        """Expect of a new stage's steps what it costs beside the last one's.

        Its first steps are slow, so that they alone would make the time left jump.
        """
        before, now = self._now(), self._stage(record)
        usual = self._a_step()
        self._expected = []
        if before and now and usual:
            self._expected = [usual * self._ratio(before, now)] * EXPECTED
        self._stretches.clear()

    def seconds_left(self) -> float | None:
        """Return the seconds to the end of the training; None while they are not known."""
        one = self._a_step()
        if one is None:
            return None
        left = max(self._steps - self._last.get("step", 0), 0)
        epoch, now = self._last.get("epoch", 0), self._now()
        seconds, rounds = 0.0, 0
        for stage in self.stages:
            epochs = max(
                stage["first_epoch"] + stage["epochs"] - max(stage["first_epoch"], epoch), 0
            )
            steps = epochs * stage["steps"]
            left, rounds = left - steps, rounds + epochs
            seconds += steps * one * (self._ratio(now, stage) if now else 1.0)
        rounds += self._last.get("kind") == "step" and bool(self.stages)
        pause = median(self._between) if self._between else 0.0
        return seconds + max(left, 0) * one + rounds * pause

    def _a_step(self) -> float | None:
        """Return the seconds of a step of this stage, without what held it up for once."""
        stretches = [*self._expected, *self._stretches]
        if not stretches:
            return self._from_estimate()
        usual = median(stretches)
        return fmean(each for each in stretches if each <= HELD * usual)

    def _from_estimate(self) -> float | None:
        now = self._now()
        measured = self._measured.get(now["name"]) if now else None
        return measured / max(now["steps"], 1) if now and measured else None

    def _now(self) -> Row | None:
        return self._stage(self._last)

    def _stage(self, record: Row) -> Row | None:
        name = record.get("stage")
        return next((stage for stage in self.stages if stage["name"] == name), None)

    def _ratio(self, now: Row, then: Row) -> float:
        """Return what a step of another stage costs, beside one of this stage."""
        if now["name"] == then["name"]:
            return 1.0
        each = [
            (self._measured.get(stage["name"]) or 0.0) / max(stage["steps"], 1)
            for stage in (now, then)
        ]
        if not all(each):
            each = [_work(stage) for stage in (now, then)]
        return float(each[1] / each[0])


def estimate_of(run: Run) -> list[dict[str, Any]]:
    """Return the rows of what a dry run measured for a run; none where nothing fits."""
    try:
        rows = run.load_json(ESTIMATE).get("stages")
    except InputError:  # edited by hand
        return []
    return [row for row in rows if _is_row(row)] if isinstance(rows, list) else []


def _is_row(row: Any) -> bool:
    known = isinstance(row, dict) and isinstance(row.get("name"), str)
    return known and isinstance(row.get("seconds_per_epoch"), (int, float))


def _work(stage: Row) -> float:
    """Return what a step of a stage costs, beside one of stage one with one whole image."""
    area = stage.get("area", 1.0)  # a run of 0.1 has none
    return float(WORK.get(stage["open_blocks"], WHOLE) * stage["batch"] * area)


def _is_stage(row: Any) -> bool:
    keys = ("first_epoch", "epochs", "steps", "open_blocks", "batch")
    known = isinstance(row, Mapping) and isinstance(row.get("name"), str)
    return known and all(isinstance(row.get(key), int) for key in keys)


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds: 0:07:05, 31:00:00."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
