"""The network: a timm backbone, a mixture of seven experts at each stage, a light decoder.

Read downwards: the network, then its parts in the order in which an image meets them, then where
the backbone and its weights come from. Nothing in a forward pass waits for the device, reads a
number back or remembers anything, so the same code runs under DataParallel, DDP, mixed precision
and gradient checkpointing. Shapes: B images, H x W pixels, h x w places of one stage.
"""

from __future__ import annotations

import difflib
import math
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import load_state_dict
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .errors import InputError

STRIDES = [4, 8, 16, 32]
SLICE = 16  # channels that each expert works on
FIRST_PROBABILITY = 0.1  # of the untrained network: camouflaged objects cover about a tenth
HUB_TIMEOUT = 5.0  # seconds; the hub's own client retries for 46 when there is no connection


class CamoXpert(nn.Module):
    """Finds the camouflaged object in a photo.

    `backbone` is any timm network with features at strides 4, 8, 16 and 32; `experts` (1...7) takes
    the first so many of EXPERTS, of which `top_k` work on each image at each stage; `width` is the
    decoder's number of channels. `weights` is a file of the backbone's weights, `pretrained` asks
    timm's hub; `weights_source` says in words what came of it. `checkpointing` computes the stages
    a second time in the backward pass to save memory (running statistics of batch-norm in the
    backbone then move twice a step). Raises InputError for what cannot be used.
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
        width: int = 64,
        weights: str | Path = "",
        pretrained: bool = False,
        deep_supervision: bool = True,
        checkpointing: bool = False,
    ):
        super().__init__()
        _check_experts(experts, top_k)
        self.backbone, self.weights_source = _build_backbone(backbone, weights, pretrained)
        self.checkpointing = checkpointing
        if checkpointing:
            getattr(self.backbone, "model", self.backbone).set_grad_checkpointing(True)
        channels = self.backbone.feature_info.channels()[-4:]
        heads = 4 if deep_supervision else 1
        self.laterals = nn.ModuleList(_lateral(count, width) for count in channels)
        self.mixtures = nn.ModuleList(Mixture(width, experts, top_k) for _ in STRIDES)
        self.fusions = nn.ModuleList(Fusion(width) for _ in STRIDES)
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in range(heads))
        for head in self.heads:
            nn.init.constant_(head.bias, math.log(FIRST_PROBABILITY / (1 - FIRST_PROBABILITY)))  # type: ignore[arg-type]
        for name in ("mean", "std"):
            value = torch.tensor(self.backbone.pretrained_cfg[name]).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, image: Tensor) -> dict[str, Any]:
        """Map `image` (B, 3, H, W), 0...1, any H and W from 32, to logits of the same size.

        Returns "logits" (B, 1, H, W); "deep", a list of logits (B, 1, h, w) at strides 8, 16, 32,
        or empty; "gates" (B, 4, experts), each chosen expert's weight at each stage, 0 for the
        others, summing to 1; "router" (B, 4, experts), the probabilities they were chosen from.
        """
        features = self.backbone((image - self.mean) / self.std)[-4:]
        mixed = [
            self._run(mixture, lateral(feature))
            for feature, lateral, mixture in zip(
                features, self.laterals, self.mixtures, strict=True
            )
        ]
        levels, gates, router = zip(*mixed, strict=True)
        above, decoded = levels[-1], []  # (B, width, h, w)
        for level, fusion in zip(levels[::-1], self.fusions[::-1], strict=True):
            above = self._run(fusion, level, above)
            decoded.insert(0, above)  # in the end at strides 4, 8, 16, 32
        logits = [head(level) for head, level in zip(self.heads, decoded, strict=False)]
        return {
            "logits": _resize(logits[0], image.shape[-2:]),
            "deep": logits[1:],
            "gates": torch.stack(gates, 1),
            "router": torch.stack(router, 1),
        }

    def _run(self, part: nn.Module, *inputs: Tensor) -> Any:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)

    def backbone_blocks(self) -> list[list[nn.Module]]:
        """Return the backbone's parts in four groups, shallow to deep, for staged unfreezing.

        Every parameter of the backbone is in exactly one group. A backbone that timm does not take
        apart is one deepest group.
        """
        ends = [info["module"].replace(".", "_") for info in self.backbone.feature_info][-4:]
        parts: dict[str, nn.Module] = {}
        for name, child in self.backbone.named_children():
            inside = isinstance(child, nn.Sequential) and f"{name}_" in "".join(ends)
            blocks = child.named_children() if inside else ()
            parts |= {f"{name}_{key}": block for key, block in blocks} or {name: child}
        if not set(ends) <= set(parts):
            return [[], [], [], [self.backbone]]
        groups: list[list[nn.Module]] = [[], [], [], []]
        group = 0
        for name, part in parts.items():
            groups[min(group, 3)].append(part)
            group += name in ends
        return groups


def _lateral(channels: int, width: int) -> nn.Sequential:
    """Return what brings a backbone's feature to the decoder's width and to unit scale."""
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.GroupNorm(8, width))


class Mixture(nn.Module):
    """Adds to a stage's feature what its chosen experts see in it.

    All experts are computed for all images, each on its own slice of SLICE channels, so there is no
    loop over images and nothing to wait for; the gates silence those that were not chosen.
    """

    def __init__(self, width: int, experts: int, top_k: int):
        super().__init__()
        self.router = Router(width, experts, top_k)
        self.spread = nn.Conv2d(width, experts * SLICE, 1, bias=False)
        self.experts = nn.ModuleList(expert(SLICE) for expert in list(EXPERTS.values())[:experts])
        self.norm = nn.GroupNorm(experts, experts * SLICE)  # each expert and each image by itself
        self.merge = nn.Conv2d(experts * SLICE, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map x (B, width, h, w) to the same shape, gates (B, experts), router (B, experts)."""
        gates, router = self.router(x)
        slices = self.spread(x).chunk(len(self.experts), 1)  # experts x (B, SLICE, h, w)
        views = [expert(part) for expert, part in zip(self.experts, slices, strict=True)]
        seen = F.relu(self.norm(torch.cat(views, 1)))  # (B, experts * SLICE, h, w)
        weight = gates.to(seen.dtype).repeat_interleave(SLICE, 1)[:, :, None, None]
        return x + self.merge(seen * weight), gates, router


