"""What a training costs: measured by the steps that will run, which leave nothing behind."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import pytest
import torch

from camoxpert_nb.machine.devices import GIB
from camoxpert_nb.machine.distributed import ALONE
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import cost as cost_module
from camoxpert_nb.training.cost import (
    Costs,
    StepCost,
    Steps,
    _time_validation,
    measure_costs,
    measure_step,
    noise,
    run_steps,
    untouched,
)
from camoxpert_nb.training.prepare import Training, prepare, step_settings


@pytest.fixture
def training(tiny: Config) -> Training:
    found = prepare(tiny)
    found.state.open_blocks(4)
    return found


def test_memory_is_a_line_through_two_batches(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def steps(state: object, settings: object, size: int, batch: int, steps: int = 9) -> Steps:
        tried.append(batch)
        return Steps(seconds=0.1 * batch, peak_bytes=(5 + 2 * batch) * GIB, loss=1.0)

    monkeypatch.setattr(cost_module, "run_steps", steps)
    settings = step_settings(training.config)
    for batch, wanted in ((8, [4, 8]), (1, [1, 2]), (3, [3, 6])):
        tried.clear()
        found = measure_step(training.state, settings, 64, batch)
        assert tried == wanted
        assert (found.gib(0), found.gib(10)) == (5.0, 25.0)
    assert measure_step(training.state, settings, 64, 8).seconds_per_image == pytest.approx(0.1)


def test_the_step_is_the_one_that_will_run(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch, its accumulation, its losses, its optimiser and its average."""
    from camoxpert_nb.training.train import train_step

    seen = []

    def counted(state: object, group: list[dict[str, torch.Tensor]], *rest: object) -> object:
        seen.append([len(batch["index"]) for batch in group])
        return train_step(state, group, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cost_module, "train_step", counted)
    config = training.config.replace(accumulation_steps=3)
    before = copy.deepcopy(training.state.ema)
    found = run_steps(training.state, step_settings(config), 64, 4, steps=2)
    assert seen == [[4, 4, 4]] * 3  # one warms up
    assert found.seconds > 0 and found.loss > 0
    assert training.state.optimizer.state and before is not None and training.state.ema
    pairs = zip(before.parameters(), training.state.ema.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_a_processes_memory_is_what_the_system_says(training: Training) -> None:
    settings = step_settings(training.config)
    small = run_steps(training.state, settings, 64, 2, steps=0)
    # so large that its tensors are not put into memory which the process has free
    large = run_steps(training.state, settings, 64, 256, steps=0)
    kept = 256 * 3 * 64 * 64 * 4  # the images alone, as float32
    assert large.peak_bytes > small.peak_bytes + 2 * kept


def test_what_was_tried_leaves_no_trace(training: Training) -> None:
    state = training.state
    run_steps(state, step_settings(training.config), 64, 2, steps=1)
    state.open_blocks(0)
    before = copy.deepcopy(state.state_dict())
    with untouched(state):
        state.open_blocks(4)
        run_steps(state, step_settings(training.config), 64, 4, steps=2)
    after = state.state_dict()
    assert state.opened == 0
    assert before["step"] == after["step"] and before["scaler"] == after["scaler"]
    for name in ("net", "ema"):
        assert all(torch.equal(before[name][key], after[name][key]) for key in before[name])
    for key, moments in before["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, after["optimizer"]["state"][key][name])


def test_the_whole_cost_has_every_stage_and_what_is_between(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_module, "STEADY", 0.1)
    costs = measure_costs(training)
    assert set(costs.steps) == {stage.open_blocks for stage in training.plan.stages}
    stage = training.plan.stages[-1]
    step = costs.steps[stage.open_blocks]
    assert step.images == stage.batch
    assert costs.epoch(stage) == stage.steps * step.seconds + costs.validation + costs.saving
    assert costs.validation > 0 and costs.saving > 0
    assert costs.per_image(1)[stage.open_blocks] == step.seconds / stage.batch


def test_an_epoch_is_its_steps_and_what_follows_them(training: Training) -> None:
    step = StepCost(images=8, seconds=2.0, fixed_bytes=0, bytes_per_image=0)
    costs = Costs({4: step, 0: step}, validation=3.0, saving=0.5, decoding=7.0)
    stage = replace(training.plan.stages[-1], open_blocks=4, steps=10)
    assert (costs.between, costs.epoch(stage)) == (3.5, 23.5)
    assert costs.epoch(replace(stage, area=0.25)) == 0.25 * 10 * 2.0 + 3.5
    assert costs.per_image(1)[4] == 0.25
    assert costs.per_image(2)[4] == 0.5  # two GPUs of a process share its images


@pytest.mark.parametrize(("accumulation", "images"), [(1, 8), (3, 24)])
def test_a_step_costs_all_batches_that_it_adds_up(
    training: Training, monkeypatch: pytest.MonkeyPatch, accumulation: int, images: int
) -> None:
    measured = Steps(seconds=6.0, peak_bytes=GIB, loss=1.0)
    monkeypatch.setattr(cost_module, "run_steps", lambda *how: measured)
    settings = step_settings(training.config.replace(accumulation_steps=accumulation))
    found = measure_step(training.state, settings, 64, 8)
    assert (found.images, found.seconds_per_image) == (images, 6.0 / images)


@pytest.mark.parametrize(
    ("average", "world", "passes"),
    [(True, 1, 2 * 12), (False, 1, 12), (False, 5, 3)],  # a fifth of 12, rounded up
)
def test_validation_costs_every_batch_of_all_weights(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, average: bool, world: int, passes: int
) -> None:
    """Each batch, of one image, takes a second of a clock that stands still otherwise."""
    training = prepare(tiny.replace(use_ema=average, stage2_batch_size=1))
    training.data = replace(training.data, validation=[*training.data.train][:12])
    training.ranks = replace(ALONE, world=world)
    clock, timed = [0.0], []

    def validate(net: object, batches: list[dict[str, torch.Tensor]], **how: object) -> None:
        timed.append([len(batch["index"]) for batch in batches])
        clock[0] += len(batches)

    monkeypatch.setattr(cost_module, "validate", validate)
    monkeypatch.setattr(cost_module.time, "perf_counter", lambda: clock[0])
    assert _time_validation(training) == passes
    assert timed == [[1] * min(passes, 4)]  # a few of them tell


def test_images_of_both_sides_are_decoded(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_module, "STEADY", 0.0)
    monkeypatch.setattr(cost_module, "seconds_to_decode", lambda pairs, *how: float(len(pairs)))
    every = len(training.data.train) + len(training.data.validation)
    assert measure_costs(training).decoding == every


def test_a_step_that_takes_long_is_not_repeated(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def slow(*rest: object) -> dict[str, float]:
        calls.append(1)
        time.sleep(0.06)
        return {"loss": 1.0}

    monkeypatch.setattr(cost_module, "train_step", slow)
    monkeypatch.setattr(cost_module, "STEADY", 0.05)
    found = run_steps(training.state, step_settings(training.config), 64, 2)
    assert len(calls) == 2 and found.seconds == pytest.approx(0.06, abs=0.03)


def test_noise_looks_like_a_batch() -> None:
    batch = noise(3, 64)
    assert batch["image"].shape == (3, 3, 64, 64) and batch["image"].dtype == torch.uint8
    assert set(batch["mask"].unique().tolist()) == {0, 1}
    assert StepCost(2, 1.0, 0, GIB).gib(3) == 3.0
