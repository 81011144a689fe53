"""What a training step costs, the largest batch that fits, and what to change when none does."""

from __future__ import annotations

import contextlib
import gc
import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..data.augment import K
from ..errors import TrainingError
from ..machine.devices import GIB, bare
from ..network.losses import total
from ..settings.config import Config
from .prepare import Training, step_settings
from .schedule import Plan, Stage, batches_per_device
from .state import TrainState
from .train import train_step

OVERHEAD = 1.15  # workspaces and fragments on top of what is counted
COPIES = 5  # of the parameters: weights, gradients, two Adam moments, average
CHECKPOINTED = 0.7  # of the activations are left; measured: edgenext_base 0.66, resnet10t 0.76
MARGIN = 0.1  # of the memory stays free: fragments grow, and other processes come and go


@dataclass(frozen=True)
class StepCost:
    """The cost of training one image, on the device and in the precision it was measured in."""

    seconds_per_image: float
    fixed_bytes: int  # parameters, gradients, optimiser, average
    bytes_per_image: int  # at the worst moment of forward and backward pass

    def gib(self, batch: int) -> float:
        """Return the memory in GiB that a batch of this size needs on one device."""
        return OVERHEAD * (self.fixed_bytes + batch * self.bytes_per_image) / GIB


@dataclass(frozen=True)
class Limit:
    """The largest batch per device in one stage (0: not even one image fits)."""

    stage: str
    part: int  # of the training, 1 or 2
    batch: int
    gib: float
    images_per_second: float
    measured: bool  # by real steps; else estimated


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made while it is on, as they come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.sizes:
                    self.sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._forget, storage._cdata)
        return out

    def _forget(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def measure_step(
    supervised: nn.Module, size: int, device: torch.device, batch: int = 2
) -> StepCost:
    """Run a real forward and backward pass on noise and return what they cost.

    `supervised` maps (image, mask) to parts, as losses.Supervised does; `size` is in pixels. The
    memory is that of the worst moment, what checkpointing computes again included.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, size, size, generator=generator).to(device)
    mask = (torch.rand(batch, 1, size, size, generator=generator) > 0.8).float().to(device)

    def run() -> None:
        loss, _terms = total(supervised(image, mask))
        loss.backward()
        loss.item()  # wait for the device
        supervised.zero_grad(set_to_none=True)

    if device.type == "cuda":  # its backward runs in a thread that a dispatch mode does not see
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        peak = torch.cuda.max_memory_allocated(device) - before
    else:
        with _LiveBytes() as live:
            run()
        peak = live.peak
    started = time.perf_counter()
    run()  # the first pass has warmed up
    seconds = time.perf_counter() - started
    fixed = COPIES * sum(p.numel() * p.element_size() for p in supervised.parameters())
    return StepCost(seconds / batch, fixed, peak // batch)


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
    step: Callable[[int], None], stage: str, part: int, device: torch.device, most: int
) -> Limit:
    """Return the largest batch whose real steps leave MARGIN of a GPU's memory free.

    `step` takes one training step (and a validation step) with so many images on `device`, and
    raises torch.OutOfMemoryError, as PyTorch does. It is called twice for each size: the
    optimiser's state is there from the first step on.
    """
    seen: dict[int, tuple[float, float]] = {}  # batch: GiB, images per second

    def fits(batch: int) -> bool:
        clean_up()
        room = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        torch.cuda.reset_peak_memory_stats(device)
        try:
            step(batch)
            torch.cuda.synchronize(device)
            started = time.perf_counter()
            step(batch)
            torch.cuda.synchronize(device)
        except torch.OutOfMemoryError:
            return False
        speed = batch / (time.perf_counter() - started)
        peak = torch.cuda.max_memory_reserved(device)
        seen[batch] = peak / GIB, speed
        return peak <= (1 - MARGIN) * room

    batch = largest_batch(fits, most)
    clean_up()
    return Limit(stage, part, batch, *seen.get(batch, (0.0, 0.0)), measured=True)


def estimate_limit(cost: StepCost, stage: str, part: int, room_gib: float, most: int) -> Limit:
    """Return the largest batch by `cost` for `room_gib` of RAM, MARGIN left free.

    On a CPU nothing tells that memory ran out before the system ends the process.
    """
    batch = largest_batch(lambda count: cost.gib(count) <= (1 - MARGIN) * room_gib, most)
    return Limit(stage, part, batch, cost.gib(batch), 1 / cost.seconds_per_image, measured=False)


def clean_up() -> None:
    """Give back all memory that nothing uses, so that sizes are tried on equal terms."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
    lines = [f"{'stage':<14}{'largest batch':>14}{'memory':>12}{'speed':>18}"]
    lines += [
        f"{limit.stage:<14}{limit.batch:>14}{limit.gib:>8.1f} GiB{limit.images_per_second:>9.1f} "
        "images/s"
        for limit in limits
    ]
    smallest = {p: min(x.batch for x in limits if x.part == p) for p in wanted}
    if not all(smallest.values()):
        return "\n".join([*lines, "Not even one image fits: lower --img-size."])
    if not all(limit.measured for limit in limits):
        lines.append("Estimated from one real step: a CPU gives no warning before its RAM is full.")
    batches, accumulation = fitting_batches(list(wanted.values()), list(smallest.values()))
    names = {1: "--batch-size", 2: "--stage2-batch-size"}
    flags = [f"{names[part]} {batch}" for part, batch in zip(wanted, batches, strict=True)]
    lines.append(f"Train with: {' '.join(flags)} --accumulation-steps {accumulation}")
    for part, batch in zip(wanted, batches, strict=True):
        if batch * accumulation != wanted[part]:
            lines.append(f"Part {part}: {batch * accumulation} images a step, not {wanted[part]}.")
        elif smallest[part] > wanted[part]:
            lines.append(f"Part {part} has room for {names[part]} {smallest[part]}.")
    return "\n".join(lines)


def advice(
    cost: StepCost,
    batches: Mapping[str, int],
    *,
    accumulation: int,
    size: int,
    checkpointing: bool,
) -> list[str]:
    """Return what to try when memory is short, in this order, with the estimated gain of each.

    `cost` is that of the stage that is short. `batches` are the batches per device by their flag,
    that stage's first: accumulation holds for all of them. `size` in pixels; `checkpointing` says
    whether it is on.
    """
    batch = next(iter(batches.values()))
    activations = OVERHEAD * batch * cost.bytes_per_image / GIB
    tips = []
    if batch > 1:
        smaller, steps = fitting_batches(
            [each * accumulation for each in batches.values()],
            [max(each // 2, 1) for each in batches.values()],
        )
        flags = " ".join(f"{flag} {each}" for flag, each in zip(batches, smaller, strict=True))
        saved = cost.gib(batch) - cost.gib(smaller[0])
        tips.append((f"{flags} --accumulation-steps {steps}", "same effective batch", saved))
    pixels = max(size * 7 // 8 // 32 * 32, 32)
    if pixels < size:
        saved = activations * (1 - (pixels / size) ** 2)
        tips.append((f"--img-size {pixels}", "fine parts are lost", saved))
    if not checkpointing:
        saved = activations * (1 - CHECKPOINTED)
        tips.append(("--gradient-checkpointing", "about a third slower", saved))
    return [f"{flags} ({price}; saves about {saved:.1f} GiB)" for flags, price, saved in tips]


MOMENTS = 2  # Adam's, of each trained parameter


def rehearse(state: TrainState, plan: Plan, size: int) -> tuple[list[Stage], dict[int, float]]:
    """Try a step of each stage at `size` pixels, and split its batches until they fit.

    Nothing but `state.parts` changes. Returns the stages whose batches are split, and a device's
    seconds for one image by the number of open backbone blocks. Raises TrainingError when not
    even one image fits.
    """
    buffers = {name: buffer.clone() for name, buffer in state.net.named_buffers()}
    split, pace = [], {}
    for stage in plan.stages:
        state.open_blocks(stage.open_blocks)
        while state.ranks.any(not _fits(state, stage.batch * state.devices.own, size))[0]:
            if state.parts_per_batch >= stage.batch:
                raise TrainingError(
                    f"not even one image of {size} px fits into the GPU's memory in stage "
                    f"'{stage.name}'. Use a smaller --img-size, --gradient-checkpointing or a "
                    "smaller --backbone; close other programs on the GPU (`nvidia-smi` lists them)."
                )
            state.split_further()
        if state.parts_per_batch > 1:
            split.append(stage)
        part = -(-stage.batch * state.devices.own // state.parts_per_batch)
        started = time.perf_counter()
        _pass(state, part, size)  # the first one has warmed up
        pace[stage.open_blocks] = (time.perf_counter() - started) * state.devices.own / part
    for name, buffer in state.net.named_buffers():
        buffer.copy_(buffers[name])
    return split, pace


def _fits(state: TrainState, batch: int, size: int) -> bool:
    """Say whether forward, backward and optimiser state of one part of `batch` images fit."""
    with contextlib.suppress(torch.OutOfMemoryError):
        _pass(state, -(-batch // state.parts_per_batch), size)
        return True
    state.optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return False


def _pass(state: TrainState, images: int, size: int) -> None:
    # Without DDP's exchange, in which other processes would wait for one that runs out of memory.
    supervised = bare(state.supervised) if state.ranks.world > 1 else state.supervised
    image = torch.rand(images, 3, size, size, device=state.device)
    mask = torch.zeros(images, 1, size, size, device=state.device)
    loss, _terms = total(supervised(image, mask))
    state.scaler.scale(loss).backward()
    trained = [p for p in state.net.parameters() if p.requires_grad]
    if not state.optimizer.state:
        _moments = [torch.empty_like(p) for p in trained for _ in range(MOMENTS)]
    if state.device.type == "cuda":
        torch.cuda.synchronize(state.device)
    state.optimizer.zero_grad(set_to_none=True)


BATCH_FLAGS = {1: "--batch-size", 2: "--stage2-batch-size"}


def memory_advice(training: Training) -> str:
    """Return what ran out where, and what to try, with what each would save."""
    config, state = training.config, training.state
    stage = training.plan.at(state.step).stage
    clean_up()
    cost = measure_step(bare(state.supervised), config.img_size, state.device, batch=1)
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
        f"out of memory in stage '{stage.name}' with {stage.batch} images per device at "
        f"{config.img_size} px. In this order, try: {'; or '.join(tips)}. Go on with "
        f"`camoxpert resume {config.checkpoint_dir}` and one of these."
    )


def take_step(state: TrainState, config: Config, batch: dict[str, Tensor]) -> float:
    """Take a whole step: augmentation, network, loss, backward, optimiser, average; return loss."""
    weights = {"deep": config.deep_weight, "balance": config.balance, "uncertainty": 0.0}
    return train_step(state, [batch], step_settings(config), weights)["loss"]


def noise(count: int, size: int) -> dict[str, Tensor]:
    """Return `count` images of noise with a square object, as the loader gives them."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(count, 1, size, size, dtype=torch.uint8)
    mask[:, :, size // 4 : size // 2, size // 4 : size // 2] = 1
    image = torch.randint(0, 256, (count, 3, size, size), generator=generator).to(torch.uint8)
    uniform = torch.rand(count, K, generator=generator)
    return {"image": image, "mask": mask, "index": torch.arange(count), "uniform": uniform}
