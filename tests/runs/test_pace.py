"""The time left knows that stage two is slower, and does not count pauses."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from camoxpert_nb.runs.pace import WHOLE, Pace, clock, estimate_of
from camoxpert_nb.runs.records import Watch
from camoxpert_nb.runs.run import Run

STAGES: list[dict[str, Any]] = [
    {"name": "one", "first_epoch": 0, "epochs": 2, "steps": 10, "open_blocks": 0, "batch": 8},
    {"name": "two", "first_epoch": 2, "epochs": 3, "steps": 10, "open_blocks": 4, "batch": 8},
]
COSTS = {"one": 1.0, "two": 2.5}
BETWEEN = 4.0  # seconds of validation


def records(every: int = 1, pauses: dict[int, float] | None = None) -> list[dict[str, Any]]:
    """The records of that training: a step of stage two takes 2.5 times as long."""
    now, step, found = 0.0, 0, []
    for stage in STAGES:
        for epoch in range(stage["first_epoch"], stage["first_epoch"] + stage["epochs"]):
            same = {"epoch": epoch + 1, "stage": stage["name"]}
            for left in range(stage["steps"] - 1, -1, -1):
                step += 1
                now += COSTS[stage["name"]] + (pauses or {}).get(step, 0.0)
                if left and left % every == 0:
                    found.append({**same, "kind": "step", "time": now, "step": step, "steps": 50})
            now += BETWEEN
            found.append({**same, "kind": "epoch", "time": now, "step": step})
    return found


def told(stages: Any, estimate: Any, heard: list[dict[str, Any]]) -> float | None:
    pace = Pace(stages, estimate)
    for record in heard:
        pace.hear(record)
    return pace.seconds_left()


def truth(heard: list[dict[str, Any]]) -> float:
    return float(records()[-1]["time"] - heard[-1]["time"])


MEASURED = [{"name": "one", "seconds_per_epoch": 10.0}, {"name": "two", "seconds_per_epoch": 25.0}]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("part", [0.25, 0.5, 0.8])
def test_with_what_a_dry_run_measured_it_is_right_from_the_first_epoch_on(
    every: int, part: float
) -> None:
    every_record = records(every)
    heard = every_record[: int(part * len(every_record))]
    assert told(STAGES, MEASURED, heard) == pytest.approx(truth(heard), rel=0.03)


def test_without_one_the_slower_stage_is_reckoned_with() -> None:
    heard = records()[:15]  # in the second epoch
    expected = 5 * 1.0 + 30 * WHOLE + 4 * BETWEEN
    assert told(STAGES, (), heard) == pytest.approx(expected, rel=0.05)
    in_stage_two = records()[:28]
    assert told(STAGES, (), in_stage_two) == pytest.approx(truth(in_stage_two), rel=0.01)


def test_the_slow_first_steps_of_a_stage_make_no_jump() -> None:
    heard = records(pauses={22: 5.0})  # stage two begins with step 21
    before, after = (told(STAGES, MEASURED, heard[:number]) for number in (21, 22))
    assert before == pytest.approx(29 * 2.5 + 3 * BETWEEN)
    assert after == pytest.approx(28 * (4 * 2.5 + 7.5) / 5 + 3 * BETWEEN)  # not 28 x 7.5


def test_another_batch_is_another_step() -> None:
    halved = [STAGES[0], STAGES[1] | {"batch": 4, "steps": 20}]
    heard = [{**record, "steps": 80} if "steps" in record else record for record in records()[:15]]
    same = told(STAGES, (), records()[:15])
    assert told(halved, (), heard) == pytest.approx(same)


def test_a_smaller_image_is_a_smaller_step() -> None:
    grows = [STAGES[0] | {"area": 0.25}, STAGES[1] | {"area": 1.0}]
    heard = [r for r in records() if r["step"] <= 15]
    left = told(grows, [], heard)
    assert left == pytest.approx(5 * 1.0 + 30 * WHOLE * 4 + 4 * BETWEEN)
    assert told(STAGES, [], heard) == pytest.approx(5 * 1.0 + 30 * WHOLE + 4 * BETWEEN)


def test_a_pause_does_not_count() -> None:
    for step in (4, 8, 12):
        heard = records(pauses={step: 1000.0})[:15]
        unpaused = records()[:15]
        assert told(STAGES, MEASURED, heard) == pytest.approx(
            told(STAGES, MEASURED, unpaused), rel=0.01
        )


def test_older_records_and_odd_ones_give_what_can_be_known() -> None:
    assert told((), (), []) is told(STAGES, (), records()[:1]) is None
    assert told((), (), records()[:5]) == pytest.approx(45.0)
    assert told([{"name": "one"}], (), records()[:5]) == pytest.approx(45.0)
    ended = told(STAGES, (), records())
    assert ended == 0.0


def test_a_hand_edited_estimate_is_left_alone(tmp_path) -> None:
    run, number = Run(tmp_path), count()
    for text in ("{", "[]", '{"stages": 3}', '{"stages": [3, {"name": 1}, {"name": "one"}]}'):
        (tmp_path / "estimate.json").write_text(text)
        assert estimate_of(run) == [], next(number)
    Watch(run).refresh()


def test_a_step_that_was_not_timed_yet_is_that_of_the_dry_run() -> None:
    """Stage two has just begun: 10 steps an epoch, 25 seconds; three epochs are left of it."""
    heard = records()
    first = next(place for place, each in enumerate(heard) if each["stage"] == "two")
    left = told(STAGES, MEASURED, heard[: first + 1])
    assert left == pytest.approx(29 * 2.5 + 3 * BETWEEN)
    unmeasured = told(STAGES, (), heard[: first + 1])
    assert unmeasured == pytest.approx(29 * WHOLE + 3 * BETWEEN)  # by what such stages cost


def test_a_stage_is_soon_timed_by_itself_alone() -> None:
    heard = records()
    first = next(place for place, each in enumerate(heard) if each["stage"] == "two")
    seen = heard[: first + 6]  # five stretches between its first six steps
    assert told(STAGES, (), seen) == pytest.approx(truth(seen), rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0:00:00"), (425.4, "0:07:05"), (3599.6, "1:00:00"), (111600, "31:00:00")],
)
def test_a_duration_is_hours_minutes_and_seconds(seconds: float, said: str) -> None:
    assert clock(seconds) == said
