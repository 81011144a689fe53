"""The optimiser's side of the schedule: groups of parameters, their rates, what is frozen.

The optimiser is built once over fixed groups; a frozen group has no gradient and factor 0, and its
normalisation statistics stand still.
"""

from __future__ import annotations

import torch
from torch import nn

from .schedule import Plan


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


def set_learning_rates(optimizer: torch.optim.Optimizer, plan: Plan, step: int) -> None:
    """Give each group its rate for `step`."""
    for group in optimizer.param_groups:
        group["lr"] = plan.lr(step, group["block"])


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
