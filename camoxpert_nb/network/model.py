"""The network: a timm backbone, a mixture of seven experts at each stage, a light decoder.

Read downwards: the network, its parts as an image meets them, the backbone and its weights. A
forward pass waits for no device, reads no number back and remembers nothing (DataParallel, DDP).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from .backbone import STRIDES, build_backbone

SLICE = 16  # channels that each expert works on


class CamoXpert(nn.Module):
    """Finds the camouflaged object in a photo.

    `backbone` is any timm network with features at strides 4, 8, 16 and 32; `experts` (1...7) takes
    the first so many of EXPERTS, of which `top_k` work on each image at each stage; `width` is the
    decoder's number of channels. `weights` is a file of the backbone's weights, `pretrained` asks
    timm's hub; `start` says what came of it. `checkpointing` saves memory by
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
        top_k: int = 3,
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
        self.stages = nn.ModuleList(Level(count, width, experts, top_k) for count in channels)
        strides = STRIDES if deep_supervision else STRIDES[:1]
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in strides)
        for head in self.heads:  # start at probability 0.1: a hidden object covers about a tenth
            nn.init.constant_(head.bias, -2.2)  # type: ignore[arg-type]
        for name in ("mean", "std"):
            value = torch.tensor(self.backbone.pretrained_cfg[name]).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, image: Tensor) -> dict[str, Any]:
        """Map `image` (B, 3, H, W), 0...1, any H and W from 32, to logits of the same size.

        Returns "logits" (B, 1, H, W); "deep", a list of logits (B, 1, h, w) at strides 8, 16, 32,
        or empty; "gates" (B, 4, experts), each chosen expert's weight at each stage, 0 for the
        others, summing to 1; "router" (B, 4, experts), the probabilities they were chosen from.
        """
        features = self.backbone((image - self.mean) / self.std)[-4:]  # (B, channels, h, w) each
        saving = self.checkpointing and torch.is_grad_enabled()
        above, decoded = None, []
        for feature, stage in zip(features[::-1], self.stages[::-1], strict=True):
            run = partial(checkpoint, stage, use_reentrant=False) if saving else stage
            decoded.append(run(feature, above))  # from the deepest stage up
            above = decoded[-1][0]  # (B, width, h, w)
        levels, gates, router = zip(*decoded[::-1], strict=True)  # strides 4, 8, 16, 32
        logits = [head(level) for head, level in zip(self.heads, levels, strict=False)]
        return {
            "logits": _resize(logits[0], image.shape[-2:]),
            "deep": logits[1:],
            "gates": torch.stack(gates, 1),
            "router": torch.stack(router, 1),
        }

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

    def __init__(self, channels: int, width: int, experts: int, top_k: int):
        super().__init__()
        self.lateral = _conv(channels, width, 1)
        self.mixture = Mixture(width, experts, top_k)
        self.settle = _conv(width, width, 3)

    def forward(self, feature: Tensor, above: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Map feature (B, channels, h, w), above (B, width, any, any) to what Mixture returns."""
        x = self.lateral(feature)
        if above is not None:
            x = x + _resize(above, x.shape[-2:])
        x, gates, router = self.mixture(x)
        return F.relu(self.settle(x)), gates, router


class Mixture(nn.Module):
    """Adds to a feature what the experts see that are chosen for the image.

    All experts are computed for all images, each on its own slice of SLICE channels, so there is no
    loop over images and nothing to wait for; the gates silence those that were not chosen.
    """

    def __init__(self, width: int, experts: int, top_k: int):
        super().__init__()
        self.top_k = min(top_k, experts)
        self.router = nn.Linear(2 * width, experts)
        self.spread = nn.Conv2d(width, experts * SLICE, 1, bias=False)
        self.experts = nn.ModuleList(expert() for expert in list(EXPERTS.values())[:experts])
        self.norm = nn.GroupNorm(experts, experts * SLICE)  # each expert of each image by itself
        self.merge = nn.Conv2d(experts * SLICE, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map x (B, width, h, w) to the same shape, gates (B, experts), router (B, experts)."""
        gates, router = self._choose(x)
        slices = self.spread(x).chunk(len(self.experts), 1)  # experts x (B, SLICE, h, w)
        views = [expert(part) for expert, part in zip(self.experts, slices, strict=True)]
        seen = F.gelu(self.norm(torch.cat(views, 1)))  # (B, experts * SLICE, h, w)
        weight = gates * self.top_k  # 1 on average for the chosen: they must be heard
        weight = weight.to(seen.dtype).repeat_interleave(SLICE, 1)[:, :, None, None]
        return x + self.merge(seen * weight), gates, router

    def _choose(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):  # gates and probabilities in float32
            places = x.float().flatten(2)  # (B, width, h * w)
            spread = (places.var(2, unbiased=False) + 1e-5).sqrt()  # finite gradient at 0
            probability = self.router(torch.cat([places.mean(2), spread], 1)).softmax(1)
            best = probability.topk(self.top_k, 1).indices
            gates = probability * torch.zeros_like(probability).scatter(1, best, 1.0)
            return gates / gates.sum(1, keepdim=True), probability


# The seven experts: each maps (B, SLICE, h, w) to the same shape.


class _Texture(nn.Module):
    """Fine to coarse pattern: convolutions of four dilations side by side."""

    def __init__(self) -> None:
        super().__init__()
        rates, part = (1, 2, 3, 4), SLICE // 4
        self.convs = nn.ModuleList(nn.Conv2d(part, part, 3, 1, rate, rate) for rate in rates)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(p) for conv, p in zip(self.convs, x.chunk(4, 1), strict=True)], 1)


