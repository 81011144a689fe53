from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training import budget, estimate
from camoxpert_nb.training.budget import (
    Forecast,
    fit_to_budget,
    how_far,
    minutes_left,
    minutes_to_train,
    spoken,
)
from camoxpert_nb.training.cost import Costs, StepCost
from camoxpert_nb.training.prepare import prepare
from camoxpert_nb.training.schedule import build_plan

GUIDE = make_config("balanced-2gpu")
PLAN = build_plan(GUIDE, images=2736, devices=2)
EVEN = dict.fromkeys(range(5), 0.1)


@pytest.fixture(autouse=True)
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CAMOXPERT_DEADLINE", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)


class TestTimeLeft:
    def test_where_nothing_ends_a_session_time_is_infinite(self) -> None:
        assert minutes_left() == math.inf
        assert minutes_to_train() == math.inf
        assert minutes_to_train(30) == 30

    def test_a_session_that_ends_leaves_a_reserve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CAMOXPERT_DEADLINE", str(time.time() + 620 * 60))
        assert minutes_left() == pytest.approx(620, abs=0.1)
        assert minutes_to_train() == pytest.approx(600, abs=0.1)
        assert minutes_to_train(700) == pytest.approx(600, abs=0.1)
        assert minutes_to_train(500) == 500

    def test_what_has_passed_and_what_is_left_are_a_session(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert budget.minutes_gone() == 0.0
        monkeypatch.setenv("CAMOXPERT_DEADLINE", str(time.time() + 3600))
        assert budget.minutes_gone() + minutes_left() == pytest.approx(budget.SESSION)

    def test_a_wish_counts_from_where_it_began_and_the_session_from_its_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of 60 minutes 25 are over; a session of 12 hours began 2 hours ago."""
        assert minutes_to_train(60, 25) == 35
        assert minutes_to_train(60, 70) == 0
        assert minutes_to_train(0, 70) == math.inf
        now = time.time()
        monkeypatch.setattr(budget.time, "time", lambda: now)
        assert budget.ends_at(60, now - 25 * 60) == pytest.approx(now + 35 * 60)
        assert budget.ends_at(60) == pytest.approx(now + 3600)
        monkeypatch.setenv("CAMOXPERT_DEADLINE", str(now + 10 * 3600))
        assert budget.minutes_gone() == pytest.approx(120)
        assert minutes_to_train(0) == pytest.approx(580)
        assert budget.ends_at(0, now - 3600) == pytest.approx(now + 580 * 60)

    def test_a_deadline_of_any_other_machine_can_be_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CAMOXPERT_DEADLINE", str(time.time() + 3600))
        assert minutes_to_train() == pytest.approx(40, abs=0.1)

    def test_a_training_that_could_not_be_saved_does_not_start(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CAMOXPERT_DEADLINE", str(time.time() + 10 * 60))
        with pytest.raises(InputError, match=r"ends in 10 minutes.*Save & Run All"):
            minutes_to_train()


class TestForecast:
    def test_time_adds_up_over_stages_and_devices(self) -> None:
        whole = how_far(PLAN, EVEN, math.inf)
        images = sum(s.epochs * s.steps * s.batch for s in PLAN.stages)  # of one device
        assert whole.hours == pytest.approx(images * 0.1 / 3600)
        assert (whole.fits, whole.sessions) == (140, 1)
        assert "fits all 140 epochs" in str(whole)

    @pytest.mark.parametrize(
        ("minutes", "said"),
        [
            (0.0, "less than a minute"),
            (0.4, "less than a minute"),
            (1.0, "1 min"),
            (59.6, "1 h"),
            (65.0, "1 h 5 min"),
            (720.0, "12 h"),
        ],
    )
    def test_times_are_said_as_people_say_them(self, minutes: float, said: str) -> None:
        assert spoken(minutes) == said
        told = str(Forecast(3, 3, minutes / 60, minutes, 1, 0.0))
        assert told == f"fits all 3 epochs into this session: {said} of training"
        one = str(Forecast(1, 1, minutes / 60, minutes, 1, 0.0))
        assert one.startswith("fits its one epoch into this session")

    def test_half_the_time_of_even_epochs_fits_half_of_them(self) -> None:
        config = GUIDE.replace(stage2_batch_size=16)
        plan = build_plan(config, images=3200, devices=2)
        whole = how_far(plan, EVEN, math.inf)
        assert how_far(plan, EVEN, whole.minutes / 2 + 0.01).fits == 70

    def test_the_sentence_says_what_to_expect(self) -> None:
        hours = how_far(PLAN, EVEN, math.inf).hours
        seconds = dict.fromkeys(range(5), 0.1 * 14 / hours)
        seen = how_far(PLAN, seconds, 700 - 1e-6)
        assert str(seen) == (
            f"fits {seen.fits} of 140 epochs; stops 11 h 40 min after the session began, "
            "with a resume point; needs 2 sessions, about 14 of your 30 hours a week"
        )
        assert 100 < seen.fits < 140

    def test_what_is_done_is_not_counted_again(self) -> None:
        half = (PLAN.stages[1].first_epoch, 7 * 24)
        rest = how_far(PLAN, EVEN, math.inf, place=half)
        before = how_far(PLAN, EVEN, 0.0, place=half)
        assert before.fits == PLAN.stages[1].first_epoch
        share = PLAN.steps_from(*half) / PLAN.steps_from(0)
        assert rest.hours / how_far(PLAN, EVEN, math.inf).hours == pytest.approx(share, abs=0.05)

    def test_a_training_by_hand(self) -> None:
        """Two epochs of 10 and three of 20 steps, of 8 and 4 images on each of two devices."""
        config = GUIDE.replace(
            epochs=5,
            stage1_epochs=2,
            batch_size=8,
            stage2_batch_size=4,
            progressive_unfreeze=False,
        )
        plan = build_plan(config, images=160, devices=2)
        seconds = {0: 0.5, 4: 1.0}  # 40 and 80 of an epoch, and 20 between two
        assert how_far(plan, seconds, math.inf).hours == pytest.approx(320 / 3600)
        whole = how_far(plan, seconds, math.inf, between=20)
        assert whole.hours == pytest.approx((2 * 60 + 3 * 100) / 3600)
        for minutes, fits in ((0.99, 0), (1.0, 1), (2.0, 2), (3.6, 2), (3.67, 3), (7.0, 5)):
            assert how_far(plan, seconds, minutes, between=20).fits == fits
        # In the third epoch, 80 of whose images are done: half of it is left, and the next ones.
        rest = how_far(plan, seconds, 2.0, between=20, place=(2, 80), elapsed=30.0, session=1.0)
        assert rest.hours == pytest.approx((60 + 100 + 100) / 3600)
        assert (rest.fits, rest.epochs, rest.minutes, rest.elapsed) == (3, 5, 2.0, 30.0)
        assert rest.sessions == 1 + 3  # 140 seconds more, in sessions of a minute
        assert "stops 32 min after the session began" in str(rest)
        exact = how_far(plan, seconds, 1.0, between=20, place=(4, 0), session=1.0)
        assert exact.sessions == 2  # 40 seconds more

    def test_small_images_take_as_much_less_as_they_have_pixels(self) -> None:
        """Three epochs of 10 steps of 16 images: a quarter, nine sixteenths and all of 80 s."""
        config = GUIDE.replace(epochs=3, stage1_epochs=0, batch_size=8, stage2_batch_size=8)
        grows = config.replace(progressive_unfreeze=False, img_size=256, start_size=128)
        found = how_far(build_plan(grows, images=160, devices=2), {4: 1.0}, 65 / 60)
        assert found.hours == pytest.approx(80 * (1 / 4 + 9 / 16 + 1) / 3600)
        assert found.fits == 2

    def test_later_sessions_keep_their_reserve(self) -> None:
        config = GUIDE.replace(epochs=1, stage1_epochs=0, progressive_unfreeze=False)
        plan = build_plan(config, images=240, devices=2)  # 10 steps of 12 images on each
        for minutes, sessions in ((700, 2), (701, 3), (1400, 3)):  # of 720 - 20 minutes each
            seconds = {4: 60 * minutes / 120}
            assert how_far(plan, seconds, 0.0).sessions == sessions

    def test_slower_stages_cost_what_they_cost(self) -> None:
        slow = {**EVEN, 4: 0.3}
        last = PLAN.stages[-1]
        more = last.epochs * last.steps * last.batch * 0.2 / 3600
        hours = how_far(PLAN, EVEN, math.inf).hours
        assert how_far(PLAN, slow, math.inf).hours == pytest.approx(hours + more)

    def test_what_stands_between_the_epochs_counts(self) -> None:
        hours = how_far(PLAN, EVEN, math.inf).hours
        assert how_far(PLAN, EVEN, math.inf, between=36).hours == pytest.approx(hours + 1.4)


class TestFitToBudget:
    def test_the_most_epochs_that_fit_with_stages_in_proportion(self) -> None:
        fitted = fit_to_budget(GUIDE, 2736, 2, EVEN, 300)
        assert how_far(build_plan(fitted, 2736, 2), EVEN, 300).sessions == 1
        longer = fitted.replace(epochs=fitted.epochs + 1)
        assert how_far(build_plan(longer, 2736, 2), EVEN, 300).sessions > 1
        assert fitted.stage1_epochs / fitted.epochs == pytest.approx(30 / 140, abs=0.01)
        assert fitted.replace(epochs=140, stage1_epochs=30, warmup_epochs=10) == GUIDE

    def test_validation_takes_its_part_of_the_time(self) -> None:
        epoch = 1368 * 0.1 / 60
        for between, epochs in ((0.0, 10), (1368 * 0.1, 5)):
            fitted = fit_to_budget(GUIDE, 2736, 2, EVEN, 10 * epoch + 0.01, between)
            assert fitted.epochs == epochs

    def test_what_fits_stays(self) -> None:
        assert fit_to_budget(GUIDE, 2736, 2, EVEN, math.inf) == GUIDE

    def test_any_number_of_epochs_is_a_training(self) -> None:
        epoch = 1368 * 0.1 / 60
        for epochs, first in ((1, 0), (2, 0), (3, 1)):
            fitted = fit_to_budget(GUIDE, 2736, 2, EVEN, epochs * epoch)
            assert (fitted.epochs, fitted.stage1_epochs) == (epochs, first)
        with pytest.raises(InputError, match="not even one epoch"):
            fit_to_budget(GUIDE, 2736, 2, EVEN, 0.9 * epoch)

    def test_what_the_recipe_decides_follows_the_epochs_that_fit(self) -> None:
        open_ = make_config("auto")
        fitted = fit_to_budget(open_, 2736, 2, EVEN, 300)
        assert fitted == open_.replace(epochs=fitted.epochs) and fitted.epochs < 140

    def test_a_skipped_stage_takes_no_time(self) -> None:
        alone = replace(GUIDE, skip_stage1=True)
        longer, usual = (fit_to_budget(c, 2736, 2, EVEN, 300).epochs for c in (alone, GUIDE))
        assert longer > usual

    def test_what_the_command_took_so_far_is_not_given_to_epochs(
        self, tiny: Config, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        step = StepCost(images=4, seconds=1.0, fixed_bytes=0, bytes_per_image=0)
        costs = Costs(dict.fromkeys(range(5), step), validation=1.0, saving=1.0, decoding=30.0)
        monkeypatch.setattr(estimate, "measure_costs", lambda training: costs)
        training = prepare(tiny.replace(epochs=1000, stage1_epochs=1, time_budget=10))
        epoch = costs.epoch(training.plan.stages[0])
        for passed in (0.0, 300.0):
            chosen = estimate.fitted(training, time.time() - passed)
            left = 600 - 30 - passed
            assert left - 2 * epoch < chosen.epochs * epoch <= left


@pytest.mark.parametrize(("kept", "copies"), [(0, 9), (1, 11), (3, 13)])
def test_a_disk_holds_two_states_one_best_and_the_best_epochs_with_one_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, copies: int
) -> None:
    """A million parameters of four bytes; 100 images of 500 x 500 pixels in four channels."""
    there, free = Path(tmp_path), copies * 4e6

    def usage(folder: Path) -> object:
        return SimpleNamespace(free=free)

    monkeypatch.setattr(budget.shutil, "disk_usage", usage)
    said = budget.disk_forecast(0, 500, 1_000_000, there / "cache", there / "run", kept)
    assert "checkpoints" in said
    free -= 1
    with pytest.raises(InputError, match="checkpoints need"):
        budget.disk_forecast(0, 500, 1_000_000, there / "cache", there / "run", kept)
    free = 1e8
    assert "images 0.1 GB" in budget.disk_forecast(100, 500, 1, there, there)
    free = 1e8 - 1
    with pytest.raises(InputError, match="images need"):
        budget.disk_forecast(100, 500, 1, there, there)
