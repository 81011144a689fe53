"""What fits: batches tried before the first epoch, the largest one, and what to change if none."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..errors import TrainingError
from ..machine.devices import GIB, bare
from ..machine.distributed import ALONE
from ..settings.checks import STRIDE
from ..settings.decide import batches_per_device
from .cost import StepCost, Steps, clean_up, measure_step, run_steps, untouched
from .graph import StepGraph
from .prepare import Training, step_settings
from .schedule import Plan, Stage
from .state import TrainState
from .train import StepSettings

CHECKPOINTED = 0.7  # of the activations are left; measured: edgenext_base 0.66, resnet10t 0.76
MARGIN = 0.1  # of the memory stays free: fragments grow, and other processes come and go


@dataclass(frozen=True)
class Limit:
    """The largest batch per device in one stage (0: not even one image fits)."""

    stage: str
    part: int  # of the training, 1 or 2
    batch: int
    gib: float
    images_per_second: float
    measured: bool  # by real steps; else estimated


def largest_batch(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest batch up to `most` that fits, or 0: by doubling, then by halves.

    `fits` is asked about 2 log2(answer) times; what fits must also fit smaller.
    """
    good, batch = 0, 1
    while good < most and fits(batch):
        good, batch = batch, min(2 * batch, most)
    bad = batch if good < most else most + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def measure_limit(
    step: Callable[[int], Steps], stage: Stage, device: torch.device, most: int
) -> Limit:
    """Return the largest batch whose real steps leave MARGIN of a GPU's memory free.

    `step` takes steps with so many images on `device`, and raises torch.OutOfMemoryError as
    PyTorch does.
    """
    seen: dict[int, Steps] = {}

    def fits(batch: int) -> bool:
        clean_up()
        room = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        try:
            seen[batch] = step(batch)
        except torch.OutOfMemoryError:
            return False
        return seen[batch].peak_bytes <= (1 - MARGIN) * room

    batch = largest_batch(fits, most)
    clean_up()
    if not batch:
        return Limit(stage.name, stage.part, 0, 0.0, 0.0, measured=True)
    gib, speed = seen[batch].peak_bytes / GIB, batch / seen[batch].seconds
    return Limit(stage.name, stage.part, batch, gib, speed, measured=True)


def estimate_limit(cost: StepCost, stage: Stage, room_gib: float, most: int) -> Limit:
    """Return the largest batch by `cost` for `room_gib` of RAM, MARGIN left free.

    On a CPU nothing tells that memory ran out before the system ends the process.
    """
    batch = largest_batch(lambda count: cost.gib(count) <= (1 - MARGIN) * room_gib, most)
    speed = 1 / cost.seconds_per_image
    return Limit(stage.name, stage.part, batch, cost.gib(batch), speed, measured=False)


