"""The experts and their mixture against numbers that were worked out by hand."""

from __future__ import annotations

import math

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


def test_a_router_is_two_layers_of_which_the_first_halves_the_width() -> None:
    """A cell that sees (1, -1) everywhere: hidden 1 - 1 + 1 + 1 = 2, then 3 gelu(2) and 0."""
    assert Router(32, 5, 2).hidden.weight.shape == (16, 64, 1, 1)
    router = Router(2, 2, 2)
    assert router.hidden.weight.shape == (1, 4, 1, 1)
    for layer, weight in ((router.hidden, [1, 1, 1, 1]), (router.choice, [3, 0])):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        layer.weight.data = torch.tensor(weight).float().view_as(layer.weight)
    _, probability = router(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4), 2)
    first = math.exp(3 * 2 * 0.9772499)  # gelu(2) is 2 times the normal distribution's share
    expected = torch.tensor([first / (first + 1), 1 / (first + 1)])
    torch.testing.assert_close(probability, expected.view(1, 2, 1, 1).expand(1, 2, 2, 2))


def test_of_three_experts_the_two_likeliest_share_the_whole() -> None:
    """Probabilities 1/2, 1/8 and 3/8: the gates are 4/7, 0 and 3/7."""
    router = Router(2, 3, 2)
    nn.init.zeros_(router.choice.weight)
    router.choice.bias.data = torch.tensor([0.5, 0.125, 0.375]).log()  # type: ignore[union-attr]
    gates, probability = router(torch.rand(2, 2, 3, 3), 3)
    assert probability.flatten().tolist() == pytest.approx([0.5, 0.125, 0.375] * 2)
    assert gates.flatten().tolist() == pytest.approx([4 / 7, 0, 3 / 7] * 2)


def test_what_needs_all_digits_is_computed_in_float32_under_autocast() -> None:
    """The router's probabilities, the sums of attention, and slopes, to the last bit."""
    torch.manual_seed(0)
    router, edge, attention = Router(16, 5, 2), ALONE["edge"](), ALONE["attention"]()
    attention.project.weight.data.sign_()  # type: ignore[operator, union-attr]
    x = torch.randint(-3, 4, (2, SLICE, 8, 8)).float()  # its projection has no digits to lose
    calls = [lambda: router(x / 7, 2)[1], lambda: edge(x / 7), lambda: attention(x)]
    exact = [call() for call in calls]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [call() for call in calls]
    assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True))


def test_experts_give_the_precision_they_were_given() -> None:
    x = torch.rand(1, SLICE, 9, 9).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for expert in (*(made() for made in ALONE.values()), _Blurred(["contrast"])):
            assert expert(x).dtype == torch.bfloat16


def test_edges_are_of_both_directions_and_no_border_is_one() -> None:
    """On either side of a step by 8 slope and bend are 8 (1 + 2 + 1) / 8, along it nothing.

    Where it is flat they are the root of what keeps the gradient finite.
    """
    step = torch.zeros(1, SLICE, 5, 6)
    step[..., 3:] = 8
    for x in (step, step.transpose(2, 3)):
        slope, bend = ALONE["edge"]()(x).chunk(2, 1)
        lines = [(each if x is step else each.transpose(2, 3))[0] for each in (slope, bend)]
        for line in torch.cat(lines).flatten(0, 1).tolist():
            assert line == pytest.approx([0.01, 0.01, 4, 4, 0.01, 0.01], abs=0.001)


def test_an_expert_of_many_channels_keeps_them_apart() -> None:
    """Edge, hybrid's local part and the pyramid: what one channel holds, no other sees."""
    alone = torch.zeros(1, SLICE, 9, 9)
    alone[:, 5, 4, 4] = 1
    hybrid = ALONE["hybrid"]()
    nn.init.ones_(hybrid.local.weight)  # type: ignore[arg-type, union-attr]
    seen = hybrid.local(alone)  # type: ignore[operator]
    assert seen[:, 5].sum() == 25 and seen.sum() == 25  # 5 x 5 places
    for expert in (ALONE["edge"](), _Blurred(["frequency"])):
        quiet = expert(torch.zeros_like(alone))
        changed = (expert(alone) != quiet).flatten(2).any(2)[0]
        assert changed.nonzero().flatten().tolist() == [5]


def test_a_context_is_of_its_cell_and_the_cells_beside_it() -> None:
    context = ALONE["context"]()
    nn.init.ones_(context.around.weight)  # type: ignore[arg-type, union-attr]
    assert context.around.bias is None  # type: ignore[union-attr]
    x = torch.zeros(1, SLICE, 24, 24)
    x[:, 0, 9:12, 12:15] = 1  # the cell in row 3, column 4
    seen = context(x)[0, 0, 1::3, 1::3]
    assert seen.nonzero().tolist() == [[r, c] for r in (2, 3, 4) for c in (3, 4, 5)]


def test_what_follows_from_nothing_else_is_no_weight() -> None:
    """Kernels and shares are made anew, so no checkpoint holds them."""
    assert {*ALONE["edge"]().state_dict(), *_Blurred(["contrast"]).state_dict()} == set()
    weights = Mixture(32, 7, 7).state_dict()
    assert not any(name.endswith(("kernels", "shares")) for name in weights)
    assert "spread.bias" not in weights and weights["spread.weight"].shape == (112, 32, 1, 1)
    assert weights["merge.weight"].shape == (32, 112, 1, 1) and "merge.bias" in weights
    of_experts = {name.split(".", 1)[1] for name in weights if name.startswith("experts")}
    assert of_experts == {
        *("0.fine.weight", "0.coarse.weight", "1.project.weight", "2.local.weight"),
        *("2.whole.weight", "2.whole.bias", "4.around.weight"),
    }


@pytest.mark.parametrize(
    ("experts", "sizes"),
    [
        (1, [16]),
        (5, [16] * 5),
        (6, [16] * 5 + [16]),
        (7, [16] * 5 + [32]),
    ],
)
def test_each_expert_has_a_slice_and_those_that_blur_a_common_one(
    experts: int, sizes: list[int]
) -> None:
    mixture = Mixture(32, experts, 2)
    assert mixture.sizes == sizes and len(mixture.experts) == len(sizes)
    seen: list[int] = []
    for expert in mixture.experts:
        expert.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    y, gates, _ = mixture(torch.randn(1, 32, 9, 20))
    assert seen == sizes and y.shape == (1, 32, 9, 20)
    assert gates.shape == (1, experts, 3, 7)  # cells of 3 x 3, as 20 places are cut in 8
    assert (mixture.norm.num_groups, mixture.norm.num_channels) == (experts, 16 * experts)
