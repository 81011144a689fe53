"""EdgeNeXt's positions: kept, and the same as timm's."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from camoxpert_nb.network.backbone import KeptPositions, build_backbone, keep_positions

NAME = "edgenext_xx_small"


@pytest.fixture
def twins() -> tuple[nn.Module, nn.Module]:
    """timm's own network, and the same with kept positions."""
    torch.manual_seed(0)
    own = timm.create_model(NAME, features_only=True).train()
    return own, keep_positions(copy.deepcopy(own))


def positions(net: nn.Module) -> list[KeptPositions]:
    return [module for module in net.modules() if isinstance(module, KeptPositions)]


def gradients(net: nn.Module, image: Tensor) -> list[Tensor]:
    net.zero_grad()
    torch.manual_seed(1)  # of drop path
    sum(level.square().mean() for level in net(image)).backward()
    return [p.grad for p in net.parameters() if p.grad is not None]


def test_outputs_and_gradients_are_timms(twins: tuple[nn.Module, nn.Module]) -> None:
    own, kept = twins
    assert positions(kept) and not positions(own)
    assert own.state_dict().keys() == kept.state_dict().keys()
    for shape in ((2, 3, 64, 96), (3, 3, 64, 64), (2, 3, 64, 96)):
        image = torch.rand(shape)
        pairs = zip(gradients(own, image), gradients(kept, image), strict=True)
        for expected, found in pairs:
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_positions_are_made_once_for_a_size(
    twins: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, net = twins
    made = []
    monkeypatch.setattr(KeptPositions, "_waves", _counted(made))
    for count in (1, 4, 2):
        net(torch.rand(count, 3, 64, 64))
    assert len(made) == len(positions(net))


def _counted(made: list[tuple[int, ...]]) -> object:
    whole = KeptPositions._waves

    def counted(self: KeptPositions, shape: tuple[int, int, int]) -> Tensor:
        made.append(shape)
        return whole(self, shape)

    return counted


def test_a_network_trains_after_it_was_only_looked_at() -> None:
    """What is made in a validation, in inference mode and half precision, serves a training."""
    net, _ = build_backbone(NAME, "", pretrained=False)
    image = torch.rand(2, 3, 64, 64)
    for module in positions(net):
        module.kept.clear()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        net.eval()(image)
    for module in positions(net):
        assert all(value.dtype == torch.float32 for value in module.kept.values())
    assert gradients(net.train(), image)
