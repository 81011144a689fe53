"""Layers that every part of the decoder uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Norm(nn.GroupNorm):
    """Group norm in the precision of its input; its sums are in float32 all the same, inside.

    Autocast would take it, and all that follows, to float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, channels, h, w) to the same."""
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.group_norm(x, self.num_groups, weight, bias, self.eps)


def conv(channels: int, width: int, size: int) -> nn.Sequential:
    """Return a convolution, stride 1, and its norm: (B, channels, h, w) to (B, width, h, w)."""
    convolution = nn.Conv2d(channels, width, size, padding=size // 2, bias=False)
    return nn.Sequential(convolution, Norm(8, width))  # no batch statistics: each image by itself


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """Return x (B, C, any, any), stretched to `size` (h, w)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
