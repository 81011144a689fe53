"""Each stage's heaviest step, taken before the first epoch: memory runs out now or not at all."""

from __future__ import annotations

import contextlib
import time

import torch

from .devices import bare
from .errors import TrainingError
from .losses import total
from .schedule import Plan, Stage
from .state import TrainState

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
