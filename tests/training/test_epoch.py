"""The epoch's steps: numbers that are read late, and the split of the time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equal_runs import assert_equal_runs, stop_after
from poisoned import poison_loss
from slow_images import Slow, SlowToStart
from training.test_train import make_batch

from camoxpert_nb.data.batches import PairDataset
from camoxpert_nb.machine.distributed import ALONE
from camoxpert_nb.machine.gpu_use import verdict
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import epoch as module
from camoxpert_nb.training.epoch import EpochSteps, end_epoch, split_gpu_time, steps_in_flight
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.own import Own
from camoxpert_nb.training.prepare import prepare, step_settings


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read each step's numbers when the next one is queued, as on a GPU."""
    monkeypatch.setattr(module, "steps_in_flight", lambda device: 1)


@pytest.fixture
def config(tiny: Config) -> Config:
    return tiny.replace(epochs=3, batch_size=3)


def test_only_a_gpu_is_read_late() -> None:
    assert steps_in_flight(torch.device("cpu")) == 0
    assert steps_in_flight(torch.device("cuda", 0)) == 1


def test_a_late_reader_has_the_same_records_and_state(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = fit(config)
    monkeypatch.setattr(module, "steps_in_flight", lambda device: 1)
    assert_equal_runs(prompt, fit(config.replace(checkpoint_dir=str(tmp_path / "late"))))


@pytest.mark.parametrize("steps", [3, 7, 8])  # within an epoch of 8, and at its end
def test_a_stop_between_late_steps_saves_a_whole_state(
    config: Config, tmp_path: Path, late: None, steps: int
) -> None:
    whole = fit(config)
    parts = config.replace(checkpoint_dir=str(tmp_path / "parts"))
    run = fit(parts, report=stop_after(steps))
    saved = run.load("last")
    assert saved["step"] == min(steps + 1, 8)  # the one in flight was finished
    assert saved["epoch"] == saved["step"] // 8
    assert_equal_runs(whole, fit(parts, resume=True))


def test_a_late_step_that_is_not_finite_is_known_before_a_save(
    config: Config, late: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_loss(monkeypatch, math.nan, at=3)
    run = fit(config, report=stop_after(3))  # the fourth is in flight
    saved = run.load("last")
    assert (saved["step"], saved["averaged"], saved["skipped_in_row"]) == (4, 3, 1)
    assert saved["sums"]["skipped"] == 1
    assert all(torch.isfinite(value).all() for value in saved["net"].values())
    assert run.load_json("summary")["step"] == 4


def test_a_late_epoch_yields_each_step_once(tiny: Config, late: None) -> None:
    training = prepare(tiny)
    state = training.state
    steps = EpochSteps(
        state, training.plan, (make_batch(4, seed) for seed in range(5)), step_settings(tiny)
    )
    records = iter(steps)
    assert next(records)["step"] == 1 and state.step == 2 and state.averaged == 1
    assert [record["step"] for record in steps.settle()] == [2] and state.averaged == 2
    assert steps.settle() == []
    assert [record["step"] for record in records] == [3, 4, 5]
    assert state.sums["steps"] == 5


# --- where the time goes


@pytest.mark.parametrize(
    ("dataset", "workers", "bound", "words"),
    [
        (Slow, 0, "data", "Starved by data"),
        (SlowToStart, 1, "workers", "start of the loading processes"),
        (PairDataset, 0, "device", "the CPU's arithmetic"),
    ],
)
def test_the_verdict_names_what_was_slow_on_purpose(
    tiny: Config,
    monkeypatch: pytest.MonkeyPatch,
    dataset: Any,
    workers: int,
    bound: str,
    words: str,
) -> None:
    monkeypatch.setattr("camoxpert_nb.training.prepare.PairDataset", dataset)
    run = fit(tiny.replace(epochs=1, num_workers=workers))
    (record,) = run.records("epoch")
    shares = record["time_percent"]
    assert max(shares, key=shares.get) == bound, shares
    assert sum(shares.values()) == pytest.approx(100, abs=0.3)
    assert words in record["verdict"]
    assert record["data_wait_percent"] == pytest.approx(shares["data"], abs=0.1)


def test_the_advice_against_starvation_helps(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two loading processes instead of none, once they have started."""
    monkeypatch.setattr("camoxpert_nb.training.prepare.PairDataset", Slow)
    waits = []
    for workers in (0, 2):
        folder = str(tmp_path / f"with-{workers}")
        run = fit(tiny.replace(epochs=2, num_workers=workers, checkpoint_dir=folder))
        record = run.records("epoch")[1]
        waits.append(record["data_wait_percent"] * record["seconds"])
    assert waits[1] < 0.7 * waits[0]


SPLIT = {"workers": 0.0, "data": 0.0, "waited": 0.0, "replayed": False}


@pytest.mark.parametrize(
    ("gap", "span", "measured", "found"),
    [
        # The host had to wait for the GPU: it is full.
        (0.0, 0.1, {"waited": 0.06}, {"device": 0.1}),
        # It never did: within the step the GPU ran dry between launches.
        (0.0, 0.1, {"waited": 0.001}, {"host": 0.1}),
        # A graph is one launch: what it takes is the GPU's, what lies between two is the host's.
        (0.02, 0.03, {"replayed": True}, {"host": 0.02, "device": 0.03}),
        # Waiting for images costs only what the GPU idled.
        (0.0, 0.1, {"data": 0.05, "waited": 0.04}, {"device": 0.1}),
        (0.3, 0.1, {"data": 0.25, "waited": 0.09}, {"data": 0.25, "host": 0.05, "device": 0.1}),
        (
            5.0,
            0.1,
            {"workers": 4.8, "data": 0.1, "replayed": True},
            {"workers": 4.8, "data": 0.1, "host": 0.1, "device": 0.1},
        ),
    ],
)
def test_the_seconds_of_a_gpu_are_split_by_what_held_it_up(
    gap: float, span: float, measured: dict[str, Any], found: dict[str, float]
) -> None:
    split = split_gpu_time(gap, span, **(SPLIT | measured))
    assert split == pytest.approx(dict.fromkeys(module.TIMES, 0.0) | found)
    assert sum(split.values()) == pytest.approx(gap + span)


class Event:
    """A mark in a GPU's queue at a moment that was made up."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Event) -> float:
        return 1000 * (other.moment - self.moment)


@pytest.mark.parametrize(
    ("waited", "replayed", "bound", "words"),
    [
        (0.0, False, "host", "leave --cuda-graph on"),
        (0.08, False, "device", "Bound by compute"),
        (0.0, True, "device", "Bound by compute"),
    ],
)
def test_an_epoch_on_a_gpu_has_a_true_verdict(
    tiny: Config,
    monkeypatch: pytest.MonkeyPatch,
    waited: float,
    replayed: bool,
    bound: str,
    words: str,
) -> None:
    """Marks of a GPU that was full, or dry between launches, through the epoch's own record."""
    training, moments = prepare(tiny), iter(range(100))
    settle = module.settle

    def with_marks(state: Any, queued: Any) -> Any:
        now = next(moments) * 0.1
        queued.began, queued.ended, queued.replayed = Event(now), Event(now + 0.1), replayed
        return settle(state, queued)[0], waited

    monkeypatch.setattr(module, "settle", with_marks)
    batches: Iterator[Any] = (make_batch(4, seed) for seed in range(6))
    list(EpochSteps(training.state, training.plan, batches, step_settings(tiny)))
    record = end_epoch(training.state, training.plan) | {"gpu_memory_gib": [1.0]}
    assert record["time_percent"][bound] > 90
    assert record["images_per_second"] == pytest.approx(4 / 0.1, rel=0.2)
    assert record["graph_percent"] == 100 * replayed
    assert words in verdict(record)


def test_one_set_of_workers_serves_all_stages_and_loads_ahead(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.data import DataLoader

    made = []
    whole = DataLoader.__init__

    def counted(self: Any, *args: Any, **how: Any) -> None:
        made.append(how.get("num_workers"))
        whole(self, *args, **how)

    monkeypatch.setattr(DataLoader, "__init__", counted)
    run = fit(tiny.replace(stage2_batch_size=3, num_workers=1))
    assert [record["stage"] for record in run.records("epoch")] == ["one", "two (all)"]
    assert made.count(1) == 1
    assert Run(tiny.checkpoint_dir).records("epoch")[1]["time_percent"]["workers"] == 0.0


def test_a_step_is_recorded_with_its_own_rates_and_what_is_left(tiny: Config) -> None:
    """Those of the middle of each step, whose images it names; the epoch has its last step's."""
    config = tiny.replace(epochs=6, stage1_epochs=1, progressive_unfreeze=True, uncertainty=1.0)
    training = prepare(config.replace(batch_size=5, stage2_batch_size=4, augment=0))
    state, plan = training.state, training.plan
    state.epoch, stage = 3, plan.stage_at(3)
    assert (stage.open_blocks, stage.steps, plan.stages[0].steps) == (2, 6, 5)
    batches = (make_batch(4, seed) for seed in range(6))
    records = list(EpochSteps(state, plan, batches, step_settings(training.config)))
    for number, record in enumerate(records):
        middle = 3 + (number + 0.5) / 6
        rates = record["lr"]["head"], record["lr"]["backbone"]
        assert rates == pytest.approx((plan.lr(middle, None), plan.lr(middle, 1)))
        assert rates[1] > plan.lr(middle, 4) == 0
        assert (record["epoch"], record["step"], record["stage"]) == (4, number + 1, stage.name)
        assert record["steps"] == 6 + 2 * 6  # this epoch and the two after it
        share = 0.5 * (1 - math.cos(math.pi * (middle / 6 - 0.3) / 0.7))  # of all six epochs
        term = record["weighted"]["uncertainty"] / record["uncertainty"]
        assert term == pytest.approx(share, rel=1e-4)
    seconds = sum(record["seconds"] for record in records)
    assert state.seconds == state.sums["seconds"] == pytest.approx(seconds, rel=1e-9)
    assert seconds == pytest.approx(sum(state.sums[name] for name in module.TIMES), rel=1e-9)
    assert 0 < state.sums["data"] < seconds  # waiting counts as time
    epoch = end_epoch(state, plan)
    assert epoch["lr"] == records[-1]["lr"]
    assert epoch["data_wait_percent"] == pytest.approx(epoch["time_percent"]["data"], abs=0.1)


def test_an_epochs_terms_add_up_and_its_images_are_scored(config: Config) -> None:
    run = fit(config.replace(uncertainty=0.3))
    for record in (*run.records("epoch"), *run.records("step")):
        assert sum(record["weighted"].values()) == pytest.approx(record["loss"], abs=1e-5)
        assert 0 < record["train_iou"] < 1
    first, last = run.records("epoch")[0], run.records("epoch")[-1]
    assert first["weighted"]["uncertainty"] < last["weighted"]["uncertainty"] < 0.3
    assert last["weighted"]["structure"] == last["structure"]
    assert last["weighted"]["balance"] == pytest.approx(config.balance * last["balance"])


def test_the_training_iou_is_the_mean_over_images_with_an_object(config: Config) -> None:
    training = prepare(config.replace(augment=0))
    batches = [make_batch(3), make_batch(3, seed=1)]
    batches[0]["mask"][1:] = 0  # one image with an object, then three
    how = training.plan, batches, step_settings(training.config)
    first, second = EpochSteps(training.state, *how)
    record = end_epoch(training.state, training.plan)
    expected = (first["train_iou"] + 3 * second["train_iou"]) / 4
    assert record["train_iou"] == pytest.approx(expected)
    assert first["train_iou"] != pytest.approx(second["train_iou"])
    assert not {"ious", "objects"} & {*record, *first}
    assert not any("/" in name for name in record)


def test_a_step_counts_the_images_of_all_processes(config: Config) -> None:
    training = prepare(config)
    state = training.state
    state.ranks = dataclasses.replace(ALONE, world=3)
    state.ranks.__dict__["total"] = lambda values: 3 * values  # the others have the same
    batches = (make_batch(3, seed) for seed in range(2))
    first, second = EpochSteps(state, training.plan, batches, step_settings(config))
    assert state.seen == 2 * 3 * 3 and state.sums["images"] == 18
    for record in (first, second):
        assert record["images_per_second"] == pytest.approx(9 / record["seconds"])
    record = end_epoch(state, training.plan)
    assert record["loss"] == pytest.approx((first["loss"] + second["loss"]) / 2)
    shares = torch.tensor(record["gates"])
    assert shares.sum(1).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_an_epoch_without_objects_has_no_training_iou(config: Config) -> None:
    training = prepare(config)
    batch = make_batch(3)
    batch["mask"] = torch.zeros_like(batch["mask"])
    list(EpochSteps(training.state, training.plan, [batch], step_settings(training.config)))
    assert end_epoch(training.state, training.plan)["train_iou"] is None


@pytest.mark.parametrize(("accumulation", "waits"), [(1, [1.0] * 4), (2, [2.0, 2.0])])
def test_each_step_waits_for_its_own_batches(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, accumulation: int, waits: list[float]
) -> None:
    """Each takes a second to come, a quarter of it the start of workers; a step takes five."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])

    class Late:
        starting = 0.25

        def __iter__(self) -> Iterator[Any]:
            for seed in range(4):
                clock[0] += 1.0
                yield make_batch(1, seed)

    training = prepare(tiny)
    settings = dataclasses.replace(step_settings(tiny), accumulation=accumulation)
    found = []
    steps = EpochSteps(training.state, training.plan, Late(), settings)  # type: ignore[arg-type]
    for group, workers, data in steps._groups():
        assert len(group) == accumulation
        found.append((workers, data))
        clock[0] += 5.0
    assert found == [(0.25 * wait, 0.75 * wait) for wait in waits]


def test_a_pause_is_no_gap_of_the_gpu(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps in a row the marks tell it, after a pause the host's own clock."""
    training, clock = prepare(tiny), [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    steps = EpochSteps(training.state, training.plan, [], step_settings(tiny))
    queued = {"replayed": True}

    def times(began: float, idle: float) -> float:
        marks = {"began": Event(began), "ended": Event(began + 1)}
        step = SimpleNamespace(
            queued=SimpleNamespace(**queued, **marks), workers=0.0, data=0.0, idle=idle
        )
        return steps._times(step, 0.0)["host"]  # type: ignore[arg-type]

    assert times(10.0, 0.5) == 0.5  # nothing was before
    assert times(11.25, 9.0) == pytest.approx(0.25)
    assert steps.settle() == []
    assert times(500.0, 0.125) == 0.125


def test_images_grow_and_are_judged_at_their_full_size(config: Config) -> None:
    """One of three epochs each of 48 px, 64 and 64: the same images, smaller."""
    seen = []

    def area(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append((logits.shape[-1], mask.shape[-1]))
        return (logits.sigmoid() - mask).abs().mean((1, 2, 3))

    run = fit(config.replace(start_size=48), own=Own(loss=area))
    assert max(seen) == (64, 64) and seen.count((48, 48)) == 8  # the steps of an epoch
    assert [r["stage"] for r in run.records("epoch")] == [
        "one, 48 px",
        "two (blocks 3-4), 64 px",
        "two (all), 64 px",
    ]
    assert run.load_preview()["mask"].shape[-2:] == (64, 64)


def test_a_training_whose_images_grow_goes_on_exactly(config: Config, tmp_path: Path) -> None:
    grows = config.replace(start_size=32, epochs=6)
    whole = fit(grows)
    parts = grows.replace(checkpoint_dir=str(tmp_path / "parts"))
    fit(parts, report=stop_after(11))  # of small images, within the second epoch
    fit(parts, resume=True, report=stop_after(8))  # of whole ones
    assert_equal_runs(whole, fit(parts, resume=True))
    small = fit(config.replace(epochs=6, checkpoint_dir=str(tmp_path / "whole")))
    assert whole.records("epoch")[1]["structure"] != small.records("epoch")[1]["structure"]
