"""What a training costs: measured by the very steps that will run, on noise.

Dry run, form, doctor, batch search and rehearsal all ask `run_steps`. It takes whole steps
(augmentation, network, losses, backward pass, exchange, optimiser, average), so the state it is
given is another one afterwards; `untouched` brings it back.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.augment import K
from ..data.cache import cache_folder, seconds_to_decode
from ..machine.devices import GIB
from ..outside.scratch import scratch
from ..runs.run import Run
from .prepare import Training, step_settings
from .schedule import Stage
from .state import TrainState
from .train import StepSettings, loss_weights, train_step
from .validate import validate

STEADY, MOST_STEPS = 2.0, 10  # seconds to go on timing for, and steps at the most
SHARE_OF_VALIDATION = 4  # batches of it that are timed


class Steps(NamedTuple):
    """What some steps took: `seconds` each, the last loss, and the most memory in bytes.

    On a GPU that is what PyTorch reserved, on a CPU the whole process, libraries included; 0 where
    the system does not tell.
    """

    seconds: float
    peak_bytes: int
    loss: float


@dataclass(frozen=True)
class StepCost:
    """The cost of one process's step with `images`: `seconds`, and memory that grows with a batch.

    `fixed_bytes` is what a batch of no image would take.
    """

    images: int
    seconds: float
    fixed_bytes: int
    bytes_per_image: int

    @property
    def seconds_per_image(self) -> float:
        """The time for one of the process's images."""
        return self.seconds / self.images

    def gib(self, batch: int) -> float:
        """Return the memory in GiB that a batch of this size needs in one process."""
        return (self.fixed_bytes + batch * self.bytes_per_image) / GIB


@dataclass(frozen=True)
class Costs:
    """What a training costs here: its steps by open blocks, and what stands between the epochs.

    Steps are those of whole images; of smaller ones they take as much less as these have pixels.
    validation: seconds for one pass over the validation images, of all weights that are scored.
    saving: seconds to write last.pt. decoding: seconds before the first epoch, 0 if cached.
    """

    steps: Mapping[int, StepCost]
    validation: float
    saving: float
    decoding: float

    @property
    def between(self) -> float:
        """The seconds from one epoch to the next."""
        return self.validation + self.saving

    def epoch(self, stage: Stage) -> float:
        """Return the seconds of an epoch of this stage, from end to end."""
        return stage.steps * stage.area * self.steps[stage.open_blocks].seconds + self.between

    def per_image(self, devices: int) -> dict[int, float]:
        """Return a device's seconds for an image, by open blocks; a process has `devices`."""
        return {blocks: devices * step.seconds_per_image for blocks, step in self.steps.items()}


def measure_costs(training: Training) -> Costs:
    """Take steps of every stage, validate, save and decode a little; InputError from bad images.

    The training's state is spoilt afterwards. All its processes call this alike.
    """
    config, state, settings = training.config, training.state, step_settings(training.config)
    steps = {}
    for stage in sorted(training.plan.of_whole_images(), key=lambda stage: stage.open_blocks):
        state.open_blocks(stage.open_blocks)
        batch = stage.batch * training.devices.own
        steps[stage.open_blocks] = measure_step(state, settings, config.img_size, batch)
    sides, folder = (training.data.train, training.data.validation), cache_folder(config)
    decoding = sum(seconds_to_decode(pairs, config.img_size, folder) for pairs in sides)
    return Costs(steps, _time_validation(training), _time_saving(training), decoding)


def measure_step(state: TrainState, settings: StepSettings, size: int, batch: int) -> StepCost:
    """Take steps of `batch` images of `size` pixels a side, and others for the memory of one.

    Frozen blocks are as the state has them. Raises torch.OutOfMemoryError as a step does.
    """
    few, many = sorted((batch, batch // 2 if batch > 3 else 2 * batch))
    found = {
        images: run_steps(state, settings, size, images, None if images == batch else 1)
        for images in (few, many)
    }
    per_image = max(found[many].peak_bytes - found[few].peak_bytes, 0) // (many - few)
    fixed = found[batch].peak_bytes - batch * per_image
    return StepCost(batch * settings.accumulation, found[batch].seconds, fixed, per_image)


def run_steps(
    state: TrainState, settings: StepSettings, size: int, batch: int, steps: int | None = None
) -> Steps:
    """Take steps to warm up and then `steps`, or as many as tell the time; all processes alike.

    Where steps are captured as a CUDA graph, those that are timed are replayed.
    """
    state.graph.forget()
    clean_up()
    _forget_peak(state.device)
    group, weights = [noise(batch, size)] * settings.accumulation, loss_weights(settings, 1.0)
    started = time.perf_counter()
    loss = train_step(state, group, settings, weights)["loss"]
    first = time.perf_counter() - started
    while steps != 0 and state.graph.due and state.parts_per_batch == 1:
        train_step(state, group, settings, weights)
    taken, started = 0, time.perf_counter()
    while taken < (MOST_STEPS if steps is None else steps):
        loss = train_step(state, group, settings, weights)["loss"]
        taken += 1
        if steps is None and not state.ranks.any(time.perf_counter() - started < STEADY)[0]:
            break
    seconds = (time.perf_counter() - started) / taken if taken else first
    return Steps(seconds, _peak(state.device), loss)


@contextlib.contextmanager
def untouched(state: TrainState) -> Iterator[None]:
    """Bring weights, average, optimiser and counts back at the end; kept on disk, not in memory."""
    with tempfile.TemporaryFile() as file:
        torch.save(state.state_dict(), file)
        opened, size = state.opened, state.size
        try:
            yield
        finally:
            file.seek(0)
            state.optimizer.zero_grad(set_to_none=True)
            state.load_state_dict(torch.load(file, map_location=state.device, weights_only=True))
            if opened >= 0:
                state.open_blocks(opened, size)


def noise(count: int, size: int) -> dict[str, Tensor]:
    """Return `count` images of noise with a square object, as the loader gives them."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(count, 1, size, size, dtype=torch.uint8)
    mask[:, :, size // 4 : size // 2, size // 4 : size // 2] = 1
    image = torch.randint(0, 256, (count, 3, size, size), generator=generator).to(torch.uint8)
    uniform = torch.rand(count, K, generator=generator)
    return {"image": image, "mask": mask, "index": torch.arange(count), "uniform": uniform}


def clean_up() -> None:
    """Give back all memory that nothing uses, so that sizes are tried on equal terms."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _time_validation(training: Training) -> float:
    config, state, stage = training.config, training.state, training.plan.stages[-1]
    own = -(-len(training.data.validation) // training.ranks.world)
    batches = [noise(stage.batch * training.devices.own, config.img_size)]
    passes = -(-own // len(batches[0]["index"]))
    timed = min(passes, SHARE_OF_VALIDATION)
    how: Any = {"dtype": training.precision.dtype, "device": training.devices.main}
    started = time.perf_counter()
    validate(state.net, batches * timed, ranks=training.ranks, **how)
    networks = 1 + (state.ema is not None)
    return networks * (time.perf_counter() - started) * passes / timed


def _time_saving(training: Training) -> float:
    wanted = Path(training.config.checkpoint_dir or "runs").absolute()
    there = next(path for path in (wanted, *wanted.parents) if path.is_dir())
    with scratch(there, "trial") as folder:
        started = time.perf_counter()
        Run(folder).save("last", training.state.state_dict())
        return time.perf_counter() - started


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # a system without /proc
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_reserved(device))
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return 0
