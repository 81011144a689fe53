from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import make_config
from camoxpert_nb.training.schedule import (
    Plan,
    build_plan,
    effective_batches,
    lr_factors,
    lr_warnings,
    plan_stages,
    settle_lr_batches,
)
from camoxpert_nb.training.state import parameter_groups, set_learning_rates, set_open_blocks


def make_plan(**changes: Any) -> Plan:
    stages = {
        "epochs": 140,
        "stage1_epochs": 30,
        "progressive": True,
        "lr": 6.5e-4,
        "stage2_lr": 1.5e-4,
        "batch": 16,
        "stage2_batch": 12,
        "accumulation": 1,
        "devices": 2,
        "images": 2736,
    }
    shape = {
        "backbone_factor": 0.1,
        "scheduler": "cosine",
        "min_lr": 1e-5,
        "warmup_epochs": 10,
        "t_mult": 2,
    }
    own = {key: changes.pop(key) for key in list(changes) if key in shape}
    return Plan(plan_stages(**(stages | changes)), **(shape | own))


def test_the_guides_schedule_opens_blocks_in_thirds_of_stage_two() -> None:
    plan = make_plan()
    table = [(s.first_epoch, s.epochs, s.open_blocks, s.part) for s in plan.stages]
    assert table == [(0, 30, 0, 1), (30, 36, 1, 2), (66, 37, 2, 2), (103, 37, 4, 2)]
    assert plan.epochs == 140
    assert plan.steps == 30 * (2736 // 32) + 110 * (2736 // 24)


@pytest.mark.parametrize(("epochs", "first"), list(itertools.product((1, 2, 3, 7), (0, 1))))
def test_every_promised_epoch_is_in_the_plan(epochs: int, first: int) -> None:
    for progressive in (True, False):
        plan = make_plan(epochs=epochs, stage1_epochs=first, progressive=progressive)
        epoch_of_step = [plan.at(step).epoch for step in range(plan.steps)]
        assert sorted(set(epoch_of_step)) == list(range(epochs))
        assert epoch_of_step == sorted(epoch_of_step)
        if epochs > first:
            assert plan.stages[-1].open_blocks == 4


def test_a_place_leads_back_to_its_step() -> None:
    plan = make_plan(epochs=6, stage1_epochs=2)
    for step in range(plan.steps):
        place = plan.at(step)
        per_step = place.stage.batch * 2
        assert plan.step_of(place.epoch, place.step_in_epoch * per_step, per_step) == step
    assert plan.step_of(plan.epochs, 0, 24) == plan.steps


def test_half_the_devices_keep_epoch_and_images() -> None:
    two, one = make_plan(), make_plan(devices=1)
    step = one.step_of(50, 24 * 10, 12)
    assert one.at(step).epoch == two.at(two.step_of(50, 240, 24)).epoch == 50
    assert one.at(step).step_in_epoch == 20


@pytest.mark.parametrize("scheduler", ["cosine", "onecycle", "cosine_restart", "none"])
def test_no_group_ever_rises_above_its_base_or_falls_below_its_share_of_the_minimum(
    scheduler: str,
) -> None:
    plan = make_plan(scheduler=scheduler)
    for step in range(0, plan.steps, 7):
        stage = plan.at(step).stage
        head = plan.lr(step, None)
        assert 0 < head <= stage.lr * (1 + 1e-12)
        for block in (1, 2, 3, 4):
            rate = plan.lr(step, block)
            assert (rate == 0) == (block > stage.open_blocks)
            assert rate <= 0.1 * head * (1 + 1e-12)


def test_cosine_falls_from_the_base_rate_to_the_minimum_in_each_part() -> None:
    plan = make_plan()
    for part, base in ((1, 6.5e-4), (2, 1.5e-4)):
        stages = [s for s in plan.stages if s.part == part]
        rates = [plan.lr(s, None) for s in range(stages[0].first_step, stages[-1].last_step)]
        assert max(rates) == pytest.approx(base, rel=1e-3)
        assert rates[-1] == pytest.approx(1e-5, rel=1e-2)
        top = rates.index(max(rates))
        assert all(a >= b for a, b in itertools.pairwise(rates[top:]))
        assert all(a <= b for a, b in itertools.pairwise(rates[: top + 1]))
    # Unfreezing and resuming change nothing: the rate is a function of the step alone.
    assert plan.lr(plan.stages[2].first_step, None) < plan.lr(plan.stages[1].last_step - 1, None)


def test_warm_up_takes_ten_epochs_of_stage_two() -> None:
    plan = make_plan()
    stage = plan.stages[1]
    end = stage.first_step + 10 * stage.steps
    assert plan.lr(stage.first_step, None) < 1.5e-6
    assert plan.lr(end, None) == pytest.approx(1.5e-4, rel=1e-3)
    assert plan.lr(end - 1, None) < plan.lr(end, None)


def test_a_block_that_opens_rises_over_one_epoch() -> None:
    plan = make_plan()
    stage = plan.stages[3]
    first, settled = stage.first_step, stage.first_step + stage.steps
    assert plan.lr(first, 4) < 0.02 * plan.lr(first, 1)
    assert plan.lr(settled, 4) == plan.lr(settled, 1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)) for _ in range(4)
        )
        self.head = nn.Conv2d(2, 1, 1)

    def blocks(self) -> list[list[nn.Module]]:
        return [[part] for part in self.body]


