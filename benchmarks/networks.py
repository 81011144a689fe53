"""The networks that CamoXpert is measured against, by name: its twins, and its peers.

A twin is CamoXpert with something else in the mixtures' place, so that what it lacks is what the
difference shows. A peer is a network of segmentation_models_pytorch on the same backbone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camoxpert_nb.network.build import build_net
from camoxpert_nb.network.mixture import SLICE
from camoxpert_nb.network.model import CamoXpert
from camoxpert_nb.settings.config import Config


class Constant(nn.Module):
    """A router that counts every expert alike, everywhere."""

    def __init__(self, experts: int):
        super().__init__()
        self.experts, self.top_k = experts, experts

    def forward(self, x: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return what Router does."""
        gates = x.new_full((len(x), self.experts, 1, 1), 1 / self.experts, dtype=torch.float32)
        rows, columns = (-(-places // side) for places in x.shape[-2:])
        gates = gates.expand(-1, -1, rows, columns)
        return gates, gates


class PerImage(nn.Module):
    """A router that sees, and decides for, the whole image."""

    def __init__(self, router: nn.Module):
        super().__init__()
        self.router, self.top_k = router, router.top_k

    def forward(self, x: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return what Router does."""
        rows, columns = (-(-places // side) for places in x.shape[-2:])
        return tuple(each.expand(-1, -1, rows, columns) for each in self.router(x, max(x.shape)))


class Alone(nn.Module):
    """A mixture's place, taken by `seen`: (B, width, h, w) to the same, added to the feature."""

    def __init__(self, seen: nn.Module | None):
        super().__init__()
        self.seen = seen

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what Mixture does, with one gate that is always open."""
        gates = x.new_ones(len(x), 1, 1, 1, dtype=torch.float32)
        return (x if self.seen is None else x + self.seen(x)), gates, gates


class Wide(nn.Module):
    """One expert, texture, with the channels of all."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.spread = nn.Conv2d(width, channels, 1, bias=False)
        half = channels // 2
        self.fine = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.coarse = nn.Conv2d(half, half, 3, padding=3, dilation=3, bias=False)
        self.norm = nn.GroupNorm(channels // SLICE, channels)
        self.merge = nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, width, h, w) to the same shape."""
        near, far = self.spread(x).chunk(2, 1)
        return self.merge(F.gelu(self.norm(torch.cat([self.fine(near), self.coarse(far)], 1))))


def _plain(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.GELU()
    )


class Peer(nn.Module):
    """A segmentation_models_pytorch network with CamoXpert's outputs."""

    backbone_blocks = CamoXpert.backbone_blocks
    mean: Tensor
    std: Tensor

    def __init__(self, architecture: str, twin: CamoXpert, name: str):
        super().__init__()
        make = getattr(smp, architecture)
        self.peer = make(f"tu-{name}", encoder_weights=None, classes=1)
        self.backbone = self.peer.encoder.model
        self.backbone.load_state_dict(twin.backbone.state_dict())
        self.start = twin.start
        self.register_buffer("mean", twin.mean, persistent=False)
        self.register_buffer("std", twin.std, persistent=False)

    def forward(self, image: Tensor) -> dict[str, Any]:
        """Return CamoXpert's outputs, with one expert that is always chosen."""
        gates = image.new_ones(len(image), 1, 1)
        logits = self.peer((image - self.mean) / self.std)
        return {"logits": logits, "deep": [], "gates": gates, "router": gates}


def _twin(change: Callable[[nn.Module, Config], nn.Module | None], config: Config) -> nn.Module:
    """Build the network, each mixture m of it replaced by `change(m, config)`."""
    net = build_net(config)
    torch.manual_seed(config.seed)  # of what the twin has instead
    for level in net.levels:
        if level.mixture is not None:
            level.mixture = change(level.mixture, config)
    return net


def _with_router(make: Callable[[nn.Module, Config], nn.Module]) -> Any:
    def change(mixture: nn.Module, config: Config) -> nn.Module:
        mixture.router = make(mixture.router, config)
        return mixture

    return partial(_twin, change)


def _in_place(make: Callable[[Config], nn.Module | None]) -> Any:
    return partial(_twin, lambda mixture, config: Alone(make(config)))


def _peer(architecture: str, config: Config) -> nn.Module:
    twin = build_net(config)
    torch.manual_seed(config.seed)
    return Peer(architecture, twin, config.backbone)


NETWORKS: dict[str, Callable[[Config], nn.Module]] = {
    "CamoXpert": build_net,
    "constant": _with_router(lambda router, config: Constant(config.num_experts)),
    "random": _with_router(lambda router, config: router.requires_grad_(False)),
    "image": _with_router(lambda router, config: PerImage(router)),
    "one": _in_place(lambda config: Wide(config.width, config.num_experts * SLICE)),
    "plain": _in_place(lambda config: _plain(config.width)),
    "none": _in_place(lambda config: None),
    "FPN": partial(_peer, "FPN"),
    "Unet": partial(_peer, "Unet"),
}