class Router(nn.Module):
    """Chooses `top_k` experts for each image, from the mean and the spread of its feature."""

    def __init__(self, width: int, experts: int, top_k: int):
        super().__init__()
        self.linear = nn.Linear(2 * width, experts)
        self.top_k = min(top_k, experts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (B, width, h, w) to gates and probabilities, (B, experts), float32."""
        with torch.autocast(x.device.type, enabled=False):
            places = x.float().flatten(2)  # (B, width, h * w)
            spread = (places.var(2, unbiased=False) + 1e-5).sqrt()  # finite gradient at 0
            probability = self.linear(torch.cat([places.mean(2), spread], 1)).softmax(1)
            best = probability.topk(self.top_k, 1).indices
            gates = probability * torch.zeros_like(probability).scatter(1, best, 1.0)
            return gates / gates.sum(1, keepdim=True), probability


# The seven experts. Each maps (B, channels, h, w) to the same shape.


class _Texture(nn.Module):
    """Fine to coarse pattern: convolutions of four dilations side by side."""

    def __init__(self, channels: int):
        super().__init__()
        part = channels // 4
        self.branches = nn.ModuleList(
            nn.Conv2d(part, part, 3, padding=rate, dilation=rate) for rate in (1, 2, 3, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(4, 1)
        return torch.cat([conv(part) for conv, part in zip(self.branches, parts, strict=True)], 1)


class _Attention(nn.Module):
    """Each place sees the whole image, by attention of linear cost (Shen et al., WACV 2021).

    Keys are a softmax over places and queries one over channels, so the output is an average of
    values: it does not grow with the image, and cannot overflow in half precision.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.project = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x).flatten(2).chunk(3, 1)  # (B, channels, h * w) each
        with torch.autocast(x.device.type, enabled=False):
            query, key, value = query.float().softmax(1), key.float().softmax(2), value.float()
            summary = value @ key.transpose(1, 2)  # (B, channels, channels)
            return (summary @ query).view_as(x).to(x.dtype)


class _Hybrid(nn.Module):
    """Local pattern, let through by what the whole image looks like."""

    def __init__(self, channels: int):
        super().__init__()
        self.local = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.whole = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.local(x) * self.whole(x.mean((2, 3), keepdim=True)).sigmoid()


class _Frequency(nn.Module):
    """Three frequency bands, split by average pooling and mixed anew."""

    def __init__(self, channels: int):
        super().__init__()
        self.mix = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = _blur(x, 3), _blur(x, 7)
        return self.mix(torch.cat([x - fine, fine - coarse, coarse], 1))


class _Edge(nn.Module):
    """Outlines: the size of the Sobel gradient, and the Laplacian, of every channel."""

    kernels: Tensor

    def __init__(self, channels: int):
        super().__init__()
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        laplace = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
        kernels = torch.stack([sobel, sobel.T, laplace]).unsqueeze(1).repeat(channels, 1, 1, 1)
        self.register_buffer("kernels", kernels, persistent=False)
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")  # the image's border is no edge
        response = F.conv2d(padded, self.kernels.to(x.dtype), groups=x.shape[1])
        across, down, laplace = response.unflatten(1, (-1, 3)).unbind(2)
        size = (across.square() + down.square() + 1e-4).sqrt()  # finite gradient on flat areas
        return self.mix(torch.cat([size, laplace], 1))


class _Context(nn.Module):
    """The scene around: averages over grids of 1, 4 and 16 cells, laid over the image."""

    def __init__(self, channels: int):
        super().__init__()
        self.mixes = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in (1, 2, 4))

    def forward(self, x: Tensor) -> Tensor:
        for cells, mix in zip((1, 2, 4), self.mixes, strict=True):
            x = x + _resize(mix(F.adaptive_avg_pool2d(x, cells)), x.shape[-2:])
        return x


