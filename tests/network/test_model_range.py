"""Nothing the network computes comes near the end of half precision's range (losses are fp32)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from camoxpert_nb.network.model import CamoXpert

LARGEST = torch.finfo(torch.float16).max
ROOM = 32  # trained weights and odd photos may be so many times larger


class Watched(TorchDispatchMode):
    """The largest magnitude that any operation gave, and which one."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.operation = 0.0, ""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, Tensor) and one.is_floating_point() and one.numel():
                size = float(one.detach().abs().max())
                if not size <= self.largest:  # a NaN is larger than everything
                    self.largest, self.operation = size, str(function)
        return result


def watch(net: CamoXpert, size: int) -> Watched:
    random = torch.Generator().manual_seed(2)
    image = torch.rand(1, 3, size, size, generator=random).round()  # the hardest contrast there is
    with torch.no_grad(), Watched() as watched:
        net(image)
    return watched


@pytest.mark.parametrize("size", [320, 384, 512])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_activations_stay_far_below_the_range_of_fp16(backbone: str, size: int) -> None:
    torch.manual_seed(0)
    watched = watch(CamoXpert(backbone).train(), size)
    assert watched.largest < LARGEST / ROOM, watched.operation


def test_the_check_sees_what_is_too_large() -> None:
    torch.manual_seed(0)
    net = CamoXpert("test_resnet").train()
    with torch.no_grad():
        next(p for p in net.heads.parameters() if p.ndim == 4).mul_(1e5)
    assert watch(net, 320).largest > LARGEST / ROOM
