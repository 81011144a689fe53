"""What a setting may be, and the whole sentence that repairs what it may not be."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.checks import flag_of, flag_with, fold_of, log_names, near
from camoxpert_nb.settings.config import Config, make_config


@pytest.mark.parametrize(
    ("text", "fold"),
    [
        ("", (0, 0)),
        (" none ", (0, 0)),
        ("None", (0, 0)),
        ("1/2", (1, 2)),
        ("2/2", (2, 2)),
        (" 3 / 10 ", (3, 10)),
        ("9999/9999", (9999, 9999)),
    ],
)
def test_a_fold_is_one_of_several(text: str, fold: tuple[int, int]) -> None:
    assert fold_of(text) == fold
    assert Config(fold=text).fold == text


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "2", "1/2/3", "a/b", "-1/5", "1/10000"])
def test_another_fold_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Config(fold=text)
    assert str(caught.value) == (
        f"--fold is '{text}'; give the fold that validates and how many there are, as 2/5 (the "
        "first is 1/5, the last 5/5). `camoxpert repeat --folds 5` trains all of them."
    )


def test_logs_are_named_in_any_way_and_each_once() -> None:
    assert log_names(" CSV; wandb,csv, ") == ("csv", "wandb")
    assert log_names("none") == log_names("") == ()
    assert log_names("none,tensorboard") == ("tensorboard",)


SENTENCES: list[tuple[dict[str, Any], str]] = [
    (
        {"log": "csv,tensorbord"},
        "--log names 'tensorbord'; it takes csv, tensorboard, wandb, several with commas; did you "
        "mean tensorboard?",
    ),
    (
        {"mask_object": "1,"},
        "--mask-object is '1,'; give auto, nonzero, or the mask values that are object, as 1 or "
        "1,3.",
    ),
    (
        {"mask_object": "1,3", "ignore_label": 3},
        "--mask-object 1,3 and --ignore-label 3 name the same value: it is either object or counts "
        "nowhere. Leave it out of one of them.",
    ),
    (
        {"epochs": 5, "stage1_epochs": 6},
        "--stage1-epochs 6 is more than --epochs 5, which counts both stages. Raise --epochs or "
        "lower --stage1-epochs.",
    ),
    (
        {"lr": 1e-3, "stage2_lr": None, "min_lr": 1e-3},
        "--min-lr 0.001 is not below --lr 0.001, so the learning rate would rise instead of fall. "
        "Lower --min-lr (1e-5 is usual).",
    ),
    (
        {"lr": 1e-3, "stage2_lr": 1e-4, "min_lr": 2e-4},
        "--min-lr 0.0002 is not below --stage2-lr 0.0001, so the learning rate would rise instead "
        "of fall. Lower --min-lr (1e-5 is usual).",
    ),
    (
        {"epochs": 7, "stage1_epochs": 7, "skip_stage1": True},
        "--skip-stage1 leaves nothing to train: all 7 epochs are stage one.",
    ),
    (
        {"gpus": "0,0"},
        "--gpus is '0,0'; it must be all, or the numbers of GPUs, each once, as 0 or 0,1.",
    ),
    (
        {"gpus": "0,00"},
        "--gpus is '0,00'; it must be all, or the numbers of GPUs, each once, as 0 or 0,1.",
    ),
    (
        {"parallel": "dp2"},
        "--parallel is 'dp2'; it must be one of auto, none, dp, ddp; did you mean dp?",
    ),
    ({"lr": float("nan")}, "--lr is nan, but must be a finite number."),
    ({"epochs": "6"}, "epochs is '6' (str), but must be of type int."),
    ({"lr": 10**400}, f"lr is {10**400} (int), but must be of type float."),
]


@pytest.mark.parametrize(("changes", "sentence"), SENTENCES)
def test_what_cannot_be_is_said_with_what_repairs_it(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        Config(**changes)
    assert str(caught.value) == sentence


def test_what_is_just_allowed_is() -> None:
    Config(epochs=6, stage1_epochs=6)
    Config(epochs=6, stage1_epochs=5, skip_stage1=True)
    Config(lr=1e-3, stage2_lr=None, min_lr=9.9e-4)
    Config(mask_object="1,3", ignore_label=2)
    for gpus in ("all", "0", "1, 0"):
        Config(gpus=gpus)


def test_a_limit_is_told_with_what_is_usual_there() -> None:
    help = Config.__dataclass_fields__["num_experts"].metadata["help"]
    with pytest.raises(InputError) as caught:
        Config(num_experts=8)
    assert str(caught.value) == (
        f"--num-experts is 8, but must be at least 1 and at most 7 ({help}; usually 7)."
    )
    help = Config.__dataclass_fields__["img_size"].metadata["help"]
    with pytest.raises(InputError) as caught:
        make_config("high-res-2gpu", img_size=1)
    assert str(caught.value) == (
        f"--img-size is 1, but must be at least 32 and at most 8192 ({help}; preset high-res-2gpu: "
        "352)."
    )


def test_a_path_loses_its_tilde_and_an_empty_one_stays_empty() -> None:
    config = Config(dataset_path="~/photos", cache_dir=Path("~"), backbone="~no-path")
    assert config.dataset_path == str(Path.home() / "photos")
    assert config.cache_dir == str(Path.home())
    assert (config.weights, config.backbone) == ("", "~no-path")


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("Stage2-LR", "; did you mean stage2_lr?"),
        ("--stage2_lr", "; did you mean stage2_lr?"),
        ("stage2_rl", "; did you mean stage2_lr?"),
        ("epoch", "; did you mean epochs?"),
        ("zebra", "."),
    ],
)
def test_near_names_differ_in_a_letter_or_in_nothing_that_counts(name: str, end: str) -> None:
    assert near(name, ["lr", "stage2_lr", "epochs"]) == end


def test_a_flag_and_its_value_stay_together() -> None:
    assert flag_of("stage2_lr") == "--stage2-lr"
    assert flag_with("mask_folder", "-gt") == ["--mask-folder=-gt"]
    assert flag_with("mask_folder", "gt") == ["--mask-folder", "gt"]
    assert flag_with("ignore_label", "-1") == ["--ignore-label", "-1"]
    assert flag_with("lr", "-0.5") == ["--lr", "-0.5"]


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


@pytest.mark.parametrize("start", [0, 32, 100, 320])
def test_images_may_grow_from_any_size_up_to_their_own(start: int) -> None:
    assert Config(img_size=320, start_size=start).start_size == start


@pytest.mark.parametrize("start", [-32, 31, 321])
def test_images_that_would_not_grow_are_refused(start: int) -> None:
    with pytest.raises(InputError, match=f"--start-size is {start}; .* from 32 to that"):
        Config(img_size=320, start_size=start)
