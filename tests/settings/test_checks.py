"""What settings may be: each value at its limit, and those that contradict each other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.checks import flag_with, fold_of, log_names
from camoxpert_nb.settings.config import Config

LIMITED = [
    each for each in dataclasses.fields(Config) if {"low", "above", "high"} & {*each.metadata}
]
FREE = Config(min_lr=0.0, stage1_epochs=0, epochs=50, top_k=2)  # nothing stands in another's way


@pytest.mark.parametrize("item", LIMITED, ids=lambda item: item.name)
def test_a_limit_itself_is_allowed_unless_it_is_above(item: dataclasses.Field[Any]) -> None:
    limits = item.metadata
    whole = item.type.startswith("int")  # type: ignore[union-attr]
    for bound, sign in (("low", -1), ("high", 1)):
        if bound not in limits or item.name == "stage1_epochs":  # which may not exceed the epochs
            continue
        assert getattr(FREE.replace(**{item.name: limits[bound]}), item.name) == limits[bound]
        beyond = limits[bound] + (sign if whole else sign * 1e-6 * max(abs(limits[bound]), 1))
        with pytest.raises(InputError, match=f"{limits[bound]:g}|{limits[bound]}"):
            FREE.replace(**{item.name: beyond})
    if "above" in limits:
        with pytest.raises(InputError, match="must be above"):
            FREE.replace(**{item.name: limits["above"]})
        assert FREE.replace(**{item.name: limits["above"] + 1e-9})


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_without_a_bound_must_be_finite_too(number: float) -> None:
    for name in ("min_lr", "lr", "clip", "save_minutes"):
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')}"):
            FREE.replace(**{name: number})


def test_a_truth_is_no_number_and_a_number_no_truth() -> None:
    for changes in ({"epochs": True}, {"lr": True}, {"use_ema": 0}, {"seed": 1.0}):
        with pytest.raises(InputError, match="must be of type"):
            FREE.replace(**changes)


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"stage1_epochs": 50}, True),  # all epochs are stage one
        ({"stage1_epochs": 51}, False),
        ({"stage1_epochs": 50, "skip_stage1": True}, False),
        ({"stage1_epochs": 49, "skip_stage1": True}, True),
        ({"lr": 1e-3, "min_lr": 1e-3}, False),  # a rate that neither falls nor rises
        ({"lr": 1e-3, "min_lr": 9e-4}, True),
        ({"lr": 1e-3, "stage2_lr": 1e-4, "min_lr": 1e-4}, False),
        ({"lr": None, "min_lr": 1e-1}, True),  # open: the recipe's is not known yet
        ({"mask_object": "1,13", "ignore_label": 3}, True),
        ({"mask_object": "1,13", "ignore_label": 13}, False),
        ({"mask_object": "1;3"}, False),
        ({"gpus": "0,1"}, True),
        ({"gpus": "0,00"}, False),  # one GPU, written in two ways
        ({"gpus": "1,1"}, False),
        ({"gpus": "a"}, False),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    changes: dict[str, Any], allowed: bool
) -> None:
    if allowed:
        assert FREE.replace(**changes)
        return
    with pytest.raises(InputError):
        FREE.replace(**changes)


@pytest.mark.parametrize(
    ("text", "found"),
    [("1/2", (1, 2)), ("5/5", (5, 5)), (" 2 / 3 ", (2, 3)), ("", (0, 0)), ("None", (0, 0))],
)
def test_a_fold_is_counted_from_one(text: str, found: tuple[int, int]) -> None:
    assert fold_of(text) == found


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "1/0", "5", "a/b", "-1/5"])
def test_a_fold_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="the first is 1/5, the last 5/5"):
        fold_of(text)


def test_a_value_that_looks_like_a_flag_is_bound_to_its_own() -> None:
    assert flag_with("mask_suffix", "-gt") == ["--mask-suffix=-gt"]
    for number in ("-1", "-0.5", "2", "x"):
        assert flag_with("lr", number) == ["--lr", number]


def test_loggers_are_told_once_and_none_is_none() -> None:
    assert log_names("CSV; wandb,csv") == ("csv", "wandb")
    assert log_names("none") == log_names("") == ()