def test_groups_hold_each_parameter_once_and_norms_do_not_decay() -> None:
    net = Net()
    groups = parameter_groups(net, net.blocks(), 0.1)
    listed = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert sorted(map(id, listed)) == sorted(map(id, net.parameters()))
    for group in groups:
        for parameter in group["params"]:  # type: ignore[attr-defined]
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
    deepest = next(g for g in groups if g["block"] == 1)["params"]
    assert deepest[0] is net.body[3][0].weight  # type: ignore[index]
    assert {group["block"] for group in groups} == {None, 1, 2, 3, 4}


def test_frozen_blocks_stand_still_statistics_included() -> None:
    net, plan = Net(), make_plan(epochs=3, stage1_epochs=1, images=48)
    optimizer = torch.optim.AdamW(parameter_groups(net, net.blocks(), 0.1), lr=1.0)
    step = plan.stages[0].first_step
    set_open_blocks(net, net.blocks(), 1, keep_statistics=False)
    set_learning_rates(optimizer, plan, step)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(4, 2, 3, 3)
    for part in net.body:
        x = part(x)
    net.head(x).square().mean().backward()
    optimizer.step()
    moved = {
        name for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    }
    assert {name.split(".")[0] for name in moved} == {"head", "body"}
    assert {name.split(".")[1] for name in moved if name.startswith("body")} == {"3"}
    assert "body.3.1.running_mean" in moved  # open blocks do learn their statistics


def test_a_pretrained_backbone_keeps_its_statistics_and_still_learns() -> None:
    net = Net()
    set_open_blocks(net, net.blocks(), 4, keep_statistics=True)
    before = {name: value.clone() for name, value in net.named_buffers()}
    x = torch.randn(4, 2, 3, 3)
    for part in net.body:
        x = part(x)
    net.head(x).square().mean().backward()
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert net.body[0].training


BALANCED = make_config("balanced-2gpu")


def test_a_preset_on_the_gpus_it_is_meant_for_says_nothing() -> None:
    assert effective_batches(BALANCED, 2) == (32, 24)
    assert lr_warnings(BALANCED, 2) == []


def test_on_one_gpu_the_scaled_rate_is_named() -> None:
    assert lr_factors(BALANCED, 1) == (0.5, 0.5)
    first, second = lr_warnings(BALANCED, 1)
    assert "--lr 0.00065 is meant for a batch of 32, this run has 16" in first
    assert "in proportion 0.000325" in first
    assert "--scale-lr" in first
    assert "--stage2-lr 0.00015 is meant for a batch of 24, this run has 12" in second


def test_accumulation_makes_up_for_a_missing_gpu() -> None:
    assert lr_warnings(BALANCED.replace(accumulation_steps=2), 1) == []


def test_scale_lr_scales_the_whole_schedule() -> None:
    plain, scaled = (build_plan(BALANCED.replace(scale_lr=x), 4040, 1) for x in (False, True))
    for step in range(0, plain.steps, 997):
        assert scaled.lr(step, None) == pytest.approx(plain.lr(step, None) / 2)
        assert scaled.lr(step, 1) == pytest.approx(plain.lr(step, 1) / 2)
    assert "is scaled to" in lr_warnings(BALANCED.replace(scale_lr=True), 1)[0]


def test_a_rate_that_was_given_is_meant_for_the_batch_at_hand() -> None:
    assert lr_warnings(make_config("balanced-2gpu", lr=1e-3, stage2_lr=1e-4), 1) == []


def test_a_run_remembers_what_its_rates_are_meant_for() -> None:
    begun = settle_lr_batches(make_config("demo"), 1)
    assert (begun.lr_batch, begun.stage2_lr_batch) == (16, 16)
    assert settle_lr_batches(begun, 2) == begun
    assert lr_factors(begun, 2) == (2.0, 2.0)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(InputError, match="at most 5"):
        build_plan(BALANCED, 10, 2)
