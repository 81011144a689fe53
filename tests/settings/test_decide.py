"""From open settings to plain ones: what was given holds, what was not is decided once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.settings.config import PRESETS, Config, make_config, with_changes
from camoxpert_nb.settings.decide import (
    as_untrained,
    decide,
    decisions,
    effective_batches,
    lr_factors,
    lr_warnings,
    open_settings,
    recipe_lines,
    short_run,
    told,
)
from camoxpert_nb.settings.recipe import DECIDED, recipe

OTHER = {
    "augment": 0.7,
    "uncertainty": 0.0,
    "lr": 3e-4,
    "backbone_lr_factor": 1.0,
    "ema_decay": 0.5,
    "stage1_epochs": 3,
    "warmup_epochs": 2,
    "progressive_unfreeze": True,
}


def test_auto_leaves_open_what_the_recipe_decides_and_nothing_else() -> None:
    config = make_config("auto", epochs=6, batch_size=8)
    assert [name for name, value in config.as_dict().items() if value is None] == [
        *(item for item in Config().as_dict() if item in (*DECIDED, "stage2_lr")),
        "stage2_batch_size",
    ]
    settled = decide(config, 797, 1)
    values = recipe(6, 797, 8)
    assert {name: getattr(settled, name) for name in values} == values
    assert decide(settled, 4040, 4) == settled  # decided once
    assert (settled.lr_batch, settled.stage2_lr_batch) == (8, 8)


def test_the_effective_batch_counts() -> None:
    config = make_config("auto", stage2_batch_size=12)
    assert decide(config, 4040, 2).lr == 6.5e-4
    assert decide(config, 4040, 2).stage2_lr == 1.5e-4
    assert decide(config.replace(accumulation_steps=2), 4040, 1).lr == 6.5e-4


@pytest.mark.parametrize("name", DECIDED)
def test_a_value_that_is_given_holds(name: str) -> None:
    config = decide(make_config("auto", epochs=6, batch_size=8, **{name: OTHER[name]}), 797, 1)
    assert getattr(config, name) == OTHER[name]
    values = recipe(6, 797, 8)
    rest = [other for other in DECIDED if other != name]
    assert {other: getattr(config, other) for other in rest} == {o: values[o] for o in rest}


def test_a_rate_that_is_given_counts_for_both_stages() -> None:
    config = decide(make_config("auto", epochs=6, lr=3e-4), 797, 1)
    assert (config.lr, config.stage2_lr) == (3e-4, None)
    config = decide(make_config("auto", epochs=6, batch_size=8, stage2_lr=3e-4), 797, 1)
    assert (config.lr, config.stage2_lr) == (1e-3, 3e-4)


@pytest.mark.parametrize("name", DECIDED)
def test_any_preset_can_leave_a_setting_to_the_recipe(name: str, tmp_path: Path) -> None:
    config = make_config("single-gpu", epochs=6, **{name: None})
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config
    assert decisions(config, 797, 1) == {name: recipe(6, 797, 8)[name]}
    assert [name in line for line in recipe_lines(config, 797, 1)] == [False, True]


def test_nothing_open_is_nothing_to_say() -> None:
    config = make_config("balanced-2gpu")
    assert decisions(config, 797, 1) == {} and recipe_lines(config, 797, 1) == []


def test_the_recipe_is_told_with_what_it_is_for() -> None:
    head, rates, stages = recipe_lines(make_config("auto", epochs=6, batch_size=8), 797, 1)
    assert head == "for 6 epochs of 797 photos, 8 in a step:"
    assert rates.startswith("augment 0.25, uncertainty 8, lr 0.001, stage2_lr 0.001")
    assert stages == "stage1_epochs 0, warmup_epochs 0, progressive_unfreeze off"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epochs": 6},
        {"epochs": 40, "stage1_epochs": 5},
        {"warmup_epochs": 1, "lr": 1.1e-3},
        {"lr_batch": 7},
        {"epochs": 4, "augment": None, "stage1_epochs": None},
    ],
)
def test_what_is_told_makes_the_same_settings(preset: str, changes: dict[str, Any]) -> None:
    config = make_config(preset, **changes)
    assert make_config(preset, **told(config)) == config
    assert set(told(config)) <= set(changes)


def test_a_saved_run_keeps_its_shares_too() -> None:
    saved = make_config("balanced-2gpu", dataset_path="photos")
    short = with_changes(saved, {"epochs": 6})
    assert (short.stage1_epochs, short.warmup_epochs, short.dataset_path) == (1, 0, "photos")
    assert with_changes(saved, {"epochs": 6, "stage1_epochs": 3}).stage1_epochs == 3


def test_a_preset_for_long_runs_says_what_a_short_one_needs() -> None:
    for preset in ("balanced-2gpu", "max-speed-2gpu", "high-res-2gpu", "single-gpu", "accurate"):
        assert "--preset auto" in short_run(make_config(preset, epochs=6))[0]
        assert short_run(make_config(preset)) == []
        assert short_run(make_config(preset, epochs=6, augment=0.5)) == []
    for preset in ("auto", "demo", "tiny"):
        assert short_run(make_config(preset, epochs=6)) == []


def test_a_rate_meant_for_another_batch_is_told_with_what_it_would_be() -> None:
    config = make_config("balanced-2gpu", batch_size=8, accumulation_steps=3)
    meant = config.replace(lr_batch=32, stage2_lr_batch=24)
    assert effective_batches(meant, 4) == (96, 144)
    assert lr_factors(meant, 4) == (3.0, 6.0)
    assert lr_warnings(meant, 4) == [
        "--lr 0.00065 is meant for a batch of 32, this run has 96: in proportion 0.00195; "
        "--scale-lr applies it",
        "--stage2-lr 0.00015 is meant for a batch of 24, this run has 144: in proportion 0.0009; "
        "--scale-lr applies it",
    ]
    one = meant.replace(stage2_lr_batch=144, stage2_lr=None, scale_lr=True)
    assert lr_warnings(one, 4) == [
        "--lr 0.00065 is meant for a batch of 32; for 96 it is scaled to 0.00195 (--scale-lr)"
    ]
    both = meant.replace(stage2_lr=None)
    assert "--stage2-lr 0.00065 is meant for a batch of 24" in lr_warnings(both, 4)[1]


def test_every_preset_has_the_batches_that_its_rates_were_chosen_for() -> None:
    batches = {
        name: (row.get("lr_batch"), row.get("stage2_lr_batch")) for name, row in PRESETS.items()
    }
    assert batches == {
        "balanced-2gpu": (32, 24),
        "max-speed-2gpu": (48, 32),
        "high-res-2gpu": (24, 16),
        "single-gpu": (8, 8),
        "single-gpu-optimized": (12, 12),
        "accurate": (16, 16),
        "auto": (None, None),
        "demo": (None, None),
        "tiny": (None, None),
    }


BOTH = Config(
    batch_size=8,
    stage2_batch_size=4,
    accumulation_steps=3,
    lr=1e-3,
    stage2_lr=2e-4,
    lr_batch=96,
    stage2_lr_batch=12,
)


def test_batches_and_rates_are_those_of_their_own_stage() -> None:
    """On two devices a step holds 8 x 2 x 3 and 4 x 2 x 3 images."""
    assert effective_batches(BOTH, 2) == (48, 24)
    assert lr_factors(BOTH, 2) == (0.5, 2.0)
    first, second = lr_warnings(BOTH, 2)
    assert first == (
        "--lr 0.001 is meant for a batch of 96, this run has 48: in proportion 0.0005; --scale-lr "
        "applies it"
    )
    assert second.startswith("--stage2-lr 0.0002 is meant for a batch of 12, this run has 24: in ")
    assert "in proportion 0.0004" in second
    scaled = lr_warnings(BOTH.replace(scale_lr=True, stage2_lr=None), 2)[1]
    assert "--stage2-lr 0.001 is meant for a batch of 12; for 24 it is scaled to 0.002" in scaled


def test_what_a_rate_is_meant_for_is_written_down_once() -> None:
    fresh = BOTH.replace(lr_batch=0, stage2_lr_batch=0)
    found = decide(fresh, 797, 2)
    assert (found.lr_batch, found.stage2_lr_batch) == (48, 24)
    kept = decide(BOTH, 797, 2)
    assert (kept.lr_batch, kept.stage2_lr_batch) == (96, 12)


def test_the_recipes_rates_are_for_the_batches_they_are_meant_for() -> None:
    """Also where a run goes on with others."""
    open_ = {"lr": None, "stage2_lr": None, "lr_batch": 4}
    config = BOTH.replace(**open_, epochs=6, stage1_epochs=0, min_lr=1e-7)
    values = recipe(6, 797, 4, 12)
    assert decisions(config, 797, 2) == {name: values[name] for name in ("lr", "stage2_lr")}
    assert values["lr"] != recipe(6, 797, 48, 24)["lr"]
    assert open_settings(config) == ["lr", "stage2_lr"]
    assert open_settings(config.replace(stage2_lr=1e-4)) == ["lr"]


@pytest.mark.parametrize(
    ("given", "weight"),
    [
        ({}, 8.0),
        ({"pretrained": False}, 2.0),
        ({"pretrained": False, "weights": "w.pth"}, 8.0),
        ({"pretrained": False, "init_from": "run"}, 8.0),
        ({"pretrained": False, "uncertainty": 0.5}, 0.5),
    ],
)
def test_what_the_backbone_is_to_begin_with_counts(given: dict[str, Any], weight: float) -> None:
    config = make_config("auto", **{"epochs": 6, "weights": "", **given})
    assert decide(config, 797, 1).uncertainty == weight


def test_where_no_weights_came_the_recipe_is_that_of_random_ones() -> None:
    asked = make_config("auto", epochs=6)
    config = decide(asked, 797, 1)
    found = as_untrained(config, asked, 797, 1)
    assert found == config.replace(uncertainty=2.0) != config
    given = asked.replace(uncertainty=5.0)
    assert as_untrained(decide(given, 797, 1), given, 797, 1) == decide(given, 797, 1)
    assert "uncertainty 2," in recipe_lines(asked, 797, 1, found)[1]
