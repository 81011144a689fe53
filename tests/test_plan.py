"""What learning rates are meant for, and what becomes of them with another batch."""

from __future__ import annotations

import pytest

from camoxpert_nb.config import make_config
from camoxpert_nb.errors import InputError
from camoxpert_nb.plan import (
    build_plan,
    effective_batches,
    lr_factors,
    lr_warnings,
    settle_lr_batches,
)

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
