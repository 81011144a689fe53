"""A search for a learning rate: real steps at rising rates, of which nothing is left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import random
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from camoxpert_nb.cli import main as cli
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.epoch import EpochSteps
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.prepare import Loaders, Training, prepare, step_settings
from camoxpert_nb.training.rates import Rates, _diverges, _Sweep, find_rate, propose, smooth


def search(training: Training, **how: float):
    loaders = Loaders(training)
    with contextlib.closing(loaders.feed):
        return find_rate(training, loaders, **how)


def flat(value: object, name: str = "") -> dict[str, object]:
    """Return all tensors and numbers of a state by where they stand."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        return {name: value}
    found: dict[str, object] = {}
    for key, below in parts:
        found |= flat(below, f"{name}/{key}")
    return found


def assert_equal(one: object, other: object) -> None:
    left, right = flat(one), flat(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, right[name]), name
        else:
            assert value == right[name], name


def epoch_of(training: Training) -> list[dict[str, object]]:
    state, plan, loaders = training.state, training.plan, Loaders(training)
    with contextlib.closing(loaders.feed):
        batches = loaders.epoch(plan.stage_at(state.epoch), state.epoch, state.seen)
        records = [*EpochSteps(state, plan, batches, step_settings(training.config))]
    timed = ("seconds", "images_per_second", "data_wait")
    return [{k: v for k, v in record.items() if k not in timed} for record in records]


@pytest.mark.parametrize("way", [{}, {"skip_stage1": True}, {"accumulation_steps": 2}])
def test_nothing_is_left_of_it_bit_for_bit(tiny: Config, way: dict[str, object]) -> None:
    config = tiny.replace(**way)
    searched, other = prepare(config), prepare(config)
    assert_equal(searched.state.state_dict(), other.state.state_dict())
    torch.manual_seed(5)
    numbers = torch.get_rng_state()
    found = search(searched, steps=25)
    assert len(found.rates) == len(found.losses) > 9
    assert torch.equal(torch.get_rng_state(), numbers)
    assert_equal(searched.state.state_dict(), other.state.state_dict())
    assert searched.state.parts == other.state.parts and searched.state.rates == other.state.rates
    assert epoch_of(searched) == epoch_of(other)
    one, two = (each.state.state_dict() for each in (searched, other))
    assert_equal({**one, "seconds": 0, "sums": 0}, {**two, "seconds": 0, "sums": 0})


def test_whatever_is_drawn_and_split_meanwhile_is_as_before(tiny: Config) -> None:
    """All three sources of random numbers, the rates, and how batches are split."""
    training = prepare(tiny)
    training.state.parts, training.state.rates = {0: 2}, [0.25] * len(training.state.rates)

    def numbers() -> list[object]:
        return [random.random(), np.random.rand(), torch.rand(1).item()]  # noqa: NPY002

    def report(done: int, total: int) -> None:
        numbers()
        training.state.parts[0] = 4

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    expected = numbers()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    search(training, steps=10, report=report)  # type: ignore[arg-type]
    assert numbers() == expected
    assert training.state.parts == {0: 2} and {*training.state.rates} == {0.25}


def test_a_run_that_stands_in_the_middle_is_left_as_it_is(tiny: Config) -> None:
    searched, other = prepare(tiny), prepare(tiny)
    for training in (searched, other):
        epoch_of(training)
        training.state.seconds, training.state.sums = 0.0, {}
        training.state.epoch, training.state.seen = 1, 0
    before, state = searched.state.usage.clone(), searched.state
    taken: list[float] = []
    assert state.step > 0
    search(
        searched, steps=12, low=1e-9, high=1e-8, report=lambda *of: taken.append(max(state.rates))
    )
    assert taken[0] == pytest.approx(1e-9)  # from its own first step on, not the run's
    assert torch.equal(searched.state.usage, before)
    assert epoch_of(searched) == epoch_of(other)


