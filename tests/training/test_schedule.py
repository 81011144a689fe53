from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import make_config
from camoxpert_nb.settings.decide import decide, effective_batches, lr_factors, lr_warnings
from camoxpert_nb.training.schedule import (
    Origin,
    Plan,
    Stage,
    build_plan,
    plan_stages,
)
from camoxpert_nb.training.state import parameter_groups, set_open_blocks


def make_plan(**changes: Any) -> Plan:
    stages: dict[str, Any] = {
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
    shape: dict[str, Any] = {
        "backbone_factor": 0.1,
        "scheduler": "cosine",
        "min_lr": 1e-5,
        "warmup_epochs": 10,
        "t_mult": 2,
    }
    own = {key: changes.pop(key) for key in list(changes) if key in shape}
    given, origin = stages | changes, changes.get("origin")
    images, devices = given["images"], given["devices"]
    return Plan(plan_stages(**given), images, devices, **(shape | own), origin=origin)


def rates(plan: Plan, part: int) -> list[float]:
    stages = [stage for stage in plan.stages if stage.part == part]
    return [plan.lr(time, None) for stage in stages for time in plan.times(stage)]


def test_the_guides_schedule_opens_blocks_in_thirds_of_stage_two() -> None:
    plan = make_plan()
    table = [(s.first_epoch, s.epochs, s.open_blocks, s.part) for s in plan.stages]
    assert table == [(0, 30, 0, 1), (30, 36, 1, 2), (66, 37, 2, 2), (103, 37, 4, 2)]
    assert plan.epochs == 140
    assert plan.steps_from(0) == 30 * (2736 // 32) + 110 * (2736 // 24)


@pytest.mark.parametrize(("epochs", "first"), list(itertools.product((1, 2, 3, 7), (0, 1))))
def test_every_promised_epoch_is_in_the_plan(epochs: int, first: int) -> None:
    for progressive in (True, False):
        plan = make_plan(epochs=epochs, stage1_epochs=first, progressive=progressive)
        trained = [epoch for s in plan.stages for epoch in range(s.first_epoch, s.last_epoch)]
        assert trained == list(range(epochs))
        assert [plan.stage_at(epoch) for epoch in trained] == [
            stage for stage in plan.stages for _ in range(stage.epochs)
        ]
        if epochs > first:
            assert plan.stages[-1].open_blocks == 4
            assert plan.stages[-1].name == ("two (all)" if progressive else "two")
        assert [stage.name for stage in plan.stages if stage.part == 1] == ["one"] * (first > 0)


def test_steps_follow_from_epoch_and_images() -> None:
    """Part two: 2736 images in steps of 24, of which 7 were done in steps of 100."""
    plan = make_plan()
    assert plan.steps_left(50) == 114
    assert plan.steps_left(50, seen=700) == (2736 - 700) // 24 == 84
    assert plan.steps_from(139, seen=700) == 84
    assert plan.steps_from(138, seen=700) == 84 + 114
    assert plan.steps_from(140) == 0
    assert make_plan(accumulation=3).steps_left(50) == 38  # whole steps alone


def test_time_is_the_middle_of_a_step_whatever_its_size() -> None:
    plan, smaller = make_plan(), make_plan(devices=1)
    assert plan.time(50) == pytest.approx(50 + 0.5 / 114)
    assert plan.time(50, 113 * 24) == pytest.approx(51 - 0.5 / 114)
    assert smaller.time(50, 24) == pytest.approx(plan.time(50, 24), abs=0.01)
    for stage in plan.stages:
        times = list(plan.times(stage))
        assert len(times) == stage.epochs * stage.steps
        assert times[0] == plan.time(stage.first_epoch)
        assert stage.first_epoch < times[0] < times[-1] < stage.last_epoch


@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("batch", [4, 16])
def test_the_rate_at_a_time_does_not_hang_on_batches(devices: int, batch: int) -> None:
    plan, other = make_plan(), make_plan(devices=devices, batch=batch, stage2_batch=batch)
    for time in (0.3, 12.0, 29.9, 30.1, 45.5, 80.0, 139.9):
        assert plan.lr(time, None) == other.lr(time, None)
        assert plan.lr(time, 1) == other.lr(time, 1)


@pytest.mark.parametrize("scheduler", ["cosine", "onecycle", "cosine_restart", "none"])
def test_no_group_ever_rises_above_its_base_or_falls_below_its_share_of_the_minimum(
    scheduler: str,
) -> None:
    plan = make_plan(scheduler=scheduler)
    for time in np.linspace(0.001, 139.999, 999):
        stage, head = plan.stage_at(time), plan.lr(time, None)
        assert 0 < head <= stage.lr * (1 + 1e-12)
        for block in (1, 2, 3, 4):
            rate = plan.lr(time, block)
            assert (rate == 0) == (block > stage.open_blocks)
            assert rate <= 0.1 * head * (1 + 1e-12)


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("growth", [1, 2, 3, 5])
@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("scheduler", ["cosine", "onecycle", "cosine_restart"])
def test_each_part_rises_once_to_its_rate_and_ends_at_the_floor(
    scheduler: str, part: int, growth: int, warmup: int
) -> None:
    plan = make_plan(scheduler=scheduler, warmup_epochs=warmup, t_mult=growth)
    found, base = rates(plan, part), {1: 6.5e-4, 2: 1.5e-4}[part]
    assert max(found) == pytest.approx(base, rel=1e-3)
    assert found[-1] == pytest.approx(1e-5, rel=1e-3)
    rises = [i for i, (a, b) in enumerate(itertools.pairwise(found)) if b > a * (1 + 1e-9)]
    climbs = sum(b - a > 1 for a, b in itertools.pairwise([-2, *rises]))
    first = int(scheduler == "onecycle" or warmup > 0)
    periods = {1: 4, 2: 2, 3: 2, 5: 2}[growth] if scheduler == "cosine_restart" else 1
    assert climbs == first + periods - 1


def test_restarts_take_the_whole_part() -> None:
    """Periods of one and two thirds: the rate is back at its base after a third, not at 115."""
    plan = make_plan(scheduler="cosine_restart", warmup_epochs=0, stage1_epochs=0, epochs=60)
    assert plan.factor(19.999) < 0.07 < 0.99 < plan.factor(20.001)
    assert plan.factor(59.999) == pytest.approx(1e-5 / 1.5e-4, rel=1e-3)


def test_the_rate_of_stage_two_does_not_see_the_end_of_a_block_s_stage() -> None:
    plan = make_plan()
    for border in (66, 103):
        assert plan.lr(border - 1e-6, None) == pytest.approx(plan.lr(border + 1e-6, None))


def test_warm_up_takes_ten_epochs_of_stage_two_and_a_tenth_of_stage_one() -> None:
    plan = make_plan()
    assert plan.lr(30.001, None) < 1.5e-6
    assert plan.factor(35) == pytest.approx(0.5)
    assert plan.factor(40) == pytest.approx(1)
    assert (plan.factor(1.5), plan.factor(3)) == (pytest.approx(0.5), pytest.approx(1))


def test_a_block_that_opens_rises_over_one_epoch() -> None:
    plan = make_plan()
    assert plan.lr(103.01, 4) == pytest.approx(0.01 * plan.lr(103.01, 1))
    assert plan.lr(104, 4) == plan.lr(104, 1)


@pytest.mark.parametrize("time", [10.0, 45.5, 90.0, 120.0, 139.99])
def test_more_epochs_neither_jump_nor_close_a_block(time: float) -> None:
    before = make_plan()
    origin = Origin(time, before.factor(time), before.stage_at(time).open_blocks)
    after = make_plan(epochs=200, origin=origin)
    part = before.stage_at(time).part
    same = [s for s in after.stages if s.part == part and s.last_epoch > time]
    assert all(s.open_blocks >= origin.open_blocks for s in same)
    assert after.lr(time, None) == pytest.approx(before.lr(time, None))
    assert after.epochs == 200
    end = same[-1].last_epoch
    path = [after.lr(t, None) for t in np.linspace(time, end, 200, endpoint=False)]
    assert all(a >= b for a, b in itertools.pairwise(path))
    assert path[-1] == pytest.approx(1e-5, rel=0.05)


def test_a_block_that_a_change_opens_rises_from_there() -> None:
    """Two blocks were open at 120.25 of a stage that, by the new table, had opened all at 103."""
    plan = make_plan(origin=Origin(120.25, 0.4, 2))
    assert plan.lr(120.75, 4) == pytest.approx(0.5 * plan.lr(120.75, 1))
    assert plan.lr(120.75, 2) == plan.lr(120.75, 1) == pytest.approx(0.1 * plan.lr(120.75, None))
    assert plan.lr(121.25, 4) == plan.lr(121.25, 1)


@pytest.mark.parametrize(
    ("time", "warmup", "peak"),
    [
        (34.0, 10, 40.0),  # the peak is still to come
        (45.0, 10, 46.0),  # it is over: one epoch is left to rise in
        (139.0, 10, 139.5),  # or half of what is left, where that is less
    ],
)
def test_a_rate_that_was_rising_goes_on_to_its_peak(time: float, warmup: int, peak: float) -> None:
    plan = make_plan(warmup_epochs=warmup, origin=Origin(time, 0.2, 4, rising=True))
    assert plan.factor(time) == pytest.approx(0.2)
    assert plan.factor((time + peak) / 2) == pytest.approx(0.6)
    assert plan.factor(peak) == pytest.approx(1)
    assert plan.rises(peak - 1e-6) and not plan.rises(peak)
    assert plan.factor(peak + 0.1) < 1


def test_a_warm_up_takes_half_a_part_at_the_most() -> None:
    plan = make_plan(epochs=34, warmup_epochs=10)  # four epochs of stage two
    assert plan.factor(31) == pytest.approx(0.5)
    assert plan.factor(32) == pytest.approx(1)


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
    set_open_blocks(net, net.blocks(), 1, keep_statistics=False)
    for group in optimizer.param_groups:
        group["lr"] = plan.lr(plan.time(0), group["block"])
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
    for time in (0.5, 29.0, 31.0, 80.0, 139.0):
        assert scaled.lr(time, None) == pytest.approx(plain.lr(time, None) / 2)
        assert scaled.lr(time, 1) == pytest.approx(plain.lr(time, 1) / 2)
    assert "is scaled to" in lr_warnings(BALANCED.replace(scale_lr=True), 1)[0]


def test_each_part_has_what_the_settings_give_to_it() -> None:
    """All numbers differ: 8 x 2 x 3 images meant for 24, and 4 x 2 x 3 meant for 96."""
    config = BALANCED.replace(
        lr=1e-3,
        stage2_lr=4e-4,
        lr_batch=24,
        stage2_lr_batch=96,
        min_lr=1e-6,
        batch_size=8,
        stage2_batch_size=4,
        accumulation_steps=3,
        t_mult=3,
        epochs=9,
        stage1_epochs=3,
        warmup_epochs=2,
        backbone_lr_factor=0.3,
        scheduler="cosine_restart",
        scale_lr=True,
    )
    plan = build_plan(config, 500, 2)
    table = [(s.part, s.open_blocks, s.batch, s.effective, s.steps) for s in plan.stages]
    assert table == [(1, 0, 8, 48, 10), *((2, blocks, 4, 24, 20) for blocks in (1, 2, 4))]
    rates = [stage.lr for stage in plan.stages]
    assert rates == pytest.approx([1e-3 * 48 / 24, *[4e-4 * 24 / 96] * 3])
    assert plan.min_lr == pytest.approx(1e-6 / 4)  # the lower of the two factors
    assert (plan.images, plan.devices, plan.warmup_epochs, plan.t_mult) == (500, 2, 2, 3)
    assert (plan.backbone_factor, plan.scheduler, plan.origin) == (0.3, "cosine_restart", None)
    assert plan.in_rows()[1] == {
        "name": "two (block 4)",
        "first_epoch": 3,
        "epochs": 2,
        "steps": 20,
        "open_blocks": 1,
        "batch": 4,
        "area": 1.0,
    }
    ends = [plan.lr(end - 1e-9, None) for end in (3, 9)]
    assert ends == pytest.approx([1e-6 / 4] * 2, rel=1e-3)


def parts(*ends: int, **changes: Any) -> list[tuple[str, int, int, float]]:
    """The stages of 9 epochs of which images grow: name, end, size and area."""
    given = {"epochs": 9, "stage1_epochs": 0, "progressive": False, **changes}
    stages = make_plan(**given).stages
    assert [stage.last_epoch for stage in stages] == [*ends]
    return [(stage.name, stage.last_epoch, stage.size, stage.area) for stage in stages]


def test_images_grow_in_thirds_of_the_epochs() -> None:
    assert parts(3, 6, 9, size=256, start_size=128) == [
        ("two, 128 px", 3, 128, 0.25),
        ("two, 192 px", 6, 192, 0.5625),
        ("two, 256 px", 9, 256, 1.0),
    ]
    sizes = {end: size for _, end, size, _ in parts(3, 6, 9, size=352, start_size=200)}
    assert sizes == {3: 200, 6: 288, 9: 352}  # 276 is nearest to nine strides of 32


def test_sizes_part_the_stages_and_change_nothing_else() -> None:
    opening = {"epochs": 9, "stage1_epochs": 3, "progressive": True}
    grows = make_plan(**opening, size=256, start_size=128)
    assert [(s.name, s.first_epoch, s.open_blocks) for s in grows.stages] == [
        ("one, 128 px", 0, 0),
        ("two (block 4), 192 px", 3, 1),
        ("two (blocks 3-4), 192 px", 5, 2),
        ("two (blocks 3-4), 256 px", 6, 2),
        ("two (all), 256 px", 7, 4),
    ]
    whole = make_plan(**opening)
    times = [epoch + 0.3 for epoch in range(9)]
    assert [grows.factor(t) for t in times] == [whole.factor(t) for t in times]
    blocks = [1, 2, 3, 4, None]
    assert [grows.lr(t, b) for t in times for b in blocks] == [
        whole.lr(t, b) for t in times for b in blocks
    ]
    assert grows.steps_from(0) == whole.steps_from(0)
    assert [s.size for s in whole.stages] == [0] * 4 and {s.area for s in whole.stages} == {1.0}


def test_a_size_that_is_none_or_not_smaller_parts_nothing() -> None:
    for start in (0, 256, 300):
        assert parts(9, size=256, start_size=start) == [("two", 9, 0, 1.0)]
    assert [size for _, _, size, _ in parts(3, 9, size=64, start_size=48)] == [48, 64]
    assert [size for _, _, size, _ in parts(2, epochs=2, size=64, start_size=32)] == [64]
    assert [size for _, _, size, _ in parts(1, epochs=1, size=96, start_size=32)] == [96]


def test_of_whole_images_are_the_last_with_as_many_open_blocks() -> None:
    plan = make_plan(epochs=9, stage1_epochs=6, progressive=False, size=256, start_size=128)
    assert [stage.name for stage in plan.of_whole_images()] == ["one, 192 px", "two, 256 px"]
    assert make_plan().of_whole_images() == list(make_plan().stages)


@pytest.mark.parametrize(("first", "second"), [(8, 4), (4, 8)])
def test_the_larger_batch_of_the_two_must_fit(first: int, second: int) -> None:
    with pytest.raises(InputError, match="a batch of 8 images"):
        build_plan(BALANCED.replace(batch_size=first, stage2_batch_size=second), 6, 1)


def test_a_rate_that_was_given_is_meant_for_the_batch_at_hand() -> None:
    assert lr_warnings(make_config("balanced-2gpu", lr=1e-3, stage2_lr=1e-4), 1) == []


def test_a_run_remembers_what_its_rates_are_meant_for() -> None:
    begun = decide(make_config("demo"), 80, 1)
    assert (begun.lr_batch, begun.stage2_lr_batch) == (16, 16)
    assert decide(begun, 80, 2) == begun
    assert lr_factors(begun, 2) == (2.0, 2.0)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(InputError, match="at most 5"):
        build_plan(BALANCED, 10, 2)
    accumulated = BALANCED.replace(accumulation_steps=4)
    with pytest.raises(InputError, match=r"128 images .16 per device x 2 x 4 accumulated."):
        build_plan(accumulated, 100, 2)


# --- factors by hand: 4 epochs of part one, 8 of part two; floors of a hundredth and a tenth


def by_hand(**shape: Any) -> Plan:
    how = {"scheduler": "cosine", "min_lr": 1e-4, "warmup_epochs": 2, "t_mult": 2, **shape}
    stages = (
        Stage("one", 1, 0, 4, 0, 1e-2, 4, 4, 6),
        Stage("two (block 4)", 2, 4, 3, 1, 1e-3, 2, 6, 4),
        Stage("two (all)", 2, 7, 5, 4, 1e-3, 2, 6, 4),
    )
    return Plan(stages, 26, 1, 0.2, **how)


@pytest.mark.parametrize(
    ("shape", "factors"),
    [
        # a rise over a tenth of part one, and over two epochs of part two
        ({}, {0.1: 0.25, 0.4: 1, 2.2: 0.505, 4.0: 0, 5.0: 0.5, 6.0: 1, 9.0: 0.55, 12.0: 0.1}),
        ({"scheduler": "none"}, {0.2: 0.5, 3.9: 1, 5.0: 0.5, 9.0: 1, 12.0: 1}),
        ({"warmup_epochs": 20}, {0.2: 0.5, 6.0: 0.5, 8.0: 1, 10.0: 0.55}),
        ({"warmup_epochs": 0}, {0.0: 1, 2.0: 0.505, 4.0: 1, 8.0: 0.55}),
        # 0.04 + 0.96 (1 - cos(pi share)) / 2, and half a part at the most
        ({"scheduler": "onecycle"}, {0.0: 0.04, 1.0: 0.52, 2.0: 1, 3.0: 0.505, 4.5: 0.180589}),
        ({"scheduler": "onecycle", "warmup_epochs": 0}, {0.2: 0.52, 0.4: 1, 4.4: 0.52, 4.8: 1}),
        # periods of a third and two; of four quarters; of a quarter and three; of a sixth and five
        ({"scheduler": "cosine_restart", "warmup_epochs": 0},
         {4 + 4 / 3: 0.55, 4 + 8 / 3 + 1e-9: 1, 4 + 16 / 3: 0.55, 12.0: 0.1}),
        ({"scheduler": "cosine_restart", "warmup_epochs": 0, "t_mult": 1},
         {5.0: 0.55, 6.0: 1, 7.0: 0.55, 8.0: 1, 9.0: 0.55, 10.0: 1, 11.0: 0.55, 12.0: 0.1}),
        ({"scheduler": "cosine_restart", "warmup_epochs": 0, "t_mult": 3},
         {5.0: 0.55, 6.0: 1, 9.0: 0.55, 12.0: 0.1}),
        ({"scheduler": "cosine_restart", "warmup_epochs": 0, "t_mult": 5},
         {4 + 4 / 6: 0.55, 4 + 8 / 6 + 1e-9: 1, 12 - 20 / 6: 0.55}),
        ({"min_lr": 0.0}, {9.0: 0.5, 12.0: 0}),
        ({"min_lr": 5e-3}, {2.2: 0.75, 9.0: 1, 12.0: 1}),  # above the rate of part two
    ],
)  # fmt: skip
def test_factors_are_those_of_the_formulas(
    shape: dict[str, Any], factors: dict[float, float]
) -> None:
    plan = by_hand(**shape)
    found = {time: plan.factor(time) for time in factors}
    assert found == pytest.approx(factors, abs=1e-6)


@pytest.mark.parametrize(
    ("origin", "factors"),
    [
        # falls from what it was to the floor of a tenth
        (Origin(8.0, 0.6, 4), {5.0: 0.5, 7.5: 0.868198, 8.0: 0.6, 10.0: 0.35, 12.0: 0.1}),
        (Origin(8.0, 0.05, 4), {8.0: 0.1, 10.0: 0.1}),
        # rises from 0.2 at 5 to the peak at 6; from 7 over an epoch; from 11.5 over half the rest
        (Origin(5.0, 0.2, 4, rising=True), {5.5: 0.6, 6.0: 1, 9.0: 0.55}),
        (Origin(7.0, 0.2, 4, rising=True), {7.25: 0.4, 7.5: 0.6, 8.0: 1, 10.0: 0.55}),
        (Origin(11.5, 0.2, 4, rising=True), {11.625: 0.6, 11.75: 1, 12.0: 0.1}),
        # of another part: part two begins as ever
        (Origin(2.0, 0.3, 0), {2.0: 0.3, 3.0: 0.155, 5.0: 0.5, 6.0: 1}),
    ],
)  # fmt: skip
def test_a_changed_schedule_goes_on_from_its_factor(
    origin: Origin, factors: dict[float, float]
) -> None:
    plan = by_hand(origin=origin)
    found = {time: plan.factor(time) for time in factors}
    assert found == pytest.approx(factors, abs=2e-4)


def test_rates_of_blocks_by_hand() -> None:
    """Block 1 opens at 4, the others at 7; a fifth of the head's rate is theirs."""
    plan = by_hand(scheduler="none", warmup_epochs=0)
    assert [plan.lr(4.5, block) for block in (None, 1, 2)] == pytest.approx([1e-3, 1e-4, 0.0])
    assert [plan.lr(7.25, block) for block in (1, 2, 4)] == pytest.approx([2e-4, 5e-5, 5e-5])
    assert [plan.lr(9.0, block) for block in (1, 4)] == pytest.approx([2e-4, 2e-4])
    assert [plan.lr(3.9, block) for block in (None, 1)] == pytest.approx([1e-2, 0.0])
    late = by_hand(scheduler="none", warmup_epochs=0, origin=Origin(9.0, 1.0, 1))
    assert [late.lr(9.5, block) for block in (1, 2)] == pytest.approx([2e-4, 1e-4])


def test_the_highest_rate_of_a_stretch_is_looked_for_from_its_begin() -> None:
    plan = by_hand()
    assert plan.highest(6.0, 12.0) == pytest.approx(1e-3)
    assert plan.highest(9.0, 12.0) == pytest.approx(5.5e-4)
    assert plan.highest(5.0, 6.0) == pytest.approx(1e-3 * (0.5 + 0.5 * 199 / 200))


def test_steps_and_times_by_hand() -> None:
    """26 images in steps of 4, then of 6: two are left out of each epoch."""
    plan = by_hand()
    assert [plan.steps_left(0, seen) for seen in (0, 3, 22, 23, 26, 40)] == [6, 5, 1, 0, 0, 0]
    assert [plan.steps_from(epoch) for epoch in (0, 3, 4, 11, 12)] == [56, 38, 32, 4, 0]
    assert plan.steps_from(3, 18) == 2 + 32
    assert [plan.time(0, seen) for seen in (0, 4, 22)] == pytest.approx([2 / 24, 6 / 24, 24 / 26])
    assert [plan.time(1, seen) for seen in (23, 24)] == [2.0, 2.0]  # past its last step
    assert list(plan.times(plan.stages[1]))[:5] == [4.125, 4.375, 4.625, 4.875, 5.125]
    assert [plan.stage_at(t).name for t in (3.99, 4.0, 99.0)] == [
        "one",
        "two (block 4)",
        "two (all)",
    ]
    none = Plan((Stage("one", 1, 0, 1, 0, 1e-2, 9, 9, 0),), 4, 1, 0.1, "none", 0.0, 0, 2)
    assert none.time(0) == 0.0


TABLE: dict[str, Any] = {
    "epochs": 12, "stage1_epochs": 2, "progressive": True, "lr": 1e-2, "stage2_lr": 1e-3,
    "batch": 4, "stage2_batch": 3, "accumulation": 2, "devices": 3, "images": 100,
}  # fmt: skip


def table(**changes: Any) -> list[tuple[Any, ...]]:
    rows = plan_stages(**TABLE | changes)
    return [(s.name, s.part, s.first_epoch, s.epochs, s.open_blocks) for s in rows]


def test_the_table_of_stages_by_hand() -> None:
    first = ("one", 1, 0, 2, 0)
    assert table() == [
        first, ("two (block 4)", 2, 2, 3, 1), ("two (blocks 3-4)", 2, 5, 3, 2),
        ("two (all)", 2, 8, 4, 4),
    ]  # fmt: skip
    assert table(progressive=False) == [first, ("two", 2, 2, 10, 4)]
    assert table(stage1_epochs=0, epochs=1) == [("two (all)", 2, 0, 1, 4)]
    assert table(blocks=3)[-1] == ("two (all)", 2, 8, 4, 3)
    assert table(stage1_epochs=12) == [("one", 1, 0, 12, 0)]
    rows = plan_stages(**TABLE)
    assert [(s.lr, s.batch, s.effective, s.steps) for s in rows[:2]] == [
        (1e-2, 4, 24, 4),
        (1e-3, 3, 18, 5),
    ]


@pytest.mark.parametrize(
    ("origin", "stages"),
    [
        (Origin(4.0, 1.0, 2), [("two (blocks 3-4)", 2, 2, 6, 2), ("two (all)", 2, 8, 4, 4)]),
        (
            Origin(5.0, 1.0, 2),
            [
                ("two (block 4)", 2, 2, 3, 1),
                ("two (blocks 3-4)", 2, 5, 3, 2),
                ("two (all)", 2, 8, 4, 4),
            ],
        ),
        (Origin(5.5, 1.0, 4), [("two (block 4)", 2, 2, 3, 1), ("two (all)", 2, 5, 7, 4)]),
        (Origin(1.0, 1.0, 3), [("two", 2, 2, 6, 3), ("two (all)", 2, 8, 4, 4)]),
    ],
)  # fmt: skip
def test_what_was_open_stays_open_from_its_time_on(
    origin: Origin, stages: list[tuple[Any, ...]]
) -> None:
    assert table(origin=origin) == [("one", 1, 0, 2, 0), *stages]


def test_a_batch_that_is_too_large_is_told_whole() -> None:
    with pytest.raises(InputError) as caught:
        build_plan(BALANCED.replace(batch_size=6, stage2_batch_size=4, accumulation_steps=3), 35, 2)
    assert str(caught.value) == (
        "a batch of 36 images (6 per device x 2 x 3 accumulated) is larger than the 35 training "
        "images. Lower --batch-size and --stage2-batch-size to at most 5, fewer "
        "--accumulation-steps, or add images."
    )
    with pytest.raises(InputError) as caught:
        build_plan(BALANCED.replace(batch_size=6, stage2_batch_size=4), 1, 2)
    assert str(caught.value) == (
        "a batch of 12 images (6 per device x 2) is larger than the 1 training images. Lower "
        "--batch-size and --stage2-batch-size to at most 1, or add images."
    )
    even = BALANCED.replace(batch_size=6, stage2_batch_size=4, accumulation_steps=3)
    assert build_plan(even, 36, 2).stages[0].steps == 1
