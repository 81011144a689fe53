"""The mixture of seven experts, and the router that weighs them cell by cell.

Read downwards: the router, the mixture, the experts, and the cells that a map is cut into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..settings.config import EXPERTS
from .layers import Norm

SLICE = 16  # channels that each expert works on
CELLS = 8  # a map is cut into at most so many rows and columns of cells, each with its own gates


class Router(nn.Module):
    """Says for each cell of the map how much each expert counts there.

    The map is cut into at most CELLS x CELLS cells; what a cell looks like, the means of its
    features and of their sizes, decides. Routing by image gained nothing over fixed weights, by
    cell it does (benchmarks/ACCURACY.md).
    """

    def __init__(self, width: int, experts: int, top_k: int):
        super().__init__()
        self.top_k = top_k
        self.hidden = nn.Conv2d(2 * width, width // 2, 1)
        self.choice = nn.Conv2d(width // 2, experts, 1)

    def forward(self, x: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Map x (B, width, h, w), cells of `side` places, to gates and probabilities.

        Both (B, experts, rows, columns) float32, adding up to 1 in each cell.
        """
        cells = torch.cat([_pool(x, side), _pool(x.abs(), side)], 1)
        with torch.autocast(x.device.type, enabled=False):  # probabilities need all digits
            probability = self.choice(F.gelu(self.hidden(cells.float()))).softmax(1)
            if self.top_k >= probability.shape[1]:
                return probability, probability
            best = probability.topk(self.top_k, 1).indices
            gates = probability * torch.zeros_like(probability).scatter(1, best, 1.0)
            return gates / gates.sum(1, keepdim=True), probability


