"""What a training step costs, measured by taking one."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .losses import total

OVERHEAD = 1.15  # workspaces and fragments on top of what is counted
COPIES = 5  # of the parameters: weights, gradients, two Adam moments, average


@dataclass(frozen=True)
class StepCost:
    """The cost of training one image, on the device and in the precision it was measured in."""

    seconds_per_image: float
    fixed_bytes: int  # parameters, gradients, optimiser, average
    bytes_per_image: int  # activations kept for the backward pass

    def gib(self, batch: int) -> float:
        """Return the memory in GiB that a batch of this size needs on one device."""
        return OVERHEAD * (self.fixed_bytes + batch * self.bytes_per_image) / 2**30


def measure_step(
    supervised: nn.Module, size: int, device: torch.device, batch: int = 2
) -> StepCost:
    """Run a real forward and backward pass on noise and return what they cost.

    `supervised` maps (image, mask) to parts, as losses.Supervised does; `size` is in pixels. The
    activations are counted as autograd saves them, so the figure holds on any device.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, size, size, generator=generator).to(device)
    mask = (torch.rand(batch, 1, size, size, generator=generator) > 0.8).float().to(device)
    weights = {parameter.data_ptr() for parameter in supervised.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    seconds = 0.0
    for _ in range(2):  # the first pass warms up
        saved.clear()
        started = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _terms = total(supervised(image, mask))
        kept = sum(saved.values())
        loss.backward()
        loss.item()  # wait for the device
        seconds = time.perf_counter() - started
    supervised.zero_grad(set_to_none=True)
    fixed = COPIES * sum(p.numel() * p.element_size() for p in supervised.parameters())
    return StepCost(seconds / batch, fixed, kept // batch)
