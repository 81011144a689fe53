"""The loop: one optimiser step, and one epoch of them.

`train_epoch` is a generator: whoever consumes it prints, saves, pauses or stops between two steps,
where the state is whole.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.augment import augment_batch
from ..errors import TrainingError
from ..machine.devices import seed_step
from ..network.losses import total
from .schedule import Plan, Stage
from .state import TrainState, set_learning_rates

MOST_SKIPPED = 30  # non-finite steps in a row before a run is given up
NEWEST = 0.1  # weight of a step in the experts' usage, which the balance looks at

Batch = dict[str, Tensor]


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


def train_epoch(
    state: TrainState, plan: Plan, batches: Iterable[Batch], settings: StepSettings
) -> Iterator[dict[str, Any]]:
    """Train to the end of the state's epoch; yield a record per step.

    `batches` are the epoch's remaining ones. The epoch's sums live in the state, so an epoch that
    was interrupted ends with the same means as one that was not.
    """
    stage = plan.stage_at(state.epoch)
    state.open_blocks(stage.open_blocks)
    started = time.perf_counter()
    for group, waited in _groups(batches, settings.accumulation):
        now = plan.time(state.epoch, state.seen)
        set_learning_rates(state.optimizer, plan, now)
        values = train_step(state, group, settings, loss_weights(settings, now / plan.epochs))
        images = _count(group) * state.ranks.world
        state.step, state.seen = state.step + 1, state.seen + images
        seconds = time.perf_counter() - started
        state.seconds += seconds
        values |= {"seconds": seconds, "data_wait": waited, "images": images}
        _add(state.sums, values)
        yield _record(state, plan, stage, now, values)
        started = time.perf_counter()


def train_step(
    state: TrainState, batches: list[Batch], settings: StepSettings, weights: dict[str, float]
) -> dict[str, float]:
    """Take one optimiser step on the mean loss of all images in `batches`, of all processes.

    A step whose gradient is not finite is skipped and counted: under fp16 that is how the scaler
    finds its scale. A step that does not fit into memory is taken again in smaller parts. Raises
    TrainingError after too many skipped in a row, OutOfMemoryError when nothing is left to split.
    """
    sums, experts, terms = _gradients(state, batches, settings, weights)
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.net.parameters(), settings.clip)
    packed = state.ranks.total(torch.cat([sums / state.ranks.world, experts.flatten()]))
    # The one wait for the device:
    *numbers, norm_value = torch.cat([packed[: len(sums)], norm.view(1)]).tolist()
    skip = not math.isfinite(norm_value)
    if not skip:
        gates, router = packed[len(sums) :].view_as(experts)
        state.shares = gates if state.shares is None else state.shares + gates
        router = router / (_count(batches) * state.ranks.world)
        state.usage = router if state.usage is None else torch.lerp(state.usage, router, NEWEST)
    _apply(state, skip=skip)
    return dict(zip(terms, numbers, strict=True)) | {
        "gradient_norm": norm_value,
        "skipped": float(skip),
    }


def _gradients(
    state: TrainState, batches: list[Batch], settings: StepSettings, weights: dict[str, float]
) -> tuple[Tensor, Tensor, list[str]]:
    """Compute the step's gradients, in parts that fit into memory."""
    largest = max(len(batch["index"]) for batch in batches)
    # Where other processes wait inside the step for this one, it cannot be taken again.
    while state.ranks.world == 1 and state.parts_per_batch < largest:
        with contextlib.suppress(torch.OutOfMemoryError):
            return _accumulate(state, batches, settings, weights)
        state.split_further()  # out here, as the error's traceback holds the pass's memory
    return _accumulate(state, batches, settings, weights)


def _accumulate(
    state: TrainState, batches: list[Batch], settings: StepSettings, weights: dict[str, float]
) -> tuple[Tensor, Tensor, list[str]]:
    """Add up the gradients of all parts.

    Returns loss and terms, (2, stages, experts) summed gates and probabilities, and the names.
    """
    seed_step(settings.seed, state.step, state.ranks.rank)
    state.optimizer.zero_grad(set_to_none=True)
    images = _count(batches)
    values, experts, names = [], [], ["loss"]
    for image, mask, last in _parts(state, batches, settings.augment):
        with _in_step(state.supervised, last):
            parts = state.supervised(image, mask)
            router = parts["router"].detach().float()
            usage = torch.full_like(router[0], 1 / router.shape[-1])  # as if evenly, at the start
            usage = usage if state.usage is None else state.usage
            loss, terms = total(parts, **weights, usage=usage)
            share = len(image) / images  # parts may differ by an image
            state.scaler.scale(loss * share).backward()
        values.append(torch.stack([loss, *terms.values()]).detach() * share)
        experts.append(torch.stack([parts["gates"].detach().float().sum(0), router.sum(0)]))
        names = ["loss", *terms]
    return torch.stack(values).sum(0), torch.stack(experts).sum(0), names


