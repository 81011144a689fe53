"""The experts and their mixture against numbers that were worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camoxpert_nb.network.mixture import (
    ALONE,
    BLURRED,
    SLICE,
    Mixture,
    Router,
    _Blurred,
    _pool,
    _side,
)


def point(value: float = 1.0, size: int = 15) -> Tensor:
    """A map that is 0 but for its middle."""
    x = torch.zeros(1, SLICE, size, size)
    x[..., size // 2, size // 2] = value
    return x


def only(weight: Tensor, row: int, column: int) -> None:
    """Let a convolution copy each channel from one place of its window."""
    nn.init.zeros_(weight)
    for channel in range(len(weight)):
        weight.data[channel, channel % weight.shape[1], row, column] = 1


def where(x: Tensor) -> list[tuple[int, int]]:
    """Return for each channel the one place that is not 0, from the middle."""
    found = []
    for channel in x[0]:
        ((row, column),) = channel.nonzero().tolist()
        found.append((row - x.shape[-2] // 2, column - x.shape[-1] // 2))
    return found


def test_texture_looks_one_place_away_and_three() -> None:
    texture = ALONE["texture"]()
    only(texture.fine.weight, 0, 2)  # type: ignore[arg-type, union-attr]
    only(texture.coarse.weight, 0, 2)  # type: ignore[arg-type, union-attr]
    half = SLICE // 2
    assert where(texture(point())) == [(1, -1)] * half + [(3, -3)] * half
    numbered = point() * torch.arange(1.0, SLICE + 1).view(1, -1, 1, 1)
    assert texture(numbered).amax((0, 2, 3)).tolist() == list(range(1, SLICE + 1))


def test_attention_averages_values_by_what_all_places_hold() -> None:
    torch.manual_seed(0)
    attention, x = ALONE["attention"](), torch.randn(2, SLICE, 3, 4)
    weight = attention.project.weight[:, :, 0, 0]  # type: ignore[union-attr, index]
    places = x.flatten(2)  # (B, SLICE, 12)
    query, key, value = (part @ places for part in weight.split(SLICE))
    expected = torch.zeros_like(places)
    for image in range(2):
        of_places = [torch.exp(k) / torch.exp(k).sum() for k in key[image]]  # of each key, 1
        summaries = [torch.stack([(share * v).sum() for v in value[image]]) for share in of_places]
        for place in range(12):
            raw = torch.exp(query[image, :, place])
            chosen = raw / raw.sum()  # of each place, 1
            expected[image, :, place] = sum(
                share * summary for share, summary in zip(chosen, summaries, strict=True)
            )
    torch.testing.assert_close(attention(x).flatten(2), expected)


def test_hybrid_lets_through_what_the_whole_image_allows() -> None:
    hybrid, x = ALONE["hybrid"](), torch.rand(2, SLICE, 6, 5)
    only(hybrid.local.weight, 2, 2)  # type: ignore[arg-type, union-attr]
    only(hybrid.whole.weight, 0, 0)  # type: ignore[arg-type, union-attr]
    nn.init.constant_(hybrid.whole.bias, 0.5)  # type: ignore[arg-type, union-attr]
    gate = torch.sigmoid(x.mean((2, 3), keepdim=True) + 0.5)
    torch.testing.assert_close(hybrid(x), x * gate)


def test_edge_is_the_size_of_slope_and_bend() -> None:
    """A plane that rises by 3 to the right and 4 downwards: slope 5, no bend."""
    rows, columns = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    slope, bend = ALONE["edge"]()((3 * columns + 4 * rows).expand(1, SLICE, 7, 7)).chunk(2, 1)
    small = 1e-4**0.5  # what keeps the gradient finite
    assert slope[..., 1:-1, 1:-1].flatten().tolist() == pytest.approx([5] * 200, abs=1e-4)
    assert bend[..., 1:-1, 1:-1].flatten().tolist() == pytest.approx([small] * 200, abs=1e-4)
    # kernel and its transpose, 4 / 8 in the middle each: the root of two halves squared
    _, bend = ALONE["edge"]()(point()).chunk(2, 1)
    assert bend[0, 0, 7, 7].item() == pytest.approx(0.5**0.5, abs=1e-3)


def test_context_is_the_mean_of_cells() -> None:
    context = ALONE["context"]()
    only(context.around.weight, 1, 1)  # type: ignore[arg-type, union-attr]
    x = torch.rand(1, SLICE, 24, 24)  # cells of 3 x 3
    cells = x.view(1, SLICE, 8, 3, 8, 3).mean((3, 5))
    torch.testing.assert_close(context(x)[..., 1::3, 1::3], cells)  # at their middles


def test_blurred_channels_are_the_bands_of_one_pyramid() -> None:
    """Each blur is of the one before, a mean of the places that are there."""
    x = torch.rand(1, SLICE, 12, 10)
    pyramid = [x]
    for size in (3, 5, 9):
        summed = F.conv2d(
            pyramid[-1], torch.ones(SLICE, 1, size, size), padding=size // 2, groups=SLICE
        )
        there = F.conv2d(torch.ones(1, 1, 12, 10), torch.ones(1, 1, size, size), padding=size // 2)
        pyramid.append(summed / there)
    for name, shares in BLURRED.items():
        found = _Blurred([name])(x)
        for fourth in range(4):
            channels = slice(fourth * SLICE // 4, (fourth + 1) * SLICE // 4)
            expected = sum(
                shares[level][fourth] * pyramid[level][:, channels] for level in range(4)
            )
            torch.testing.assert_close(found[:, channels], expected)


def test_a_router_sees_means_and_mean_sizes_of_cells() -> None:
    """A checkerboard of plus and minus two has the mean 0 and the mean size 2."""
    router = Router(16, 4, 4)
    x = 2.0 * (1 - 2 * (torch.arange(16)[:, None] + torch.arange(16)[None, :]).remainder(2))
    seen: list[Tensor] = []
    router.hidden.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    router(x.expand(1, 16, 16, 16), 2)
    assert seen[0].shape == (1, 32, 8, 8)
    assert seen[0][:, :16].abs().max() == 0 and (seen[0][:, 16:] == 2).all()


@pytest.mark.parametrize(
    ("size", "side"), [((8, 8), 1), ((9, 3), 2), ((3, 9), 2), ((16, 16), 2), ((44, 30), 6)]
)
def test_a_map_has_at_most_eight_cells_along_its_longer_side(
    size: tuple[int, int], side: int
) -> None:
    x = torch.ones(1, 1, *size)
    assert _side(x) == side
    cells = _pool(x, side)
    assert cells.shape[2:] == tuple(-(-length // side) for length in size)
    assert (cells == 1).all()  # the last ones too, which hold fewer places


@pytest.mark.parametrize(("top_k", "chosen"), [(7, 7), (3, 3)])
def test_a_mixture_adds_experts_by_their_gates_times_their_number(top_k: int, chosen: int) -> None:
    """An even router, and experts that leave their slice as it is."""
    torch.manual_seed(0)
    mixture, x = Mixture(32, 7, top_k), torch.randn(2, 32, 16, 12)
    nn.init.zeros_(mixture.router.choice.weight)
    nn.init.zeros_(mixture.router.choice.bias)  # type: ignore[arg-type]
    mixture.experts = nn.ModuleList(nn.Identity() for _ in mixture.experts)
    y, gates, probability = mixture(x)
    assert (probability - 1 / 7).abs().max() < 1e-6
    assert ((gates > 0).sum(1) == chosen).all()
    torch.testing.assert_close(gates.sum(1), torch.ones(2, 8, 6))
    views = mixture.spread(x).view(2, 7, -1)  # each expert of each image by itself
    mean, spread = views.mean(2), views.var(2, unbiased=False)
    normal = (views - mean[..., None]) / (spread[..., None] + 1e-5).sqrt()
    on = (gates > 0).float().amax((2, 3))[..., None]  # an even choice is the same in all cells
    seen = F.gelu(normal) * on * (top_k / chosen)
    expected = x + mixture.merge(seen.reshape(2, 7 * SLICE, 16, 12))
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_probabilities_that_balance_sees_are_those_before_the_choice() -> None:
    router = Router(16, 5, 2)
    gates, probability = router(torch.randn(1, 16, 8, 8), 1)
    assert (probability > 0).all() and ((gates > 0).sum(1) == 2).all()
    torch.testing.assert_close(probability.sum(1), torch.ones(1, 8, 8))
