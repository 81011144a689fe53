"""What a run that goes on has other than before, in sentences that name the right value."""

from __future__ import annotations

import math
from typing import Any

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.settings.recipe import recipe
from camoxpert_nb.training.changes import _shown, compare_settings, fallen, without_uncertainty
from camoxpert_nb.training.schedule import Plan, build_plan

WAS = make_config("demo", lr=1e-3, batch_size=8, epochs=20, stage1_epochs=5, warmup_epochs=2)


def changed(**changes: Any) -> list[str]:
    return compare_settings(WAS, WAS.replace(**changes), "run/last.pt")


def test_each_change_is_told_from_what_it_was_to_what_it_is() -> None:
    found = changed(lr=2e-3, num_workers=1, skip_stage1=True)
    assert found == [
        "goes on with --lr 0.001 -> 0.002",
        f"goes on with --num-workers {WAS.num_workers} -> 1",
        "--skip-stage1 False -> True has no effect: the run began long ago",
    ]
    assert changed() == []
    with pytest.raises(InputError, match=r"^run/last.pt was .*\(--width \d+ -> 48\)"):
        changed(width=48)


def test_other_epochs_name_what_stays() -> None:
    """Of stage one and warm-up those that were not given anew."""
    (taken, *kept) = changed(epochs=30)
    assert taken == "goes on with --epochs 20 -> 30"
    stays = "stay as the run began; give them to change them"
    assert kept == [f"--stage1-epochs 5 and --warmup-epochs 2 {stays}"]
    assert f"--warmup-epochs 2 {stays}" in changed(epochs=30, stage1_epochs=7)
    assert not [line for line in changed(stage1_epochs=7) if stays in line]
    auto = make_config("auto").replace(epochs=10, stage1_epochs=1, warmup_epochs=1)
    lines = compare_settings(auto, auto.replace(epochs=12), "")
    assert "the recipe's numbers stay those of 10 epochs" in lines[-1]


# --- an epoch's rate by hand: stage two has half of stage one's, and a cosine without warm-up


def plan_of(config: Config) -> Plan:
    return build_plan(config, 80, 1)


LONG = WAS.replace(
    lr=4e-3,
    stage2_lr=2e-3,
    min_lr=1e-6,
    warmup_epochs=0,
    epochs=40,
    stage1_epochs=0,
    progressive_unfreeze=False,
    scheduler="cosine",
)


@pytest.mark.parametrize(
    ("place", "low"),
    [
        ((0, 0), False),
        ((31, 0), False),  # (1 + cos(31 / 40 pi)) / 2 = .120
        ((33, 0), True),  # .074
        ((40, 0), False),  # nothing is left to train
    ],
)
def test_epochs_at_less_than_a_tenth_of_their_stages_rate_are_named(
    place: tuple[int, int], low: bool
) -> None:
    lines = fallen(plan_of(LONG), place, LONG.replace(epochs=30), LONG)
    assert len(lines) == low
    if low:
        assert "of 0.002, in the 30 epochs" in lines[0] and "10 more change little" in lines[0]
    assert fallen(plan_of(LONG), place, LONG, LONG) == []  # none was added


def test_the_rate_is_measured_against_that_of_its_own_stage() -> None:
    """Stage two's is a hundredth of stage one's, and is high where it begins."""
    config = LONG.replace(stage2_lr=4e-5, stage1_epochs=10)
    assert fallen(plan_of(config), (12, 0), config.replace(epochs=30), config) == []


@pytest.mark.parametrize(
    ("preset", "had", "given", "is_open"),
    [
        ("auto", "the recipe's", None, True),
        ("auto", "the recipe's", 0.7, False),  # the user gave one
        ("auto", 0.7, None, False),  # it never was the recipe's
        ("demo", "the recipe's", None, False),  # a preset that decides it itself
    ],
)
def test_a_loss_of_ones_own_opens_the_recipes_uncertainty_alone(
    preset: str, had: Any, given: float | None, is_open: bool
) -> None:
    usual = recipe(60, 1, 1)["uncertainty"]
    assert usual not in (0.7, recipe(30, 1, 1)["uncertainty"])
    base = make_config(preset).replace(epochs=60, stage1_epochs=0, warmup_epochs=0)
    was = base.replace(uncertainty=usual if had == "the recipe's" else had)
    now = was.replace(epochs=90, uncertainty=was.uncertainty if given is None else given)
    assert (without_uncertainty(was, now).uncertainty is None) == is_open


def test_the_sentences_about_a_run_that_goes_on_are_whole() -> None:
    with pytest.raises(InputError) as caught:
        changed(width=48, lr=0.5, seed=7)
    assert str(caught.value) == (
        f"run/last.pt was trained with other settings (--width {WAS.width} -> 48, --seed 42 -> 7). "
        "A run goes on with the network and the images it began with, or its scores would not be "
        "true. Leave these flags out, or start a new run from its weights: --init-from."
    )
    auto = make_config("auto").replace(epochs=10, stage1_epochs=1, warmup_epochs=1)
    assert compare_settings(auto, auto.replace(epochs=12), "") == [
        "goes on with --epochs 10 -> 12",
        "--stage1-epochs 1 and --warmup-epochs 1 stay as the run began; give them to change them",
        "the recipe's numbers stay those of 10 epochs; to have one decided anew, as --augment auto",
    ]
    given = auto.replace(epochs=12, stage1_epochs=2, warmup_epochs=2)
    assert compare_settings(auto, given, "")[-1].startswith("the recipe's numbers stay")
    assert not [line for line in compare_settings(auto, given, "") if "as the run began" in line]


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "none"), ("", "none"), (0.25, "0.25"), (1e-5, "1e-05"), (3, "3"), (False, "False")],
)
def test_values_are_shown_as_flags_take_them(value: Any, said: str) -> None:
    assert _shown(value) == said


def test_one_epoch_more_is_told_too_and_a_tenth_is_not_low() -> None:
    """A rate that stays: none is low. One that ended at the floor: 1e-6 of 0.002."""
    ended = LONG.replace(epochs=31)
    told = fallen(plan_of(ended), (30, 0), LONG.replace(epochs=30), ended)
    most = plan_of(ended).lr(plan_of(ended).time(30, 0), None)
    assert told == [
        f"the learning rate had fallen to {most:.2g}, of 0.002, in the 30 epochs, and does not "
        "rise again: 1 more change little. To train on at a higher rate begin a new run from "
        f"these weights: camoxpert train --init-from {ended.checkpoint_dir}"
    ]
    assert most == pytest.approx(
        1e-6 + 0.002 * 0.5 * (1 + math.cos(math.pi * 30.05 / 31)), rel=0.01
    )
    floor = LONG.replace(min_lr=2e-4, lr=4e-3, stage2_lr=2e-3)  # a tenth, which is never left
    assert fallen(plan_of(floor), (39, 0), floor.replace(epochs=30), floor) == []
