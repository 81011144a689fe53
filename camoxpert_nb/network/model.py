"""The network: a timm backbone, a light decoder, and in it two mixtures of experts (`mixture`).

A forward pass waits for no device, reads no number back and remembers nothing (DataParallel, DDP).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from ..settings.config import EXPERTS, MIXED
from .backbone import STRIDES, build_backbone
from .layers import conv, resize
from .mixture import Mixture


class CamoXpert(nn.Module):
    """Finds the camouflaged object in a photo.

    `backbone` is any timm network with features at strides 4, 8, 16 and 32; `experts` (1...7) takes
    the first so many of EXPERTS, of which `top_k` work on each cell of the map; `width` is the
    decoder's number of channels, halved at stride 4. `weights` is a file of the backbone's weights,
    `pretrained` asks timm's hub; `start` says what came of it. `checkpointing` saves memory by
    computing twice (a batch-norm in the backbone then moves twice). InputError for bad values.
    """

    mean: Tensor
    std: Tensor
    backbone: Any

    def __init__(
        self,
        backbone: str,
        *,
        experts: int = 7,
        top_k: int = 7,
        width: int = 128,
        weights: str | Path = "",
        pretrained: bool = False,
        deep_supervision: bool = True,
        checkpointing: bool = False,
    ):
        super().__init__()
        if not 1 <= experts <= len(EXPERTS):
            names = ", ".join(EXPERTS)
            raise InputError(
                f"{experts} experts: choose 1 to {len(EXPERTS)}, the first of {names}."
            )
        if experts > 1 and top_k < 2:  # a single choice has weight 1, whatever the router thinks
            raise InputError(f"top_k is {top_k}; choose at least 2, or the router cannot learn.")
        self.backbone, self.start = build_backbone(backbone, weights, pretrained)
        self.checkpointing = checkpointing
        if checkpointing:
            getattr(self.backbone, "model", self.backbone).set_grad_checkpointing(True)
        channels = self.backbone.feature_info.channels()[-4:]
        widths = dict.fromkeys(STRIDES, width) | {4: width // 2}
        self.levels = nn.ModuleList(
            Level(
                count, widths[stride], Mixture(width, experts, top_k) if stride in MIXED else None
            )
            for stride, count in zip(STRIDES, channels, strict=True)
        )
        self.reduce = nn.ModuleList(nn.Conv2d(width, widths[4], 1, bias=False) for _ in STRIDES[1:])
        strides = STRIDES if deep_supervision else STRIDES[:1]
        self.heads = nn.ModuleList(nn.Conv2d(widths[stride], 1, 1) for stride in strides)
        for head in self.heads:  # start at probability 0.1: a hidden object covers about a tenth
            nn.init.constant_(head.bias, -2.2)  # type: ignore[arg-type]
        for name in ("mean", "std"):
            value = torch.tensor(self.backbone.pretrained_cfg[name]).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, image: Tensor) -> dict[str, Any]:
        """Map `image` (B, 3, H, W), 0...1, any H and W from 32, to logits of the same size.

        Returns "logits" (B, 1, H, W); "deep", a list of logits (B, 1, h, w) at strides 8, 16, 32,
        or empty; "cells", for each of MIXED the gates of each cell (B, experts, rows, columns), 0
        for experts that were not chosen, adding up to 1; "gates" (B, 2, experts), their means;
        "router" (B, 2, experts), the means of the probabilities they were chosen from.
        """
        features = self.backbone((image - self.mean) / self.std)[-4:]  # (B, channels, h, w) each
        above, seen = None, []
        for feature, level in list(zip(features, self.levels, strict=True))[:0:-1]:
            above, *chosen = self._run(level, feature, above)  # from the deepest level up
            seen.append((above, chosen))
        levels, choices = zip(*seen[::-1], strict=True)  # at strides 8, 16 and 32
        finest, *_ = self._run(self.levels[0], features[0], self._fuse(levels))
        logits = [head(x) for head, x in zip(self.heads, [finest, *levels], strict=False)]
        gates, router = zip(*filter(None, choices), strict=True)
        return {
            "logits": resize(logits[0], image.shape[2:]),
            "deep": logits[1:],
            "cells": list(gates),
            "gates": torch.stack([each.detach().mean((2, 3)) for each in gates], 1),
            "router": torch.stack([each.mean((2, 3)) for each in router], 1),
        }

    def _run(self, level: nn.Module, feature: Tensor, above: Tensor | None) -> tuple[Tensor, ...]:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(level, feature, above, use_reentrant=False)
        return level(feature, above)

    def _fuse(self, levels: Sequence[Tensor]) -> Tensor:
        """Add up the levels at strides 8, 16 and 32, made thin first, at stride 8."""
        thin = [reduce(level) for reduce, level in zip(self.reduce, levels, strict=True)]
        fused = thin.pop()
        for finer in thin[::-1]:
            fused = finer + resize(fused, finer.shape[2:])
        return fused

    def backbone_blocks(self) -> list[list[nn.Module]]:
        """Return the backbone's parts in four groups, shallow to deep, for staged unfreezing.

        Each of its parameters is in one group; a backbone in one piece is the deepest group.
        """
        ends = [info["module"].replace(".", "_") for info in self.backbone.feature_info][-4:]
        parts: dict[str, nn.Module] = {}
        for name, child in self.backbone.named_children():
            blocks = {f"{name}_{key}": block for key, block in child.named_children()}
            opened = isinstance(child, nn.Sequential) and set(blocks) & set(ends)
            parts |= blocks if opened else {name: child}
        if not set(ends) <= set(parts):
            return [[], [], [], [self.backbone]]
        group, groups = 0, list[list[nn.Module]]([[], [], [], []])
        for name, part in parts.items():
            groups[min(group, 3)].append(part)
            group += name in ends
        return groups


class Level(nn.Module):
    """One step of the decoder: feature and level above are added, experts look, a 3 x 3 settles."""

    def __init__(self, channels: int, width: int, mixture: Mixture | None):
        super().__init__()
        self.lateral = conv(channels, width, 1)
        self.mixture = mixture
        self.settle = conv(width, width, 3)

    def forward(self, feature: Tensor, above: Tensor | None) -> tuple[Tensor, ...]:
        """Map feature (B, channels, h, w), above (B, width, any, any) to what Mixture returns.

        Without a mixture to the feature alone.
        """
        x = self.lateral(feature)
        if above is not None:
            x = x + resize(above, x.shape[2:])
        x, *gates = self.mixture(x) if self.mixture else (x,)
        return F.relu(self.settle(x)), *gates
