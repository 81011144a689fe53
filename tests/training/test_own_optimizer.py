"""An optimiser of the user's own: which work, and what is said of those that do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from own_parts import WRONG_OPTIMIZERS, sgd

from camoxpert_nb.errors import InputError
from camoxpert_nb.network.build import build_net
from camoxpert_nb.settings.config import make_config
from camoxpert_nb.training.own_optimizer import build_optimizer
from camoxpert_nb.training.state import backbone_blocks, parameter_groups


@pytest.fixture(scope="module")
def groups() -> list[dict[str, Any]]:
    net = build_net(make_config("tiny"))
    return parameter_groups(net, backbone_blocks(net), 1e-4)


@pytest.mark.parametrize("name", WRONG_OPTIMIZERS)
def test_a_wrong_one_is_told_what_to_change(name: str, groups: list[dict[str, Any]]) -> None:
    function, expected = WRONG_OPTIMIZERS[name]
    with pytest.raises(InputError, match=expected):
        build_optimizer(function, groups, 2e-3, 1e-4)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam"])
def test_torchs_own_work(name: str, groups: list[dict[str, Any]]) -> None:
    before = [p.detach().clone() for group in groups for p in group["params"]]
    optimizer = build_optimizer(getattr(torch.optim, name), groups, 2e-3, 1e-4)
    assert {group["lr"] for group in optimizer.param_groups} == {2e-3}
    assert all(map(torch.equal, before, (p for group in groups for p in group["params"])))


def test_groups_may_be_divided_further(groups: list[dict[str, Any]]) -> None:
    def each(groups: list[dict[str, Any]]) -> Any:
        return sgd([{**group, "params": [p]} for group in groups for p in group["params"]])

    optimizer = build_optimizer(each, groups, 2e-3, 1e-4)
    assert len(optimizer.param_groups) == sum(len(group["params"]) for group in groups)