class Mixture(nn.Module):
    """Adds to a feature what the experts see, weighed cell by cell.

    All experts are computed everywhere, each on its own slice of SLICE channels, so there is no
    loop over images and nothing to wait for; the gates silence those that were not chosen.
    """

    def __init__(self, width: int, experts: int, top_k: int):
        super().__init__()
        self.router = Router(width, experts, top_k)
        self.spread = nn.Conv2d(width, experts * SLICE, 1, bias=False)
        blurred = [name for name in EXPERTS[:experts] if name in BLURRED]
        kinds = [ALONE[name]() for name in EXPERTS[:experts] if name in ALONE]
        self.sizes = [SLICE] * len(kinds) + [SLICE * len(blurred)] * bool(blurred)
        self.experts = nn.ModuleList([*kinds, *([_Blurred(blurred)] if blurred else [])])
        self.norm = Norm(experts, experts * SLICE)  # each expert of each image by itself
        self.merge = nn.Conv2d(experts * SLICE, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map x (B, width, h, w) to the same shape; and what Router returns."""
        side = _side(x)
        gates, probability = self.router(x, side)
        slices = self.spread(x).split(self.sizes, 1)  # (B, SLICE, h, w) for each expert
        views = [expert(part) for expert, part in zip(self.experts, slices, strict=True)]
        seen = F.gelu(self.norm(torch.cat(views, 1))).unflatten(1, (-1, SLICE))
        weight = _enlarge(gates.to(seen.dtype), side, x.shape[2:]) * self.router.top_k
        return x + self.merge((seen * weight[:, :, None]).flatten(1, 2)), gates, probability


# The seven experts: each maps (B, SLICE, h, w) to the same shape.


class _Texture(nn.Module):
    """Fine and coarse pattern: convolutions of neighbours and of places three apart."""

    def __init__(self) -> None:
        super().__init__()
        half = SLICE // 2
        self.fine = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.coarse = nn.Conv2d(half, half, 3, padding=3, dilation=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        near, far = x.chunk(2, 1)
        return torch.cat([self.fine(near), self.coarse(far)], 1)


class _Attention(nn.Module):
    """Each place sees the whole image, by attention of linear cost (Shen et al., WACV 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(SLICE, 3 * SLICE, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x).float().flatten(2).chunk(3, 1)  # (B, SLICE, h * w) each
        with torch.autocast(x.device.type, enabled=False):
            # Averages of averages of the values: bounded, so a large image or float16 is safe.
            summary = value @ key.softmax(2).mT  # (B, SLICE, SLICE)
            return (summary @ query.softmax(1)).view_as(x).to(x.dtype)


class _Hybrid(nn.Module):
    """Local pattern, let through by what the whole image looks like."""

    def __init__(self) -> None:
        super().__init__()
        self.local = nn.Conv2d(SLICE, SLICE, 5, padding=2, groups=SLICE, bias=False)
        self.whole = nn.Conv2d(SLICE, SLICE, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.local(x) * self.whole(x.mean((2, 3), keepdim=True)).sigmoid()


class _Blurred(nn.Module):
    """The experts of BLURRED, n of them: a map beside itself, blurred ever wider, in one pyramid.

    Maps (B, n * SLICE, h, w) to the same.
    """

    shares: Tensor

    def __init__(self, names: Sequence[str]):
        super().__init__()
        shares = torch.cat([torch.tensor(BLURRED[name]) for name in names], 1)  # (4, 4 * n)
        shares = shares.float().repeat_interleave(SLICE // 4, 1)[:, :, None, None]
        self.register_buffer("shares", shares, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        sharp, *shares = self.shares.to(x.dtype)
        seen = x * sharp
        for size, share in zip((3, 5, 9), shares, strict=True):
            x = F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)
            seen = torch.addcmul(seen, x, share)
        return seen


class _Edge(nn.Module):
    """Outlines: the size of the gradient for half the channels, of the curvature for the rest."""

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        bend = torch.tensor([[1.0, -2.0, 1.0], [2.0, -4.0, 2.0], [1.0, -2.0, 1.0]]) / 8
        kernels = torch.stack([sobel, sobel.T] * (SLICE // 2) + [bend, bend.T] * (SLICE // 2))
        self.register_buffer("kernels", kernels[:, None], persistent=False)  # (32, 1, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x.float(), (1, 1, 1, 1), mode="replicate")  # a border is no edge
        with torch.autocast(x.device.type, enabled=False):  # squares overflow float16
            along = F.conv2d(padded, self.kernels, groups=SLICE).unflatten(1, (SLICE, 2))
            return (along.square().sum(2) + 1e-4).sqrt().to(x.dtype)  # finite gradient where flat


class _Context(nn.Module):
    """The scene around: what cells and their neighbours hold on average, laid over the image."""

    def __init__(self) -> None:
        super().__init__()
        self.around = nn.Conv2d(SLICE, SLICE, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        side = _side(x)
        return _enlarge(self.around(_pool(x, side)), side, x.shape[2:])


ALONE: dict[str, Callable[[], nn.Module]] = {
    "texture": _Texture,
    "attention": _Attention,
    "hybrid": _Hybrid,
    "edge": _Edge,
    "context": _Context,
}
# For each fourth of an expert's channels, what counts: the map as it is (first row), and blurred
# over about 3, 7 and 15 places.
BLURRED = {
    # four bands, from fine detail to what is left when it is gone
    "frequency": ((1, 0, 0, 0), (-1, 1, 0, 0), (0, -1, 1, 0), (0, 0, -1, 1)),
    # what differs from its surroundings: places and neighbourhoods less wider ones
    "contrast": ((1, 1, 0, 0), (0, 0, 1, 1), (-1, 0, 0, 0), (0, -1, -1, -1)),
}


def _side(x: Tensor) -> int:
    """Return how many places a cell has on each side."""
    return -(-max(x.shape[2:]) // CELLS)


def _pool(x: Tensor, side: int) -> Tensor:
    """Return the mean of each cell; the last row and column may hold fewer places."""
    return F.avg_pool2d(x, side, side, ceil_mode=True, count_include_pad=False)


def _enlarge(cells: Tensor, side: int, size: torch.Size) -> Tensor:
    """Lay the values of cells over a map of `size`, each cell's over its own places."""
    large = F.interpolate(cells, scale_factor=float(side), mode="bilinear", align_corners=False)
    return large[..., : size[0], : size[1]]
