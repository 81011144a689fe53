"""Layers that the decoder is made of, held to numbers that were worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from camoxpert_nb.network.layers import Norm, conv, resize


def test_enlarging_keeps_pixels_where_their_areas_are() -> None:
    # Centres of four cells on two: at 1/4, 3/4 (of the first), 1/4, 3/4 (of the second).
    wide = resize(torch.tensor([[[[0.0, 1.0]]]]), torch.Size((1, 4)))
    torch.testing.assert_close(wide, torch.tensor([[[[0.0, 0.25, 0.75, 1.0]]]]))


def test_the_norm_is_of_each_image_by_itself() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16, 3, 3) * 5 + 7
    found = Norm(8, 16)(x)
    groups = found.view(2, 8, -1)  # two channels each
    torch.testing.assert_close(groups.mean(2), torch.zeros(2, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(groups.var(2, unbiased=False), torch.ones(2, 8), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:1], Norm(8, 16)(x[:1]))


def test_the_norm_keeps_half_precision() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Norm(8, 16)(torch.ones(1, 16, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_nothing_within_the_norm_is_left_to_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's would take it to float32; a CPU's leaves it alone."""
    asked = []

    def normed(x: torch.Tensor, *how: object) -> torch.Tensor:
        asked.append(torch.is_autocast_enabled("cpu"))
        return x

    monkeypatch.setattr(torch.nn.functional, "group_norm", normed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Norm(8, 16)(torch.ones(1, 16, 2, 2))
        assert torch.is_autocast_enabled("cpu")
    assert asked == [False]


def test_a_convolution_keeps_the_size_and_has_no_bias_before_its_norm() -> None:
    layer = conv(3, 16, 3)
    assert layer(torch.zeros(2, 3, 5, 7)).shape == (2, 16, 5, 7)
    assert layer[0].bias is None and layer[0].stride == (1, 1)


def test_a_convolutions_norm_has_eight_groups() -> None:
    norm = conv(3, 16, 3)[1]
    assert isinstance(norm, Norm) and (norm.num_groups, norm.num_channels) == (8, 16)
    norm.weight.data.fill_(3)
    norm.bias.data.fill_(-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # which would take it to float32
        found = norm(torch.randn(2, 16, 4, 4))
    assert found.mean().item() == pytest.approx(-1, abs=1e-3)
    assert found.std(unbiased=False).item() == pytest.approx(3, abs=0.05)


def test_a_convolution_of_one_place_and_of_three_by_three() -> None:
    for size in (1, 3, 5):
        layer = conv(3, 16, size)[0]
        assert layer.weight.shape == (16, 3, size, size)
        nn.init.ones_(layer.weight)
        spot = torch.zeros(1, 3, 7, 9)
        spot[0, 0, 3, 4] = 1
        places = layer(spot)[0, 0].nonzero().tolist()
        reach = size // 2
        assert len(places) == size * size
        assert (places[0], places[-1]) == ([3 - reach, 4 - reach], [3 + reach, 4 + reach])


def test_the_norm_takes_a_group_by_its_spread_and_a_channel_by_its_weight() -> None:
    """One group of two channels: 1, 3 and 5, 7 have the mean 4 and the variance 5."""
    norm = Norm(1, 2, eps=4.0)
    norm.weight.data, norm.bias.data = torch.tensor([3.0, 6.0]), torch.tensor([10.0, 20.0])
    x = torch.tensor([1.0, 3.0, 5.0, 7.0]).view(1, 2, 1, 2)
    found = norm(x).flatten().tolist()  # the root of 5 + 4 is 3
    assert found == pytest.approx([10 - 3, 10 - 1, 20 + 2, 20 + 6])
