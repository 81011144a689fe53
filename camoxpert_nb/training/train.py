"""One optimiser step: `train_step`, or `queue_step` and `settle` where nobody waits in between.

All that happens on the device is in `step_on_device`, which waits for nothing and decides nothing
by a number that is there. So it can be queued, and captured as a CUDA graph (`graph.py`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.augment import augment_batch, shrunk
from ..data.own_augment import augmented
from ..errors import TrainingError
from ..evaluation.metrics_of_batches import training_iou
from ..machine.devices import seed_step
from ..network.losses import total
from ..outside.foreign import named
from .own import is_own
from .state import TrainState

MOST_SKIPPED = 30  # non-finite steps in a row before a run is given up
SCORED = ("ious", "objects")  # of a step: its images' summed IoU, and how many show an object,
# both as shares of all its images
NEWEST = 0.1  # weight of a step in the experts' usage, which the balance looks at

Batch = dict[str, Tensor]


class Diverged(TrainingError):
    """No step can be taken any more: gradients are not finite."""


@dataclass(frozen=True)
class StepSettings:
    """What a step needs to know besides the state."""

    seed: int
    accumulation: int
    augment: float
    clip: float
    deep: float
    balance: float
    uncertainty: float


class Queued:
    """A step that the device was given: its numbers by name, on their way, and its times.

    `launching` is the seconds in which it was queued, `replayed` whether by a graph.
    """

    def __init__(
        self,
        numbers: Tensor,
        names: Sequence[str],
        began: torch.cuda.Event | None,
        launching: float,
        replayed: bool,
    ) -> None:
        self.names, self.began = names, began
        self.launching, self.replayed = launching, replayed
        self._numbers = numbers.to("cpu", non_blocking=True)  # into pinned memory
        self.ended = _mark(numbers.device)

    def read(self) -> tuple[dict[str, float], float]:
        """Return the numbers, and the seconds that passed until the device had them."""
        started = time.perf_counter()
        if self.ended:
            self.ended.synchronize()
        waited = time.perf_counter() - started
        return dict(zip(self.names, self._numbers.tolist(), strict=True)), waited


def train_step(
    state: TrainState, batches: list[Batch], settings: StepSettings, weights: dict[str, float]
) -> dict[str, float]:
    """Take one optimiser step on the mean loss of all images in `batches`, of all processes.

    A step whose gradient is not finite is skipped and counted: under fp16 that is how the scaler
    finds its scale. A step that does not fit into memory is taken again in smaller parts. Raises
    Diverged after too many skipped in a row, OutOfMemoryError when nothing is left to split.
    """
    return settle(state, queue_step(state, batches, settings, weights))[0]


def queue_step(
    state: TrainState, batches: list[Batch], settings: StepSettings, weights: dict[str, float]
) -> Queued:
    """Give a step's work to the device, by its graph if there is one, and do not wait for it."""
    started, began = time.perf_counter(), _mark(state.device)
    work = partial(step_on_device, state, settings=settings, weights=state.tune(weights))
    result = None
    if state.parts_per_batch == 1:
        seed_step(settings.seed, state.step, state.ranks.rank)  # a replay draws from here on
        result = state.graph.run((state.opened, state.size), batches, work)
    replayed = result is not None and state.graph.captured
    numbers, names = result or work(batches)
    return Queued(numbers, names, began, time.perf_counter() - started, replayed)


def settle(state: TrainState, queued: Queued) -> tuple[dict[str, float], float]:
    """Wait for a step, count it in the state, and return its numbers and the seconds waited.

    Raises Diverged after too many skipped in a row.
    """
    values, waited = queued.read()
    skipped = not math.isfinite(values["gradient_norm"])
    state.averaged += not skipped
    state.skipped_in_row = state.skipped_in_row + 1 if skipped else 0
    state.unsound_loss = skipped and not math.isfinite(values["structure"])
    if state.skipped_in_row >= MOST_SKIPPED:
        raise Diverged(
            f"the gradient was not finite in {MOST_SKIPPED} steps in a row (up to step "
            f"{state.step}). Try a lower --lr, --clip 0.5, or --no-amp; `camoxpert data` finds "
            "damaged images."
        )
    return values | {"skipped": float(skipped)}, waited


def step_on_device(
    state: TrainState,
    batches: Sequence[Batch],
    settings: StepSettings,
    weights: dict[str, Tensor],
) -> tuple[Tensor, list[str]]:
    """Do a whole step; return loss, terms, SCORED, gradient norm, on the device, and their names.

    `weights` are those of the further losses, 0-dim, on the device as the learning rates are.
    """
    sums, experts, terms = _gradients(state, batches, settings, weights)
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.net.parameters(), settings.clip)
    packed = state.ranks.total(torch.cat([sums / state.ranks.world, experts.flatten()]))
    finite = norm.isfinite()
    images = count_images(batches) * state.ranks.world
    _remember_experts(state, packed[len(sums) :].view_as(experts), images, finite)
    state.counted += finite
    _take_step(state, finite)
    state.average(finite)
    state.scaler.update()  # it knows from `unscale_` whether the gradients were finite
    return torch.cat([packed[: len(sums)], norm.view(1)]), [*terms, "gradient_norm"]


