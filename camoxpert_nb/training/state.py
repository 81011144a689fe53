"""What changes while training: weights, optimiser, averages and counts, and how they are saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ..machine.devices import Devices, bare, parallel
from ..machine.distributed import Ranks
from ..network.backbone import SCRATCH, Start
from .graph import StepGraph
from .own import Own, is_own
from .schedule import Origin, Plan

WEIGHTS = ("deep", "balance", "uncertainty")  # of the further losses


@dataclass
class TrainState:
    """Everything that changes while training; `state_dict` holds it as tensors and plain values.

    What a step reads and changes on the device stays in its place there, as a captured step knows
    the places: `knobs`, `counted`, `usage` and `shares` are written into, never replaced.
    """

    net: nn.Module  # bare: what is saved
    supervised: nn.Module  # net and losses, wrapped for the devices: what is called
    devices: Devices
    ranks: Ranks
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    start: Start  # what the backbone began with
    epoch: int = 0  # where it is: the epoch, from 0,
    seen: int = 0  # and its images that all processes have trained on
    step: int = 0  # optimiser steps taken, of whatever size
    averaged: int = 0  # of these, steps that were finite, and went into the average
    origin: Origin | None = None  # where the schedule changed
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)  # epoch, iou, weights: "raw" or "ema"
    sums: dict[str, float] = field(default_factory=dict)  # over the steps of this epoch so far
    shares: Tensor | None = None  # (stages, experts) summed gates of this epoch so far
    usage: Tensor | None = None  # (stages, experts) mean probability of the last steps
    skipped_in_row: int = 0
    opened: int = -1  # blocks of the backbone that train now
    size: int = 0  # side of the images they train on, in pixels; 0: as they are loaded
    parts: dict[int, int] = field(default_factory=dict)  # by open blocks; 1 where none is named
    graph: StepGraph = field(default_factory=StepGraph)
    rates: list[float] = field(default_factory=list)  # the learning rate of each group
    knobs: Tensor | None = None  # those rates and WEIGHTS, on the device
    own: Own = field(default_factory=Own)  # the user's parts of the step
    unsound_loss: bool = False  # whether the user's loss gave no number in the last skipped step
    counted: Tensor = field(init=False)  # `averaged`, as the device knows it

    def __post_init__(self) -> None:
        groups = self.optimizer.param_groups
        self.rates = self.rates or [float(group["lr"]) for group in groups]
        if self.knobs is None:
            self.knobs = torch.zeros(len(groups) + len(WEIGHTS), device=self.device)
            self._bind_rates()
        self.counted = torch.tensor(float(self.averaged), device=self.device)
        self._followed: list[list[Tensor]] = []

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.devices.main

    @property
    def parts_per_batch(self) -> int:
        """How many parts a batch is computed in, so that it fits into memory."""
        return self.parts.get(self.opened, 1)

    def set_learning_rates(self, plan: Plan, time: float) -> None:
        """Take each group's rate for that time, from the next step on."""
        self.rates = [plan.lr(time, group["block"]) for group in self.optimizer.param_groups]

    def open_blocks(self, count: int, size: int = 0) -> None:
        """Make the head and the deepest `count` blocks of the backbone trainable, nothing else.

        They train on images of `size` pixels a side, 0: as they are loaded.
        """
        blocks = backbone_blocks(self.net)
        set_open_blocks(self.net, blocks, count, keep_statistics=self.start.pretrained)
        if count != self.opened:
            self.supervised = parallel(bare(self.supervised), self.devices)
        self.opened, self.size = count, size

    def tune(self, weights: dict[str, float]) -> dict[str, Tensor]:
        """Hand the learning rates and these weights of losses to the device; return the weights."""
        assert self.knobs is not None
        values = [*self.rates, *(weights[name] for name in WEIGHTS)]
        pinned = torch.tensor(values, pin_memory=self.device.type == "cuda")
        self.knobs.copy_(pinned, non_blocking=True)
        if is_own(self.own.optimizer):
            self._bind_rates()
        return dict(zip(WEIGHTS, self.knobs[len(self.rates) :], strict=True))

    def _bind_rates(self) -> None:
        """Let the optimiser read its rates where `tune` writes them."""
        assert self.knobs is not None
        # Only the kit's optimiser is known to take a tensor for a rate.
        places = self.rates if is_own(self.own.optimizer) else self.knobs
        for group, rate in zip(self.optimizer.param_groups, places, strict=False):
            group["lr"] = rate

    def usage_like(self, router: Tensor) -> Tensor:
        """Return the usage of the experts; at the start, as if `router` (stages, experts) had been
        even."""
        if self.usage is None:
            self.usage = torch.full_like(router, 1 / router.shape[-1])
        if self.shares is None:
            self.shares = torch.zeros_like(router)
        return self.usage

    @torch.no_grad()
    def average(self, finite: Tensor) -> None:
        """Let the average follow the weights, unless the step was not `finite` (0-dim bool).

        The decay is timm's, reckoned on the device from the steps that counted there.
        """
        ema = self.ema
        if ema is None:
            return
        if not self._followed:  # looked up once: a network is walked through in milliseconds
            nets = (self.net, ema.module)
            self._followed = [
                *(list(net.parameters()) for net in nets),
                *(list(net.buffers()) for net in nets),
            ]
        weights, averages, buffers, kept = self._followed
        since = (self.counted - 1).clamp(min=0)
        decay = 1 - (1 + since / ema.warmup_gamma) ** -ema.warmup_power
        weight = (1 - decay.clamp(max=ema.decay)) * finite
        gap = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(gap, weight)
        torch._foreach_add_(averages, gap)
        for new, old in zip(buffers, kept, strict=True):  # statistics of a bad step may be NaN
            new = torch.lerp(old, new, weight) if new.is_floating_point() else new
            old.copy_(torch.where(finite, new, old))

    def split_further(self) -> None:
        """Compute each batch of this stage in twice as many parts from now on."""
        self.parts[self.opened] = 2 * self.parts_per_batch

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "net": self.net.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self._plain_optimizer(),
            "scaler": self.scaler.state_dict(),
            "pretrained": self.start.pretrained,
            "weights_source": self.start.source,
            "epoch": self.epoch,
            "samples": self.seen,
            "step": self.step,
            "averaged": self.averaged,
            "origin": asdict(self.origin) if self.origin else None,
            "seconds": self.seconds,
            "best": self.best,
            "sums": self.sums,
            "shares": self.shares,
            "usage": self.usage,
            "skipped_in_row": self.skipped_in_row,
            "own": self.own.names,
        }

    def _plain_optimizer(self) -> dict[str, Any]:
        saved = self.optimizer.state_dict()
        pairs = zip(saved["param_groups"], self.rates, strict=True)
        return {**saved, "param_groups": [{**group, "lr": rate} for group, rate in pairs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's contents; the weights are loaded strictly."""
        self.graph.forget()  # moments and sums will lie elsewhere
        self.net.load_state_dict(state["net"])
        if self.ema:
            # A run that used no average so far starts it from the weights, not from random ones.
            self.ema.module.load_state_dict(state["ema"] or state["net"])
        _load_moments(self.optimizer, state["optimizer"])
        self._bind_rates()
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        source = state["weights_source"]  # all that checkpoints before 0.2 say of it
        self.start = Start(state.get("pretrained", not source.startswith(SCRATCH[:4])), source)
        self.epoch, self.seen = state["epoch"], state["samples"]
        self.step, self.seconds = state["step"], state["seconds"]
        self.averaged = state.get("averaged", self.step)
        self.counted.fill_(self.averaged)
        self.origin = Origin(**state["origin"]) if state.get("origin") else None
        self.best, self.sums = dict(state["best"]), dict(state["sums"])
        self.skipped_in_row = state["skipped_in_row"]
        self.shares, self.usage = (
            None if state.get(name) is None else state[name].to(self.device)
            for name in ("shares", "usage")
        )


def backbone_blocks(net: nn.Module) -> list[list[nn.Module]]:
    """Return the network's backbone, in blocks from shallow to deep."""
    return net.backbone_blocks()  # type: ignore[operator]


def parameter_groups(
    net: nn.Module, blocks: list[list[nn.Module]], weight_decay: float
) -> list[dict[str, object]]:
    """Return AdamW's groups: head and each block, with and without weight decay.

    `blocks` are the backbone's, shallow to deep; a group's "block" counts from 1, the deepest, and
    is None for the head. Norms and biases (one dimension or none) get no decay.
    """
    places = {
        id(parameter): len(blocks) - position
        for position, modules in enumerate(blocks)
        for module in modules
        for parameter in module.parameters()
    }
    groups: dict[tuple[int | None, bool], list[nn.Parameter]] = {}
    for parameter in net.parameters():
        key = (places.get(id(parameter)), parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "block": block, "weight_decay": weight_decay if decays else 0.0}
        for (block, decays), parameters in groups.items()
    ]


def _load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over the moments; rates and weight decay stay those of the settings."""
    own = optimizer.state_dict()["param_groups"]
    groups = [
        {**saved, **{name: value for name, value in mine.items() if name != "params"}}
        for saved, mine in zip(state["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def set_open_blocks(
    net: nn.Module, blocks: list[list[nn.Module]], open_blocks: int, *, keep_statistics: bool
) -> None:
    """Put `net` in training mode with only the deepest `open_blocks` of the backbone trainable.

    Frozen modules get no gradient and stay in evaluation mode. With `keep_statistics` the open
    ones keep their batch-norm statistics too: those of a pretrained backbone come from a million
    photos, and the few of a batch spoil them (LOG.md has what that costs).
    """
    net.train()
    for position, modules in enumerate(blocks):
        is_open = len(blocks) - position <= open_blocks
        for module in modules:
            module.requires_grad_(is_open)
            module.train(is_open)
            if keep_statistics:
                _keep_statistics(module)


def _keep_statistics(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):  # timm's own norms derive from it
            part.eval()