def _parts(
    state: TrainState, batches: list[Batch], strength: float
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Yield augmented images and masks, and whether they are the step's last."""
    for number, batch in enumerate(batches, 1):
        image, mask, uniform = (
            batch[key].to(state.device, non_blocking=True) for key in ("image", "mask", "uniform")
        )
        image, mask = augment_batch(image, mask, uniform, strength=strength)
        chunks = state.parts_per_batch
        parts = list(zip(image.chunk(chunks), mask.chunk(chunks), strict=True))
        for place, part in enumerate(parts, 1):
            yield (*part, number == len(batches) and place == len(parts))


def _in_step(module: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """Let DDP exchange gradients once a step, with its last part."""
    waits = isinstance(module, DistributedDataParallel) and not last
    return module.no_sync() if waits else contextlib.nullcontext()  # type: ignore[operator]


def _apply(state: TrainState, *, skip: bool) -> None:
    if not skip:
        state.scaler.step(state.optimizer)
        state.averaged += 1
        if state.ema:
            state.ema.update(state.net, step=state.averaged)
    state.scaler.update()  # it knows from `unscale_` whether the gradients were finite
    state.skipped_in_row = state.skipped_in_row + 1 if skip else 0
    if state.skipped_in_row >= MOST_SKIPPED:
        raise TrainingError(
            f"the gradient was not finite in {MOST_SKIPPED} steps in a row (up to step "
            f"{state.step}). The last good state is saved. Try a lower --lr, --clip 0.5, or "
            "--no-amp; `camoxpert data` finds damaged images."
        )


def end_epoch(state: TrainState, plan: Plan) -> dict[str, Any]:
    """Return the finished epoch's means, and let the state stand at the start of the next one.

    Losses and the gradient norm are means over the steps that were not skipped, None without one;
    expert shares over their images.
    """
    stage, sums, shares = plan.stage_at(state.epoch), state.sums, state.shares
    steps, images = sums.pop("steps"), sums.pop("images")
    seconds, wait, skipped = (sums.pop(key) for key in ("seconds", "data_wait", "skipped"))
    last = plan.time(state.epoch, max(state.seen - stage.effective, 0))
    state.epoch, state.seen, state.sums, state.shares = state.epoch + 1, 0, {}, None
    taken = steps - skipped
    share = None if shares is None else (shares / shares.sum(-1, keepdim=True)).tolist()
    return {
        "epoch": state.epoch,
        "step": state.step,
        "stage": stage.name,
        "seconds": round(seconds, 3),
        **{name: value / taken if taken else None for name, value in sums.items()},
        "lr": _rates(plan, last),
        "images_per_second": images / seconds,
        "data_wait_percent": 100 * wait / seconds,
        "gates": share and [[round(value, 4) for value in row] for row in share],
        "skipped_steps": int(skipped),
    }


def loss_weights(settings: StepSettings, progress: float) -> dict[str, float]:
    """Return the weight of each further loss at this share of the training, 0...1."""
    uncertainty = settings.uncertainty * ramp(progress)
    return {"deep": settings.deep, "balance": settings.balance, "uncertainty": uncertainty}


def ramp(progress: float) -> float:
    """Return the share of the uncertainty loss: 0 for the first 30 %, then a cosine rise to 1."""
    return 0.5 * (1 - math.cos(math.pi * min(max((progress - 0.3) / 0.7, 0.0), 1.0)))


def _record(
    state: TrainState, plan: Plan, stage: Stage, now: float, values: dict[str, float]
) -> dict[str, Any]:
    left = plan.steps_from(state.epoch, state.seen)
    return {
        "epoch": state.epoch + 1,
        "step": state.step,
        "steps": state.step + left,
        "stage": stage.name,
        "lr": _rates(plan, now),
        "images_per_second": values["images"] / values["seconds"],
        **{name: value for name, value in values.items() if name != "images"},
    }


def _rates(plan: Plan, time: float) -> dict[str, float]:
    return {"head": plan.lr(time, None), "backbone": plan.lr(time, 1)}


def _groups(batches: Iterable[Batch], size: int) -> Iterator[tuple[list[Batch], float]]:
    """Yield `size` batches at a time, and the seconds spent waiting for them."""
    group: list[Batch] = []
    waited, started = 0.0, time.perf_counter()
    for batch in batches:
        waited += time.perf_counter() - started
        group.append(batch)
        if len(group) == size:
            yield group, waited
            group, waited = [], 0.0
        started = time.perf_counter()


def _add(sums: dict[str, float], values: dict[str, float]) -> None:
    """Add a step to the epoch's sums; the losses of a skipped one, perhaps infinite, are not."""
    always = ("seconds", "data_wait", "images", "skipped")
    for name, value in {**values, "steps": 1.0}.items():
        counts = name in (*always, "steps") or not values["skipped"]
        sums[name] = sums.get(name, 0.0) + (value if counts else 0.0)


def _count(batches: list[Batch]) -> int:
    return sum(len(batch["index"]) for batch in batches)
