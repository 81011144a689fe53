"""Which learning rate to begin with: the rate rises from step to step, until the loss does too.

The range test of Smith (Cyclical Learning Rates for Training Neural Networks, WACV 2017): some
steps of the very training, on its own batches, each at a higher rate. Afterwards all is as it was.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError, TrainingError
from .cost import untouched
from .epoch import EpochSteps
from .memory import memory_advice
from .prepare import Loaders, Training, step_settings
from .schedule import Plan
from .state import TrainState
from .train import Diverged

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 100
WIDTH = 3.0  # steps: the standard deviation of the window in which losses are averaged
DIVERGED = 2.0  # times the least loss so far: from there on nothing is learned from higher rates
SHARE = 10  # the proposal is this many times below the rate of the least loss


@dataclass(frozen=True)
class Rates:
    """What `find_rate` saw: a rate, its step's loss and the smoothed loss, in order.

    proposal: None where the loss did not fall by more than it scatters. usual: the rate that these
    settings train with; effective: images in a step, for which both are meant. ended: why it ended.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    proposal: float | None
    usual: float
    effective: int
    stage: str
    flag: str
    ended: str

    def sentence(self) -> str:
        """Return the proposal in words, and what it is worth."""
        usual = f"These settings train with {self.usual:.2g} at the peak (stage {self.stage})."
        if self.proposal is None:
            return (
                f"No rate is proposed: the loss did not fall by more than it scatters. {usual} "
                "Take more steps (--steps 300), or larger batches."
            )
        return (
            f"Proposed: {self.flag} {self.proposal:.2g} at {self.effective} images a step, a "
            f"{SHARE}th of the rate at which the loss was least. {usual} The proposal is a "
            f"starting point, found in {len(self.rates)} steps: which rate ends best, only whole "
            "trainings tell."
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values; a loss that is not finite is None."""
        losses = [loss if math.isfinite(loss) else None for loss in self.losses]
        return asdict(self) | {"losses": losses, "sentence": self.sentence()}


def find_rate(
    training: Training,
    loaders: Loaders,
    *,
    steps: int = STEPS,
    low: float = LOWEST,
    high: float = HIGHEST,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Rates:
    """Take up to `steps` steps at rates from `low` to `high`, in equal ratios, and restore all.

    The rate is the head's; what is open of the backbone has its share of it. State, random numbers
    and data order are then as before. Raises InputError for bounds that cannot work.
    """
    if not (0 < low < high and steps >= 10):
        raise InputError(
            f"--from {low:g} --to {high:g} --steps {steps}: give rates above 0, the second higher "
            f"than the first, and 10 steps or more, as --from {LOWEST} --to 1 --steps {STEPS}."
        )
    state, stage = training.state, training.plan.stage_at(training.state.epoch)
    with untouched(state), _kept(state):
        where: dict[str, Any] = {"state": state, "begun": state.step}
        sweep = _Sweep(**vars(training.plan), **where, low=low, high=high, steps=steps)
        losses, ended = _taken(training, loaders, sweep, report)
    rates = [sweep.rate(step) for step in range(len(losses))]
    smoothed = smooth(losses)
    flag = "--stage2-lr" if stage.part == 2 else "--lr"
    found = propose(rates, losses, smoothed)
    more = (stage.lr, stage.effective, stage.name, flag, ended)
    return Rates(rates, losses, smoothed, found, *more)


def smooth(losses: Sequence[float]) -> list[float]:
    """Return each loss averaged with its neighbours, by a bell of WIDTH steps."""
    values = np.asarray(losses, float)
    places, counted = np.arange(len(values)), np.isfinite(values)
    bell = np.exp(-0.5 * ((places[:, None] - places[None, :]) / WIDTH) ** 2) * counted
    means: NDArray[np.float64] = bell @ np.where(counted, values, 0) / np.maximum(bell.sum(1), 1e-9)
    return [float(mean) for mean in means]


def propose(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float]
) -> float | None:
    """Return a SHAREth of the rate of the least smoothed loss; None if it hardly fell.

    Steepest descent, the other usual choice, follows the noise of single batches more.
    """
    least = int(np.argmin(smoothed))
    gaps = np.asarray(losses) - np.asarray(smoothed)
    scatter = float(np.std(gaps[: least + 1])) if least else math.inf
    fell = smoothed[0] - smoothed[least]
    return rates[least] / SHARE if math.isfinite(scatter) and fell > scatter else None


@dataclass(frozen=True, kw_only=True)
class _Sweep(Plan):
    """The plan of a training whose rate rises with every step, whatever the time is."""

    state: TrainState
    begun: int
    low: float
    high: float
    steps: int

    def rate(self, step: int) -> float:
        """Return the head's rate in a step, from 0 on."""
        return float(self.low * (self.high / self.low) ** (step / (self.steps - 1)))

    def lr(self, time: float, block: int | None) -> float:
        """Return the rate of the head (None) or a block of the backbone in the step to come."""
        rate = self.rate(self.state.step - self.begun)
        if block is None:
            return rate
        return rate * self.backbone_factor if block <= self.stage_at(time).open_blocks else 0.0


def _taken(
    training: Training, loaders: Loaders, sweep: _Sweep, report: Callable[[int, int], None]
) -> tuple[list[float], str]:
    """Take the steps; return their losses, and why they ended."""
    state, settings = training.state, step_settings(training.config)
    stage, first, losses = sweep.stage_at(state.epoch), state.epoch, list[float]()
    try:
        while True:
            batches = loaders.epoch(stage, state.epoch, state.seen)
            epoch = EpochSteps(state, sweep, batches, settings)
            for record in epoch:
                losses.append(record["loss"])
                report(len(losses), sweep.steps)
                if len(losses) == sweep.steps or _diverges(losses):
                    epoch.settle()
                    return losses, "diverged" if _diverges(losses) else "all steps taken"
            later = (state.epoch + 1 - first) % (stage.last_epoch - first)
            state.epoch, state.seen, state.sums = first + later, 0, {}
    except Diverged:
        return losses, "diverged"
    except torch.OutOfMemoryError as error:
        error.__traceback__ = None  # its frames hold the memory that the advice is measured in
        raise TrainingError(memory_advice(training)) from error


def _diverges(losses: Sequence[float]) -> bool:
    if not math.isfinite(losses[-1]):
        return True
    recent = [float(np.mean(losses[max(n - 4, 0) : n + 1])) for n in range(len(losses))]
    return len(recent) > 10 and recent[-1] > DIVERGED * min(recent)


@contextlib.contextmanager
def _kept(state: TrainState) -> Iterator[None]:
    """Bring back what `untouched` leaves: random numbers, rates, and how batches are split."""
    rates, parts, device = list(state.rates), dict(state.parts), state.device
    numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    on_gpu = torch.cuda.get_rng_state_all() if device.type == "cuda" else []
    try:
        yield
    finally:
        state.rates, state.parts = rates, parts
        torch.set_rng_state(numbers[0])
        random.setstate(numbers[1])
        np.random.set_state(numbers[2])  # noqa: NPY002
        if on_gpu:
            torch.cuda.set_rng_state_all(on_gpu)
