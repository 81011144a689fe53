"""Whatever epochs, photos and batches: a plan's steps add up, and its rates keep their bounds."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from properties import tried

from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import make_config
from camoxpert_nb.training.schedule import Plan, build_plan

HOW = st.fixed_dictionaries(
    {
        "epochs": st.integers(1, 40),
        "batch_size": st.integers(1, 16),
        "stage2_batch_size": st.one_of(st.none(), st.integers(1, 16)),
        "accumulation_steps": st.integers(1, 3),
        "scheduler": st.sampled_from(["cosine", "onecycle", "cosine_restart", "none"]),
        "progressive_unfreeze": st.booleans(),
        "warmup_epochs": st.integers(0, 12),
        "t_mult": st.integers(1, 4),
    }
)


def plan(how: dict[str, Any], stage1: int, images: int, devices: int) -> Plan:
    try:
        config = make_config("tiny", **how, stage1_epochs=min(stage1, how["epochs"] - 1))
        return build_plan(config, images, devices)
    except InputError:
        assume(False)
        raise


@tried(100)
@given(HOW, st.integers(0, 39), st.integers(1, 300), st.sampled_from([1, 2, 4]))
def test_steps_add_up(how: dict[str, Any], stage1: int, images: int, devices: int) -> None:
    found = plan(how, stage1, images, devices)
    stages = found.stages
    assert found.epochs == how["epochs"] and stages[0].first_epoch == 0
    assert all(a.last_epoch == b.first_epoch for a, b in pairwise(stages))
    assert all(s.steps * s.effective <= images < (s.steps + 1) * s.effective for s in stages)
    whole = sum(stage.steps * stage.epochs for stage in stages)
    assert found.steps_from(0) == whole
    for epoch in range(how["epochs"]):
        stage = found.stage_at(epoch)
        assert found.steps_from(epoch) == found.steps_from(epoch + 1) + stage.steps
        done = stage.effective * (stage.steps // 2)
        assert found.steps_left(epoch, done) == stage.steps - stage.steps // 2
        assert epoch <= found.time(epoch, done) <= epoch + 1
    assert [t for s in stages for t in found.times(s)] == sorted(
        t for s in stages for t in found.times(s)
    )


@tried(100)
@given(HOW, st.integers(0, 39), st.integers(1, 300))
def test_rates_keep_their_bounds(how: dict[str, Any], stage1: int, images: int) -> None:
    found = plan(how, stage1, images, 1)
    for part in {stage.part for stage in found.stages}:
        rows = [stage for stage in found.stages if stage.part == part]
        times = [t for stage in rows for t in found.times(stage)]
        rates = [found.lr(time, None) for time in times]
        assert all(math.isfinite(rate) and 0 <= rate <= rows[0].lr * (1 + 1e-9) for rate in rates)
        falls = [rate for rate, time in zip(rates, times, strict=True) if not found.rises(time)]
        rises = [rate for rate, time in zip(rates, times, strict=True) if found.rises(time)]
        assert rises == sorted(rises)
        if how["scheduler"] in ("cosine", "onecycle"):
            assert falls == pytest.approx(sorted(falls, reverse=True))
        for time in times[:: max(len(times) // 7, 1)]:
            blocks = [found.lr(time, block) for block in (1, 2, 3, 4)]
            assert blocks == sorted(blocks, reverse=True)
            assert blocks[0] <= found.lr(time, None) * found.backbone_factor + 1e-12