def _take_step(state: TrainState, finite: Tensor) -> None:
    """Let the optimiser step, unless the gradient was not `finite` (0-dim bool)."""
    if is_own(own := state.own.optimizer):  # which may know no other way, so it is waited for
        if finite:
            with named("optimizer", own):
                state.optimizer.step()
        return
    # The fused optimiser leaves weights and moments alone where this is 1.
    state.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    state.optimizer.step()


def _remember_experts(state: TrainState, experts: Tensor, images: int, finite: Tensor) -> None:
    """Add the step's gates to the epoch's, and let the usage follow it, if it was finite."""
    gates, router = experts
    assert state.shares is not None and state.usage is not None
    state.shares.copy_(torch.where(finite, state.shares + gates, state.shares))
    router = router / images
    usage = torch.where(state.counted == 0, router, torch.lerp(state.usage, router, NEWEST))
    state.usage.copy_(torch.where(finite, usage, state.usage))


def _gradients(
    state: TrainState,
    batches: Sequence[Batch],
    settings: StepSettings,
    weights: dict[str, Tensor],
) -> tuple[Tensor, Tensor, list[str]]:
    """Compute the step's gradients, in parts that fit into memory."""
    largest = max(len(batch["index"]) for batch in batches)
    # Where other processes wait inside the step for this one, it cannot be taken again; what is
    # captured is not computed yet.
    again = state.ranks.world == 1 and not state.graph.recording
    while again and state.parts_per_batch < largest:
        with contextlib.suppress(torch.OutOfMemoryError):
            return _accumulate(state, batches, settings, weights)
        state.split_further()  # out here, as the error's traceback holds the pass's memory
    return _accumulate(state, batches, settings, weights)


def _accumulate(
    state: TrainState,
    batches: Sequence[Batch],
    settings: StepSettings,
    weights: dict[str, Tensor],
) -> tuple[Tensor, Tensor, list[str]]:
    """Add up the gradients of all parts.

    Returns loss, terms and SCORED, (2, stages, experts) summed gates and probabilities, and the
    names of the first.
    """
    if not state.graph.recording:  # a generator that is captured keeps its seed
        seed_step(settings.seed, state.step, state.ranks.rank)
    state.optimizer.zero_grad(set_to_none=True)
    images = count_images(batches)
    values, experts, names = [], [], ["loss"]
    for image, mask, last in _parts(state, batches, settings.augment, state.own.augment):
        with _in_step(state.supervised, last):
            parts = state.supervised(image, mask)
            router = parts["router"].detach().float()
            loss, terms = total(parts, **weights, usage=state.usage_like(router[0]))
            share = len(image) / images  # parts may differ by an image
            state.scaler.scale(loss * share).backward()
            scored = training_iou(parts["logits"], mask) / images
        values.append(torch.cat([torch.stack([loss, *terms.values()]).detach() * share, scored]))
        experts.append(torch.stack([parts["gates"].detach().float().sum(0), router.sum(0)]))
        names = ["loss", *terms, *SCORED]
    return torch.stack(values).sum(0), torch.stack(experts).sum(0), names


def _parts(
    state: TrainState, batches: Sequence[Batch], strength: float, own: Any
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Yield augmented images and masks, and whether they are the step's last.

    `own` is the user's augmentation, if there is one.
    """
    for number, batch in enumerate(batches, 1):
        image, mask, uniform = (
            batch[key].to(state.device, non_blocking=True) for key in ("image", "mask", "uniform")
        )
        if is_own(own):
            image, mask = augmented(own, image, mask, batch["uniform"])
        else:
            image, mask = augment_batch(image, mask, uniform, strength=strength)
        if 0 < state.size < image.shape[-1]:
            image, mask = shrunk(image, mask, state.size)
        chunks = state.parts_per_batch
        parts = list(zip(image.chunk(chunks), mask.chunk(chunks), strict=True))
        for place, part in enumerate(parts, 1):
            yield (*part, number == len(batches) and place == len(parts))


def _in_step(module: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """Let DDP exchange gradients once a step, with its last part."""
    waits = isinstance(module, DistributedDataParallel) and not last
    return module.no_sync() if waits else contextlib.nullcontext()  # type: ignore[operator]


def loss_weights(settings: StepSettings, progress: float) -> dict[str, float]:
    """Return the weight of each further loss at this share of the training, 0...1."""
    uncertainty = settings.uncertainty * ramp(progress)
    return {"deep": settings.deep, "balance": settings.balance, "uncertainty": uncertainty}


def ramp(progress: float) -> float:
    """Return the share of the uncertainty loss: 0 for the first 30 %, then a cosine rise to 1."""
    return 0.5 * (1 - math.cos(math.pi * min(max((progress - 0.3) / 0.7, 0.0), 1.0)))


def growth_note(uncertainty: float | None) -> list[str]:
    """Say that the loss includes a weight that grows up to `uncertainty`, if it does."""
    if not uncertainty:
        return []
    return [
        f"the loss includes the uncertainty term, whose weight grows to {uncertainty:g} after 30 % "
        "of the training: it can rise while the network learns; structure and val_loss tell"
    ]


def count_images(batches: Sequence[Batch]) -> int:
    """Return how many images this process's batches hold."""
    return sum(len(batch["index"]) for batch in batches)


def _mark(device: torch.device) -> torch.cuda.Event | None:
    """Return a mark in the GPU's queue, whose time it will know; nothing on the CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True, blocking=True)
    event.record(torch.cuda.current_stream(device))
    return event
