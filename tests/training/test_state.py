"""What a training remembers: its average by hand, and a checkpoint that brings all of it back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from equal_runs import same
from torch import Tensor, nn
from training.test_train import make_batch

from camoxpert_nb.network.backbone import Start
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.prepare import prepare, step_settings
from camoxpert_nb.training.schedule import Origin
from camoxpert_nb.training.state import TrainState, backbone_blocks
from camoxpert_nb.training.train import train_step

WEIGHTS = {"deep": 1.0, "balance": 0.1, "uncertainty": 0.0}


@pytest.fixture
def state(tiny: Config) -> TrainState:
    """That of a network with batch norm."""
    found = prepare(tiny).state
    assert any(isinstance(module, nn.BatchNorm2d) for module in found.net.modules())
    return found


# --- the average: with decay d a value moves by 1 - d of its distance


def averaged(state: TrainState, *, counted: float, most: float, finite: bool = True) -> Any:
    """Return the average, which held 2, 3 and 4, after a step that left the weights at 1."""
    assert state.ema is not None
    state.ema.decay = most
    for new, old, number in (
        (state.net.parameters(), state.ema.module.parameters(), 2),
        (state.net.buffers(), state.ema.module.buffers(), 3),
    ):
        for value, average in zip(new, old, strict=True):
            value.data.fill_(1)
            average.data.fill_(number if average.is_floating_point() else 4)
    state.counted.fill_(counted)
    state.average(torch.tensor(finite))
    return state.ema.module


def values(tensors: Any) -> set[float]:
    return {round(number, 5) for each in tensors for number in each.flatten().tolist()}


@pytest.mark.parametrize(
    ("counted", "most", "decay"),
    [
        (1, 0.9, 0.0),  # the first step: 1 - (1 + 0 / 9) ** -1
        (4, 0.9, 0.25),  # 1 - (1 + 3 / 9) ** -1
        (10, 0.9, 0.5),  # 1 - (1 + 9 / 9) ** -1
        (10, 0.3, 0.3),  # never above the one of the settings
    ],
)
def test_the_average_moves_as_far_as_its_decay_leaves(
    state: TrainState, counted: float, most: float, decay: float
) -> None:
    average = averaged(state, counted=counted, most=most)
    assert values(average.parameters()) == {round(1 + decay, 5)}
    statistics = [each for each in average.buffers() if each.is_floating_point()]
    assert values(statistics) <= {round(1 + 2 * decay, 5), 3.0} and values(statistics) != {3.0}
    assert values(each for each in average.buffers() if not each.is_floating_point()) == {1}


def test_a_step_that_was_not_finite_leaves_the_average_alone(state: TrainState) -> None:
    assert state.ema is not None
    for value in state.net.buffers():
        value.fill_(1)
    average = averaged(state, counted=10, most=0.9, finite=False)
    assert values(average.parameters()) == {2}
    assert values(average.buffers()) == {3, 4}


def test_the_average_takes_the_weights_after_the_step(state: TrainState, tiny: Config) -> None:
    """Its first decay is 0: then it is the network itself."""
    state.open_blocks(4)
    before = [each.clone() for each in state.net.parameters()]
    train_step(state, [make_batch(4)], step_settings(tiny), WEIGHTS)
    assert state.ema is not None
    for old, new, average in zip(
        before, state.net.parameters(), state.ema.module.parameters(), strict=True
    ):
        torch.testing.assert_close(new, average)
        assert not torch.allclose(old, new, atol=1e-4) or not new.grad.any()


# --- the whole state


def test_a_checkpoint_brings_back_every_number(state: TrainState, tiny: Config) -> None:
    """Each has a value of its own, so that none can stand for another, or for a start."""
    state.open_blocks(4)
    for seed in range(2):
        train_step(state, [make_batch(4, seed)], step_settings(tiny), WEIGHTS)
    state.epoch, state.seen, state.step, state.averaged = 5, 44, 17, 13
    state.seconds, state.skipped_in_row = 12.5, 2
    state.best = {"epoch": 3, "iou": 0.4, "weights": "ema"}
    state.sums, state.origin = {"loss": 2.5, "steps": 2.0}, Origin(4.5, 0.3, 2, rising=True)
    state.start = Start(True, "file of mine")
    for number, parameter in enumerate(state.net.parameters()):
        parameter.data.fill_(number)
    saved = copy.deepcopy(state.state_dict())
    fresh = prepare(tiny).state
    fresh.load_state_dict(copy.deepcopy(saved))
    names = ("epoch", "seen", "step", "averaged", "seconds", "skipped_in_row")
    for name in (*names, "best", "sums", "origin", "start"):
        assert getattr(fresh, name) == getattr(state, name), name
    assert fresh.counted == 13  # steps that went into the average, as the device knows them
    for name in ("shares", "usage"):
        found, kept = getattr(fresh, name), getattr(state, name)
        assert torch.equal(found, kept), name
    assert not torch.allclose(state.shares, state.usage)  # type: ignore[arg-type]
    assert not all(torch.equal(saved["net"][key], value) for key, value in saved["ema"].items())
    assert same({**fresh.state_dict(), "own": {}}, {**saved, "own": {}})


def test_a_run_without_an_average_begins_one_from_its_weights(tiny: Config) -> None:
    plain, with_average = prepare(tiny.replace(use_ema=False)).state, prepare(tiny).state
    for parameter in plain.net.parameters():
        parameter.data.fill_(0.25)
    with_average.load_state_dict(plain.state_dict())
    assert with_average.ema is not None
    assert values(with_average.ema.module.parameters()) == {0.25}


def test_of_the_groups_a_checkpoint_brings_moments_and_no_settings(tiny: Config) -> None:
    """Rates and weight decay are those of the settings, and are saved as plain numbers."""
    training, other = prepare(tiny), prepare(tiny.replace(weight_decay=0.5))
    training.state.open_blocks(4)
    training.state.set_learning_rates(training.plan, 1.5)
    train_step(training.state, [make_batch(4)], step_settings(tiny), WEIGHTS)
    saved = training.state.state_dict()
    rates = [group["lr"] for group in saved["optimizer"]["param_groups"]]
    assert rates == training.state.rates and len({*rates}) > 1
    assert all(type(rate) is float for rate in rates)
    other.state.load_state_dict(saved)
    assert {group["weight_decay"] for group in other.state.optimizer.param_groups} == {0.0, 0.5}
    assert other.state.optimizer.state_dict()["state"]


# --- what trains


def modes(state: TrainState) -> list[tuple[bool, bool, bool]]:
    """Return of each block, from the deepest: has it gradients, trains it, trains its norms."""
    found = []
    for modules in backbone_blocks(state.net)[::-1]:
        norms = [n for m in modules for n in m.modules() if isinstance(n, nn.BatchNorm2d)]
        learns = {p.requires_grad for m in modules for p in m.parameters()}
        moves = {norm.training for norm in norms}
        trains = {m.training for m in modules if m not in norms}
        assert len(learns) == len(trains) == len(moves) == 1
        found.append((*learns, *trains, *moves))
    return found


@pytest.mark.parametrize("opened", [0, 1, 2, 4])
@pytest.mark.parametrize("pretrained", [False, True])
def test_open_blocks_learn_and_those_of_photos_keep_their_statistics(
    state: TrainState, opened: int, pretrained: bool
) -> None:
    state.start = Start(pretrained, "")
    state.open_blocks(opened)
    is_open = [block <= opened for block in (1, 2, 3, 4)]
    assert modes(state) == [(each, each, each and not pretrained) for each in is_open]
    assert state.net.levels.training and state.net.heads.training  # type: ignore[union-attr]
    assert state.opened == opened


def test_even_experts_are_what_the_usage_begins_with(state: TrainState) -> None:
    router = torch.rand(2, 7)
    usage = state.usage_like(router)
    assert usage.tolist() == [[pytest.approx(1 / 7)] * 7] * 2
    assert isinstance(state.shares, Tensor) and not state.shares.any()


def test_parts_double_in_the_stage_that_is_short_alone(state: TrainState) -> None:
    state.open_blocks(2)
    for wanted in (2, 4, 8):
        state.split_further()
        assert (state.parts_per_batch, state.parts) == (wanted, {2: wanted})
    state.open_blocks(4)
    assert state.parts_per_batch == 1
