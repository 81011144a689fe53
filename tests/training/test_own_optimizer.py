"""An optimiser of the user's own: which work, and what is said of those that do not."""

from __future__ import annotations

import re
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


# --- whole sentences; F stands for what was given


KEPT = (
    "rates of head and backbone go by group. Hand the groups over as they are, "
    '`torch.optim.SGD(groups)`; divided further, each keeps its "block".'
)
TOLD = {
    "own parameters": f"optimizer F holds 0 of 20 parameters it was given: {KEPT}",
    "some": f"optimizer F holds 2 of 20 parameters it was given: {KEPT}",
    "flattened": f"optimizer F does not keep the groups it was given: {KEPT}",
    "rate": "optimizer F was made with lr=0.5, which has no effect: the schedule sets it for each "
    "group (0.002). Leave it out there, and set it with the settings: make_config(..., lr=0.5).",
    "decay": "optimizer F was made with weight_decay=0.3, which has no effect: the schedule sets "
    "it for each group (0.0001). Leave it out there, and set it with the settings: "
    "make_config(..., weight_decay=0.3).",
    "nothing": "optimizer F returned NoneType, expected a torch.optim.Optimizer: "
    "`return torch.optim.SGD(groups, momentum=0.9)`.",
    "still": "optimizer Still changes no parameter in a step, so nothing is learned.",
    "unsaved": "what optimizer Hoarder remembers cannot be saved and loaded (it holds other things "
    "than tensors and plain values), so the run could not go on after a stop. Keep it in "
    "`optimizer.state` as tensors and numbers, as torch's own do.",
    "raises": "optimizer Boom failed: ValueError: no more (F). It was tried before the first step, "
    "with made-up parameters, some without a gradient as frozen ones are. Mend it and start again.",
    "closure": "optimizer Closed needs the loss computed anew within its step (a closure), as "
    "LBFGS and SAM do, which this training does not offer. Take one that steps by the gradients, "
    "as torch.optim.SGD or AdamW.",
}


@pytest.mark.parametrize("name", TOLD)
def test_a_wrong_one_is_answered_whole(name: str, groups: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError) as caught:
        build_optimizer(WRONG_OPTIMIZERS[name][0], groups, 2e-3, 1e-4)
    said = re.sub(r"<lambda in line \d+ of \w+.py>|line \d+ of \w+.py", "F", str(caught.value))
    assert said == TOLD[name]


def test_values_that_are_those_of_the_settings_may_be_given(groups: list[dict[str, Any]]) -> None:
    def made(parts: list[dict[str, Any]]) -> Any:
        return torch.optim.SGD(parts, lr=2e-3, weight_decay=1e-4)

    assert build_optimizer(made, groups, 2e-3, 1e-4).defaults["lr"] == 2e-3


class Noted(torch.optim.SGD):
    """Remembers how each one was made, and of each step which groups had gradients."""

    made: list[Noted] = []  # noqa: RUF012

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.given = [dict(group) for group in groups]
        self.steps: list[tuple[list[bool], list[Any]]] = []
        super().__init__(groups, momentum=0.9)
        Noted.made.append(self)

    def step(self, closure: Any = None) -> None:
        learn = [all(p.grad is not None for p in each["params"]) for each in self.param_groups]
        self.steps.append((learn, [each["lr"] for each in self.param_groups]))
        super().step()


def test_it_is_tried_on_copies_and_taken_up_again(groups: list[dict[str, Any]]) -> None:
    """Two parameters of each group, the last group frozen; the second one goes on as the first."""
    Noted.made = []
    found = build_optimizer(Noted, groups, 2e-3, 1e-4)
    one, again, last = Noted.made
    assert found is last and last.steps == []
    assert [len(each["params"]) for each in one.given] == [2] * len(groups)
    assert [each["block"] for each in one.given] == [each["block"] for each in groups]
    assert {each["lr"] for made in Noted.made for each in made.given} == {2e-3}
    step = ([True] * (len(groups) - 1) + [False], [2e-3] * len(groups))
    assert one.steps == [step, step] and again.steps == [step]
    for mine, its in zip(one.param_groups, again.param_groups, strict=True):
        for a, b in zip(mine["params"], its["params"], strict=True):
            assert torch.equal(a, b) and a is not b  # as a run that is resumed
    real = {id(p) for each in groups for p in each["params"]}
    assert {id(p) for each in one.param_groups for p in each["params"]}.isdisjoint(real)
    assert {id(p) for each in found.param_groups for p in each["params"]} == real
    assert "lr" not in groups[0]


def test_one_group_alone_learns(groups: list[dict[str, Any]]) -> None:
    Noted.made = []
    build_optimizer(Noted, groups[-1:], 2e-3, 1e-4)
    assert Noted.made[0].steps[0][0] == [True]


class Odd(torch.optim.SGD):
    """Cannot take up what it remembers."""

    def load_state_dict(self, state: Any) -> None:
        raise ValueError("no momentum\nmore")


def test_what_cannot_be_taken_up_is_told_with_its_reason(groups: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError) as caught:
        build_optimizer(Odd, groups, 2e-3, 1e-4)
    assert str(caught.value).startswith(
        "what optimizer Odd remembers cannot be saved and loaded (no momentum), so the run"
    )