def fitting_batches(wanted: Sequence[int], largest: Sequence[int]) -> tuple[list[int], int]:
    """Return batches per device, none above `largest`, and the accumulation that they need.

    `wanted` are the effective batches per device of the parts. The smallest accumulation that
    divides them all is taken; where none does, each batch is rounded down.
    """
    needed = max(math.ceil(want / most) for want, most in zip(wanted, largest, strict=True))
    exact = (n for n in range(needed, min(wanted) + 1) if all(want % n == 0 for want in wanted))
    accumulation = next(exact, needed)
    return [max(want // accumulation, 1) for want in wanted], accumulation


def limits_text(limits: Sequence[Limit], wanted: Mapping[int, int]) -> str:
    """Return the table of limits and the flags to train with.

    `wanted` is each part's effective batch per device: batch x accumulation.
    """
    lines = [f"{'stage':<20}{'largest batch':>14}{'memory':>12}{'speed':>18}"]
    lines += [
        f"{limit.stage:<20}{limit.batch:>14}{limit.gib:>8.1f} GiB{limit.images_per_second:>9.1f} "
        "images/s"
        for limit in limits
    ]
    smallest = {p: min(x.batch for x in limits if x.part == p) for p in wanted}
    if not all(smallest.values()):
        return "\n".join([*lines, "Not even one image fits: lower --img-size."])
    if not all(limit.measured for limit in limits):
        lines.append("Estimated from one real step: a CPU gives no warning before its RAM is full.")
    batches, accumulation = fitting_batches(list(wanted.values()), list(smallest.values()))
    stages = {1: "one", 2: "two"}
    names = {1: "--batch-size", 2: "--stage2-batch-size"}
    flags = [f"{names[part]} {batch}" for part, batch in zip(wanted, batches, strict=True)]
    lines.append(f"Train with: {' '.join(flags)} --accumulation-steps {accumulation}")
    for part, batch in zip(wanted, batches, strict=True):
        if batch * accumulation != wanted[part]:
            taken = f"{batch * accumulation} images a step, not {wanted[part]}."
            lines.append(f"Stage {stages[part]}: {taken}")
        elif smallest[part] > wanted[part]:
            lines.append(f"Stage {stages[part]} has room for {names[part]} {smallest[part]}.")
    return "\n".join(lines)


def advice(
    cost: StepCost | None,
    batches: Mapping[str, int],
    *,
    accumulation: int,
    size: int,
    checkpointing: bool,
) -> list[str]:
    """Return what to try when memory is short, in this order, with the estimated gain of each.

    `cost` is that of the stage that is short; None where not even one image fits, so that nothing
    can be measured. `batches` are the batches per device by their flag,
    that stage's first: accumulation holds for all of them. `size` in pixels; `checkpointing` says
    whether it is on.
    """
    batch = next(iter(batches.values()))
    known = cost or StepCost(1, 0.0, 0, 0)
    activations = batch * known.bytes_per_image / GIB
    tips = []
    if batch > 1:
        smaller, steps = fitting_batches(
            [each * accumulation for each in batches.values()],
            [max(each // 2, 1) for each in batches.values()],
        )
        flags = " ".join(f"{flag} {each}" for flag, each in zip(batches, smaller, strict=True))
        saved = known.gib(batch) - known.gib(smaller[0])
        tips.append((f"{flags} --accumulation-steps {steps}", "same effective batch", saved))
    pixels = max(size * 7 // 8 // STRIDE, 1) * STRIDE
    if pixels < size:
        saved = activations * (1 - (pixels / size) ** 2)
        tips.append((f"--img-size {pixels}", "fine parts are lost", saved))
    if not checkpointing:
        saved = activations * (1 - CHECKPOINTED)
        tips.append(("--gradient-checkpointing", "about a third slower", saved))
    gains = [f"; saves about {saved:.1f} GiB" if cost else "" for _, _, saved in tips]
    return [f"{flags} ({price}{gain})" for (flags, price, _), gain in zip(tips, gains, strict=True)]


def rehearse(
    state: TrainState, plan: Plan, settings: StepSettings, size: int
) -> tuple[list[Stage], dict[int, StepCost]]:
    """Take real steps of each stage at `size` pixels, and split its batches until they fit.

    Where images grow, `size` is what they grow to. Nothing but `state.parts` changes. Returns the
    stages whose batches are split, and what the steps cost by the number of open backbone blocks.
    Raises TrainingError when not even one image fits.
    """
    split, costs = [], {}
    with untouched(state):
        for stage in plan.of_whole_images():
            state.open_blocks(stage.open_blocks)
            batch = stage.batch * state.devices.own
            if not _fit(state, settings, size, batch):
                raise TrainingError(
                    f"not even one image of {size} px fits into the GPU's memory in stage "
                    f"{stage.name}. Use a smaller --img-size, --gradient-checkpointing or a "
                    "smaller --backbone; close other programs on the GPU (`nvidia-smi` lists them)."
                )
            if state.parts_per_batch > 1:
                split.append(stage)
            steps = run_steps(state, settings, size, batch)
            costs[stage.open_blocks] = StepCost(
                batch * settings.accumulation, steps.seconds, steps.peak_bytes, 0
            )
    return split, costs


def _alone(state: TrainState) -> TrainState:
    """Return the state as it trains alone, on whole images, without a captured step."""
    supervised = bare(state.supervised)
    return replace(state, supervised=supervised, ranks=ALONE, graph=StepGraph(), size=0)


def _fit(state: TrainState, settings: StepSettings, size: int, batch: int) -> bool:
    """Split this stage's batches until a step fits in every process; False when none does."""
    # Alone, without DDP's exchange: the others would wait for one that runs out of memory.
    alone = _alone(state)
    trial = alone if state.ranks.world > 1 else state
    fits = True
    try:
        run_steps(trial, settings, size, batch, steps=1)
    except torch.OutOfMemoryError:
        fits = False
    found = state.ranks.gather((fits, state.parts_per_batch))
    state.parts[state.opened] = max(parts for _, parts in found)
    clean_up()
    return all(fits for fits, _ in found)


BATCH_FLAGS = {1: "--batch-size", 2: "--stage2-batch-size"}


def memory_advice(training: Training) -> str:
    """Return what ran out where, and what to try, with what each would save."""
    config, state = training.config, training.state
    stage = training.plan.stage_at(state.epoch)
    alone = _alone(state)
    cost = None
    with contextlib.suppress(torch.OutOfMemoryError), untouched(alone):
        cost = measure_step(alone, step_settings(config), config.img_size, 1)
    flags = zip(BATCH_FLAGS.values(), batches_per_device(config), strict=True)
    own_first = sorted(flags, key=lambda item: item[0] != BATCH_FLAGS[stage.part])
    tips = advice(
        cost,
        dict(own_first),
        accumulation=config.accumulation_steps,
        size=config.img_size,
        checkpointing=config.gradient_checkpointing,
    )
    return (
        f"out of memory in stage {stage.name} with {stage.batch} images per device at "
        f"{config.img_size} px. In this order, try: {'; or '.join(tips)}. Go on with "
        f"`camoxpert resume {config.checkpoint_dir}` and one of these."
    )