class _Contrast(nn.Module):
    """What differs from its surroundings: a small neighbourhood less a large one."""

    def __init__(self, channels: int):
        super().__init__()
        self.centre = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.centre(x) - _blur(x, 11)


EXPERTS: dict[str, Callable[[int], nn.Module]] = {
    "texture": _Texture,
    "attention": _Attention,
    "hybrid": _Hybrid,
    "frequency": _Frequency,
    "edge": _Edge,
    "context": _Context,
    "contrast": _Contrast,
}


class Fusion(nn.Module):
    """One step of the decoder: the level above, brought to this size, is added and worked in."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, width)

    def forward(self, level: Tensor, above: Tensor) -> Tensor:
        """Map level (B, width, h, w) and above (B, width, any, any) to level's shape."""
        return F.relu(self.norm(self.conv(level + _resize(above, level.shape[-2:]))))


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _blur(x: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)


def _check_experts(experts: int, top_k: int) -> None:
    if not 1 <= experts <= len(EXPERTS):
        raise InputError(
            f"{experts} experts were asked for; choose 1 to {len(EXPERTS)}, which takes the first "
            f"so many of {', '.join(EXPERTS)}."
        )
    if experts > 1 and top_k < 2:
        raise InputError(f"top_k is {top_k}; with fewer than 2 chosen experts no router can learn.")


def _build_backbone(name: str, weights: str | Path, pretrained: bool) -> tuple[nn.Module, str]:
    """Return the backbone and, in words, where its weights come from."""
    backbone = _create(name)
    if weights:
        return backbone, _load_file(name, backbone, Path(weights))
    if pretrained:
        return _from_hub(name, backbone)
    return backbone, "none: trains from scratch (no weights were asked for)"


def _create(name: str) -> nn.Module:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 5, 0.4)
        raise InputError(f"timm has no network {name!r}. Near names: {', '.join(near) or 'none'}.")
    try:
        backbone = timm.create_model(name, features_only=True)
        strides = backbone.feature_info.reduction()
        if strides[-4:] != STRIDES:
            raise ValueError(f"it has {len(strides)} feature stages, at strides {strides}")
        with torch.no_grad():  # eval, so that nothing moves
            shapes = [feature.shape for feature in backbone.eval()(torch.zeros(1, 3, 64, 96))[-4:]]
        if [shape[-2] for shape in shapes] != [64 // stride for stride in STRIDES]:
            raise ValueError(f"its features are laid out as {shapes}")
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{name} does not serve as a backbone: {error}. Needed: four stages, at strides 4, 8, "
            "16 and 32, for any image size, as in edgenext_base, convnext_tiny or resnet50."
        ) from error
    return backbone.train()


def _from_hub(name: str, backbone: nn.Module) -> tuple[nn.Module, str]:
    """Return the backbone with timm's weights, or as it is and why."""
    entry: Any = timm.get_pretrained_cfg(name)
    place = entry and (entry.hf_hub_id or entry.url)
    if not place:
        return backbone, f"none: trains from scratch (timm has no weights for {name})"
    cached = try_to_load_from_cache(place, "model.safetensors") if entry.hf_hub_id else None
    overlay = {"file": cached} if isinstance(cached, str) else None
    if not overlay and not _answers(constants.ENDPOINT if entry.hf_hub_id else place):
        return backbone, f"none: trains from scratch (no connection, for {place})"
    options = {"features_only": True, "pretrained": True, "pretrained_cfg_overlay": overlay}
    try:
        return timm.create_model(name, **options), f"hub {place}"
    except Exception as error:  # the hub's client has many; from scratch, said aloud, serves all
        return backbone, f"none: trains from scratch ({place} did not load: {error})"


def _answers(url: str) -> bool:
    """Say whether a server answers: asked once, where the hub's client would ask twelve times."""
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT).close()
    except urllib.error.HTTPError:  # an answer, too
        return True
    except OSError:
        return False
    return True


def _load_file(name: str, backbone: nn.Module, path: Path) -> str:
    """Load a file in the format of timm's classifier into its feature network; all must fit."""
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights. Check the path.")
    try:
        state = load_state_dict(str(path))  # unwraps state_dict, model, EMA and module. prefixes
    except Exception as error:  # pickle, zip and safetensors break each in its own way
        raise InputError(f"{path}: cannot be read as a file of weights ({error}).") from error
    wanted = {k: v for k, v in backbone.state_dict().items() if "num_batches_tracked" not in k}
    found = {}
    for key, value in state.items():
        for new in (key, key.replace(".", "_", 1), f"model.{key}"):  # timm's feature nets rename
            if new in wanted and getattr(value, "shape", None) == wanted[new].shape:
                found[new] = value
    misses = [key for key in wanted if key not in found]
    if misses:
        raise InputError(
            f"{path}: of the {len(wanted)} tensors of {name}, {len(misses)} are missing or of another "
            f"shape ({', '.join(misses[:3])}, ...). Expected: the state_dict of "
            f"timm.create_model({name!r}); {'this is probably of another architecture.' if len(misses) > len(found) else 'use the same timm version.'}"
        )
    backbone.load_state_dict(found, strict=False)
    return f"file {path.name}"