class _Attention(nn.Module):
    """Each place sees the whole image, by attention of linear cost (Shen et al., WACV 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(SLICE, 3 * SLICE, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x).flatten(2).chunk(3, 1)  # (B, SLICE, h * w) each
        with torch.autocast(x.device.type, enabled=False):
            # Averages of averages of the values: bounded, so a large image or float16 is safe.
            summary = value.float() @ key.float().softmax(2).mT  # (B, SLICE, SLICE)
            return (summary @ query.float().softmax(1)).view_as(x).to(x.dtype)


class _Hybrid(nn.Module):
    """Local pattern, let through by what the whole image looks like."""

    def __init__(self) -> None:
        super().__init__()
        self.local = nn.Conv2d(SLICE, SLICE, 5, padding=2, groups=SLICE)
        self.whole = nn.Conv2d(SLICE, SLICE, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.local(x) * self.whole(x.mean((2, 3), keepdim=True)).sigmoid()


class _Frequency(nn.Module):
    """Four frequency bands, split by averaging over 3, 7 and 15 places."""

    def forward(self, x: Tensor) -> Tensor:
        high, upper, lower, low = x.chunk(4, 1)
        bands = [high - _blur(high, 3), _blur(upper, 3) - _blur(upper, 7)]
        return torch.cat([*bands, _blur(lower, 7) - _blur(lower, 15), _blur(low, 15)], 1)


class _Edge(nn.Module):
    """Outlines: size of the Sobel gradient for half the channels, of the Laplacian for the rest."""

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        laplace = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
        kernels = torch.stack([sobel, sobel.T] * (SLICE // 2) + [laplace] * (SLICE // 2))
        self.register_buffer("kernels", kernels[:, None], persistent=False)  # (24, 1, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = F.pad(x, (1, 1, 1, 1), mode="replicate").chunk(2, 1)  # a border is no edge
        sobel, laplace = self.kernels.to(x.dtype).split([SLICE, SLICE // 2])
        slope = F.conv2d(first, sobel, groups=SLICE // 2).float().unflatten(1, (-1, 2))
        bend = F.conv2d(second, laplace, groups=SLICE // 2).float()  # squares overflow float16
        size = torch.cat([slope.square().sum(2), bend.square()], 1)
        return (size + 1e-4).sqrt().to(x.dtype)  # finite gradient on flat areas


class _Context(nn.Module):
    """The scene around: averages over grids of 1, 4, 16 and 64 cells, laid over the image."""

    def forward(self, x: Tensor) -> Tensor:
        grids = [F.adaptive_avg_pool2d(p, 2**i) for i, p in enumerate(x.chunk(4, 1))]
        return torch.cat([_resize(grid, x.shape[-2:]) for grid in grids], 1)


class _Contrast(nn.Module):
    """What differs from its surroundings: a small neighbourhood less a large, at four scales."""

    def forward(self, x: Tensor) -> Tensor:
        scales = zip(x.chunk(4, 1), (1, 3, 3, 5), (5, 7, 11, 21), strict=True)
        return torch.cat([_blur(p, small) - _blur(p, large) for p, small, large in scales], 1)


EXPERTS: dict[str, Any] = {
    kind.__name__[1:].lower(): kind
    for kind in (_Texture, _Attention, _Hybrid, _Frequency, _Edge, _Context, _Contrast)
}


def _conv(channels: int, width: int, size: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, size, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, width))  # no batch statistics: each image by itself


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _blur(x: Tensor, size: int) -> Tensor:
    rows = F.avg_pool2d(x, (size, 1), 1, (size // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, size), 1, (0, size // 2), count_include_pad=False)