def test_a_training_after_it_is_that_without_it(tiny: Config, tmp_path: Path) -> None:
    line = f"lr-find --preset tiny --device cpu --steps 12 --dataset-path {tiny.dataset_path}"
    files = f"--cache-dir {tiny.cache_dir} --json {tmp_path / 'a.json'} --picture {tmp_path}/a.png"
    weights = []
    for name in ("without", "after"):
        if name == "after":
            kept = f"--checkpoint-dir {tmp_path / 'without'}"
            files_before = sorted((tmp_path / "without").iterdir())
            times = [path.stat().st_mtime_ns for path in files_before]
            assert cli.main(shlex.split(f"{line} {files} {kept}")) == 0
            assert sorted((tmp_path / "without").iterdir()) == files_before
            assert [path.stat().st_mtime_ns for path in files_before] == times
        run = fit(tiny.replace(checkpoint_dir=str(tmp_path / name)))
        weights.append(run.load("last")["net"])
    assert_equal(*weights)
    values = json.loads((tmp_path / "a.json").read_text())
    assert len(values["rates"]) == len(values["losses"]) <= 12
    assert values["usual"] == tiny.lr and "These settings train with 0.002" in values["sentence"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_steps_are_those_of_training_at_the_rates_that_are_told(tiny: Config) -> None:
    """With a rate that hardly moves anything, the first losses are those of the first epoch."""
    found = search(prepare(tiny), steps=10, low=1e-12, high=1e-11)
    training = prepare(tiny)
    state, settings, loaders = training.state, step_settings(training.config), Loaders(training)
    with contextlib.closing(loaders.feed):
        batches = loaders.epoch(training.plan.stages[0], 0, 0)
        first = next(iter(EpochSteps(state, training.plan, batches, settings)))
    assert found.losses[0] == first["loss"]
    assert found.rates == pytest.approx(np.geomspace(1e-12, 1e-11, 10))


def test_it_ends_where_the_loss_diverges(tiny: Config) -> None:
    found = search(prepare(tiny.replace(clip=1e6)), steps=60, low=1e-3, high=1e6)
    assert found.ended == "diverged" and len(found.losses) < 60


def test_the_proposal_is_a_tenth_of_the_rate_of_the_least_loss() -> None:
    rates = np.geomspace(1e-6, 1, 100)
    rng = np.random.default_rng(0)
    curve = 2 - 1.2 * np.exp(-((np.log10(rates) + 2) ** 2)) + 0.02 * rng.standard_normal(100)
    found = propose(rates, curve, smooth(curve))
    assert found is not None and 5e-4 < found < 2e-3
    rising = 2 + 0.1 * np.arange(100)
    assert propose(rates, rising, smooth(rising)) is None
    assert math.isfinite(sum(smooth([*curve, math.inf])))


@pytest.mark.parametrize("how", [{"steps": 3}, {"low": 0.0}, {"low": 0.1, "high": 0.01}])
def test_bounds_that_cannot_work_are_refused(tiny: Config, how: dict[str, float]) -> None:
    with pytest.raises(InputError, match="give rates above 0"):
        search(prepare(tiny), **how)


# --- by hand


FOUND = Rates(
    rates=[1e-4, 1e-3, 1e-2],
    losses=[2.0, 1.0, math.inf],
    smoothed=[1.5, 1.25, 1.0],
    proposal=1.234e-4,
    usual=2e-3,
    effective=24,
    stage="two (all)",
    flag="--stage2-lr",
    ended="diverged",
)
USUAL = "These settings train with 0.002 at the peak (stage two (all))."


def test_the_proposal_is_told_whole() -> None:
    said = (
        f"Proposed: --stage2-lr 0.00012 at 24 images a step, a 10th of the rate at which the loss "
        f"was least. {USUAL} The proposal is a starting point, found in 3 steps: which rate ends "
        "best, only whole trainings tell."
    )
    assert FOUND.sentence() == said
    none = dataclasses.replace(FOUND, proposal=None)
    assert none.sentence() == (
        f"No rate is proposed: the loss did not fall by more than it scatters. {USUAL} Take more "
        "steps (--steps 300), or larger batches."
    )
    assert FOUND.to_json() == {
        "rates": [1e-4, 1e-3, 1e-2],
        "losses": [2.0, 1.0, None],
        "smoothed": [1.5, 1.25, 1.0],
        "proposal": 1.234e-4,
        "usual": 2e-3,
        "effective": 24,
        "stage": "two (all)",
        "flag": "--stage2-lr",
        "ended": "diverged",
        "sentence": said,
    }


def test_a_loss_is_averaged_by_a_bell_of_three_steps() -> None:
    near, far = math.exp(-1 / 18), math.exp(-4 / 18)
    whole = [2.0, 4.0, 8.0]
    assert smooth(whole) == pytest.approx(
        [
            (2 + 4 * near + 8 * far) / (1 + near + far),
            (2 * near + 4 + 8 * near) / (1 + 2 * near),
            (2 * far + 4 * near + 8) / (1 + near + far),
        ]
    )
    gap = smooth([2.0, math.nan, 8.0])  # a loss that is no number is left out
    ends = (2 + 8 * far) / (1 + far), (2 * far + 8) / (1 + far)
    assert gap == pytest.approx([ends[0], 5.0, ends[1]])
    assert smooth([math.inf]) == [0.0] and smooth([]) == []


@pytest.mark.parametrize(
    ("losses", "smoothed", "found"),
    [
        # gaps of .1, 0 and .1 scatter by .047; the last one comes after the least
        ([1.1, 0.6, 0.4, 9.0], [1.0, 0.6, 0.3, 0.5], 0.04),
        ([1.1, 0.6, 0.4, 9.0], [0.34, 0.6, 0.3, 0.5], None),  # fell by .04, scatters by .33
        ([1.1, 0.6, 0.4, 0.4], [1.0, 0.6, 0.5, 0.3], 0.08),
        ([0.5, 0.6, 0.7, 0.8], [0.5, 0.6, 0.7, 0.8], None),  # it never fell
        ([math.inf, 0.6, 0.4, 0.8], [1.0, 0.6, 0.3, 0.5], None),
    ],
)
def test_a_rate_is_proposed_where_the_loss_fell_by_more_than_it_scatters(
    losses: list[float], smoothed: list[float], found: float | None
) -> None:
    with np.errstate(invalid="ignore"):
        proposed = propose([0.1, 0.2, 0.4, 0.8], losses, smoothed)
    assert proposed == (None if found is None else pytest.approx(found))


@pytest.mark.parametrize(
    ("losses", "ends"),
    [
        ([math.nan], True),
        ([1.0, math.inf], True),
        ([1.0] * 10 + [6.5], True),  # the last five are 2.1 in the mean, of 1
        ([1.0] * 10 + [5.9], False),  # 1.98
        ([1.0] * 9 + [99.0], False),  # ten steps tell nothing yet
        ([1.0] * 6 + [9.0] * 5, True),
        ([9.0] + [1.0] * 10 + [3.5] * 2, False),  # 2.0
        ([9.0] + [1.0] * 10 + [3.6] * 2, True),  # 2.04
    ],
)
def test_it_diverges_at_twice_the_least_mean_of_five(losses: list[float], ends: bool) -> None:
    assert _diverges(losses) is ends


def test_bounds_that_cannot_work_are_told_whole(tiny: Config) -> None:
    with pytest.raises(InputError) as caught:
        search(prepare(tiny), steps=9, low=0.01, high=0.1)
    assert str(caught.value) == (
        "--from 0.01 --to 0.1 --steps 9: give rates above 0, the second higher than the first, and "
        "10 steps or more, as --from 1e-06 --to 1 --steps 100."
    )
    with pytest.raises(InputError):
        search(prepare(tiny), steps=10, low=0.1, high=0.1)


def test_the_search_names_its_stage_and_reports_each_step(tiny: Config) -> None:
    """Stage two, in steps of 2 x 2 images; the epoch is gone through again where it is short."""
    config = tiny.replace(skip_stage1=True, stage2_lr=7e-4, stage2_batch_size=2)
    told: list[tuple[int, int]] = []
    how = {"steps": 15, "low": 1e-6, "high": 1e-4}
    found = search(
        prepare(config.replace(accumulation_steps=2)),
        report=lambda *done: told.append(done),  # type: ignore[arg-type]
        **how,  # type: ignore[arg-type]
    )
    assert (found.usual, found.effective, found.stage) == (7e-4, 4, "two (all)")
    assert (found.flag, found.ended) == ("--stage2-lr", "all steps taken")
    assert told == [(step, 15) for step in range(1, 16)]
    assert found.rates == pytest.approx(np.geomspace(1e-6, 1e-4, 15))
    assert found.smoothed == smooth(found.losses)
    first = search(prepare(tiny), steps=10, low=1e-6, high=1e-5)
    assert (first.flag, first.stage, first.effective) == ("--lr", "one", 4)


def test_the_backbone_has_its_share_of_each_rate(tiny: Config) -> None:
    """From .01 to 1 in five steps, ratios of the root of ten; a third is the backbone's."""
    training = prepare(tiny.replace(backbone_lr_factor=0.3))
    where = {"state": training.state, "begun": 7, "low": 0.01, "high": 1.0, "steps": 5}
    sweep = _Sweep(**vars(training.plan), **where)
    assert [sweep.rate(step) for step in range(5)] == pytest.approx(
        [0.01, 0.01 * 10**0.5, 0.1, 0.1 * 10**0.5, 1.0]
    )
    training.state.step = 9
    assert [sweep.lr(1.5, block) for block in (None, 1, 4)] == pytest.approx([0.1, 0.03, 0.03])
    assert [sweep.lr(0.5, block) for block in (None, 1, 4)] == pytest.approx([0.1, 0.0, 0.0])
