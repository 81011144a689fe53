"""One epoch of steps: what is queued, what is recorded, and where the time went.

Whoever goes through the steps prints, saves, pauses or stops between two of them. On a GPU a
step's numbers are read when the next one is queued, so that the GPU never waits for the host;
`EpochSteps.settle` reads them at once, and then the state is whole.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .schedule import Plan
from .state import TrainState
from .train import (
    SCORED,
    Batch,
    Queued,
    StepSettings,
    count_images,
    loss_weights,
    queue_step,
    settle,
)

TIMES = ("workers", "data", "host", "device")  # where the seconds of a step may go
IDLE = 0.05  # of a step, in which the host waits for the GPU: then the GPU sets the pace
WEIGHTED = "weighted/"  # how the sums name the terms as they enter the loss
COUNTED = ("seconds", *TIMES, "images", "skipped", "replayed")  # of skipped steps too


@dataclass(frozen=True)
class _Step:
    """A step that was queued, and what was known of it then."""

    queued: Queued
    number: int
    of: int  # steps in the whole training
    time: float  # in epochs
    images: int
    workers: float  # seconds until the loading processes had started
    data: float  # seconds spent waiting for images besides
    weights: dict[str, float]  # of the further losses
    idle: float  # seconds from the step before until this one was queued


class EpochSteps:
    """The steps to the end of the state's epoch, each taken when its turn comes; yields records.

    `batches` are the epoch's remaining ones. The epoch's sums live in the state, so an epoch that
    was interrupted ends with the same means as one that was not.
    """

    def __init__(
        self, state: TrainState, plan: Plan, batches: Iterable[Batch], settings: StepSettings
    ) -> None:
        self.state, self.plan, self.settings, self._batches = state, plan, settings, batches
        self.stage = plan.stage_at(state.epoch)
        self._open: deque[_Step] = deque()  # queued, and not read yet
        self._before: torch.cuda.Event | None = None  # the end of the last step, while in a row
        state.open_blocks(self.stage.open_blocks, self.stage.size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._since = time.perf_counter()
        late = steps_in_flight(self.state.device)
        for group, workers, data in self._groups():
            self._open.append(self._queue(group, workers, data))
            if len(self._open) > late:
                yield self._settle()
                self._since = time.perf_counter()
        yield from self.settle()

    def settle(self) -> list[dict[str, Any]]:
        """Read what the device still works on, and return the records of it."""
        records = [self._settle() for _ in range(len(self._open))]
        self._before, self._since = None, time.perf_counter()
        return records

    def _queue(self, group: list[Batch], workers: float, data: float) -> _Step:
        state, plan = self.state, self.plan
        now = plan.time(state.epoch, state.seen)
        state.set_learning_rates(plan, now)
        idle = time.perf_counter() - self._since
        weights = loss_weights(self.settings, now / plan.epochs)
        queued = queue_step(state, group, self.settings, weights)
        images = count_images(group) * state.ranks.world
        state.step, state.seen = state.step + 1, state.seen + images
        of = state.step + plan.steps_from(state.epoch, state.seen)
        return _Step(queued, state.step, of, now, images, workers, data, weights, idle)

    def _settle(self) -> dict[str, Any]:
        """Read the oldest step's numbers, add them to the epoch's, and return its record."""
        step, state = self._open.popleft(), self.state
        values, waited = settle(state, step.queued)
        times = self._times(step, waited)
        seconds = sum(times.values())
        state.seconds += seconds
        counts = {**times, "seconds": seconds, "images": step.images, "steps": 1}
        counts["replayed"] = float(step.queued.replayed)
        weighted = {name: weight * values[name] for name, weight in step.weights.items()}
        weighted = {"structure": values["structure"], **weighted}
        _add(state.sums, values | counts | {WEIGHTED + name: x for name, x in weighted.items()})
        return {
            "epoch": state.epoch + 1,
            "step": step.number,
            "steps": step.of,
            "stage": self.stage.name,
            "lr": _rates(self.plan, step.time),
            "images_per_second": step.images / seconds,
            **_with_train_iou(values),
            "weighted": weighted,
            "seconds": seconds,
            "data_wait": times["data"],
        }

    def _times(self, step: _Step, waited: float) -> dict[str, float]:
        """Split the time from the step before to the end of this one; `waited` for the GPU."""
        queued = step.queued
        if queued.began is None or queued.ended is None:  # a CPU computes while it "launches"
            spent = time.perf_counter() - self._since - step.workers - step.data
            self._since = time.perf_counter()
            return {"workers": step.workers, "data": step.data, "host": 0.0, "device": spent}
        gap = step.idle  # of the GPU, before this step
        if self._before is not None:
            gap = self._before.elapsed_time(queued.began) / 1000
        span = queued.began.elapsed_time(queued.ended) / 1000
        self._before = queued.ended
        return split_gpu_time(
            gap, span, workers=step.workers, data=step.data, waited=waited, replayed=queued.replayed
        )

    def _groups(self) -> Iterator[tuple[list[Batch], float, float]]:
        """Yield as many batches as a step takes, and the seconds until workers and they came."""
        group: list[Batch] = []
        workers, waited, started = 0.0, 0.0, time.perf_counter()
        for batch in self._batches:
            waited += time.perf_counter() - started
            workers += getattr(self._batches, "starting", 0.0)
            group.append(batch)
            if len(group) == self.settings.accumulation:
                yield group, workers, max(waited - workers, 0.0)
                group, workers, waited = [], 0.0, 0.0
            started = time.perf_counter()


def steps_in_flight(device: torch.device) -> int:
    """Return how many steps are queued before the oldest is read: one on a GPU."""
    return 1 if device.type == "cuda" else 0


def split_gpu_time(
    gap: float, span: float, *, workers: float, data: float, waited: float, replayed: bool
) -> dict[str, float]:
    """Return to whom the seconds of a step belong, by TIMES.

    `gap`: for how long the GPU had nothing to do before the step; `span`: from there to its end.
    `workers` and `data` are what the host waited for, which costs nothing while the GPU has work.
    Within `span` a GPU may run dry between launches: it does where the host never had to wait for
    it (`waited`), unless one launch replayed all.
    """
    workers = min(workers, gap)
    data = min(data, gap - workers)
    dry = not replayed and waited < IDLE * (gap + span)
    host = gap - workers - data + (span if dry else 0.0)
    return {"workers": workers, "data": data, "host": host, "device": 0.0 if dry else span}


def end_epoch(state: TrainState, plan: Plan) -> dict[str, Any]:
    """Return the finished epoch's means, and let the state stand at the start of the next one.

    Losses and the gradient norm are means over the steps that were not skipped, None without one;
    "weighted" holds the terms as they add up to the loss, "train_iou" is the mean over the images
    with an object as they were augmented (None without one);
    expert shares over their images. "time_percent" holds the shares of TIMES, "graph_percent" the
    share of steps that a CUDA graph replayed.
    """
    stage, sums = plan.stage_at(state.epoch), state.sums
    steps = sums.pop("steps")
    counted = {name: sums.pop(name, 0.0) for name in COUNTED}
    seconds, skipped = counted["seconds"], counted["skipped"]
    last = plan.time(state.epoch, max(state.seen - stage.effective, 0))
    taken = steps - skipped
    share = None
    if taken and state.shares is not None:
        share = (state.shares / state.shares.sum(-1, keepdim=True)).tolist()
        state.shares.zero_()
    state.epoch, state.seen, state.sums = state.epoch + 1, 0, {}
    return {
        "epoch": state.epoch,
        "step": state.step,
        "stage": stage.name,
        "seconds": round(seconds, 3),
        **_means(sums, taken),
        "lr": _rates(plan, last),
        "images_per_second": counted["images"] / seconds,
        "data_wait_percent": 100 * counted["data"] / seconds,
        "time_percent": {name: round(100 * counted[name] / seconds, 1) for name in TIMES},
        "graph_percent": round(100 * counted["replayed"] / steps, 1),
        "gates": share and [[round(value, 4) for value in row] for row in share],
        "skipped_steps": int(skipped),
    }


def _means(sums: dict[str, float], taken: float) -> dict[str, Any]:
    """Return the means over the steps that were taken, None without one."""
    means = {name: value / taken if taken else None for name, value in sums.items()}
    parts = {name for name in means if name.startswith(WEIGHTED)}
    weighted = {name[len(WEIGHTED) :]: means[name] for name in means if name in parts}
    return {
        **_with_train_iou({name: x for name, x in means.items() if name not in parts}),
        "weighted": weighted,
    }


def _with_train_iou(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with "train_iou", a mean over images with an object, in SCORED's place."""
    found, shown = (values.get(name) or 0.0 for name in SCORED)
    rest = {name: value for name, value in values.items() if name not in SCORED}
    return rest | {"train_iou": found / shown if shown else None}


def _rates(plan: Plan, time: float) -> dict[str, float]:
    return {"head": plan.lr(time, None), "backbone": plan.lr(time, 1)}


def _add(sums: dict[str, float], values: dict[str, float]) -> None:
    """Add a step to the epoch's sums; the losses of a skipped one, perhaps infinite, are not."""
    for name, value in values.items():
        counts = name in (*COUNTED, "steps") or not values["skipped"]
        sums[name] = sums.get(name, 0.0) + (value if counts else 0.0)
