"""The captured step: when it is captured, what it reads, what happens where it cannot be.

A stand-in takes the GPU's place: it captures by remembering the work, and replays by doing it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from training.test_fit import assert_equal_runs, stop_after
from training.test_train import WEIGHTS, make_batch

from camoxpert_nb.machine.devices import Devices, Precision
from camoxpert_nb.network.build import build_net
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.graph import WARM_UP, StepGraph, make_graph
from camoxpert_nb.training.prepare import build_state, prepare, step_settings
from camoxpert_nb.training.train import train_step

T = TypeVar("T")
CPU = torch.device("cpu")


class StandIn:
    """Notes what it was asked; `error` is raised by each capture."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, list[str]()

    def warm_up(self, work: Callable[[], T]) -> T:
        self.asked.append("warm")
        return work()

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        self.asked.append("capture")
        if self.error:
            raise self.error

        def replay() -> T:
            self.asked.append("replay")
            return work()

        return replay


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Callable[[StandIn], None]:
    """Have trainings capture by this stand-in."""

    def use(recorder: StandIn) -> None:
        def made(*_: Any, recover: Any, **__: Any) -> StepGraph:
            return StepGraph(recorder, CPU, recover=recover)

        monkeypatch.setattr("camoxpert_nb.training.prepare.make_graph", made)

    return use


@pytest.fixture
def config(tiny: Config) -> Config:
    return tiny.replace(epochs=2, batch_size=3, accumulation_steps=2, uncertainty=0.3)


def test_replayed_steps_are_the_eager_ones(
    config: Config, tmp_path: Path, captured: Callable[[StandIn], None]
) -> None:
    """Rates, weights of losses and the average's decay change from step to step in both."""
    eager = fit(config)
    captured(recorder := StandIn())
    graphed = fit(config.replace(checkpoint_dir=str(tmp_path / "graphed")))
    replayed = graphed.load("last")["step"] - 2 * WARM_UP
    assert recorder.asked.count("capture") == 2  # one for each stage
    assert recorder.asked.count("replay") == replayed > 0
    assert all(record["graph_percent"] > 0 for record in graphed.records("epoch"))
    assert notes_of(graphed) == []
    assert_equal_runs(eager, graphed)


def notes_of(run: Run) -> list[str]:
    """Return what is noted of captured steps."""
    return [n["message"] for n in run.records("note") if "captured" in n["message"]]


def test_a_captured_training_goes_on_exactly(
    config: Config, tmp_path: Path, captured: Callable[[StandIn], None]
) -> None:
    whole = fit(config)
    captured(StandIn())
    parts = config.replace(checkpoint_dir=str(tmp_path / "parts"))
    fit(parts, report=stop_after(WARM_UP + 1))
    assert_equal_runs(whole, fit(parts, resume=True))


def test_a_capture_that_fails_is_said_once_and_changes_nothing(
    config: Config, tmp_path: Path, captured: Callable[[StandIn], None]
) -> None:
    eager = fit(config)
    captured(recorder := StandIn(RuntimeError("operation not permitted when capturing\nmore")))
    run = fit(config.replace(checkpoint_dir=str(tmp_path / "failed")))
    (note,) = notes_of(run)
    assert note == (
        "the step could not be captured as a CUDA graph and runs as it is, launch by launch "
        "(RuntimeError: operation not permitted when capturing)."
    )
    assert recorder.asked == ["warm"] * WARM_UP + ["capture"]
    assert_equal_runs(eager, run)


def test_under_a_scaler_a_failed_capture_leaves_it_ready(
    tiny: Config, captured: Callable[[StandIn], None]
) -> None:
    class BreaksOff(StandIn):
        def record(self, work: Callable[[], T]) -> Callable[[], T]:
            state.scaler.unscale_(state.optimizer)  # as far as it came
            raise RuntimeError("no")

    class Scaled(Precision):
        scaled = True  # type: ignore[assignment]

    captured(BreaksOff())
    net, devices, settings = build_net(tiny), Devices("cpu", (), ""), step_settings(tiny)
    state = build_state(tiny, net, devices, Scaled(None, "as on an older GPU"))
    state.open_blocks(4)
    for _ in range(WARM_UP + 2):
        assert train_step(state, [make_batch(4)], settings, WEIGHTS)["skipped"] == 0
    assert state.averaged == WARM_UP + 2


def test_another_shape_is_not_replayed_and_another_stage_is_captured_anew() -> None:
    recorder = StandIn()
    graph = StepGraph(recorder, CPU)

    def run(stage: int, images: int) -> Any:
        return graph.run(stage, [make_batch(images)], lambda batches: len(batches[0]["index"]))

    assert [run(0, 4) for _ in range(WARM_UP + 2)] == [4] * (WARM_UP + 2)
    assert run(0, 3) is None  # the last, smaller one: the graph stays
    assert run(0, 4) == 4
    assert recorder.asked.count("capture") == 1
    assert run(1, 3) == 3
    assert recorder.asked[-1] == "warm" and not graph.captured
    assert run(1, 4) == 4  # not captured yet: the warm-up begins anew
    assert [run(1, 4) for _ in range(WARM_UP)] == [4] * WARM_UP
    assert recorder.asked[-2:] == ["capture", "replay"]


def test_a_replay_reads_the_new_batch() -> None:
    graph, seen = StepGraph(StandIn(), CPU), []
    for number in range(WARM_UP + 3):
        batch = make_batch(2, seed=number)
        graph.run(0, [batch], lambda batches: seen.append(batches[0]["image"].clone()))
        assert torch.equal(seen[-1], batch["image"])
    assert graph.captured


def test_what_is_loaded_is_captured_anew(tiny: Config, captured: Callable[[StandIn], None]) -> None:
    captured(StandIn())
    state = prepare(tiny).state
    state.open_blocks(0)
    for _ in range(WARM_UP + 1):
        train_step(state, [make_batch(4)], step_settings(tiny), WEIGHTS)
    assert state.graph.captured
    state.load_state_dict(copy.deepcopy(state.state_dict()))
    assert not state.graph.captured and state.graph.due


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("dp", {}, "exchanged"),
        ("ddp", {}, "exchanged"),
        ("one", {"checkpointing": True}, "--gradient-checkpointing"),
        ("one", {"wanted": False}, ""),
    ],
)
def test_where_nothing_is_captured_it_is_said_why(
    kind: str, options: dict[str, bool], words: str
) -> None:
    how = {"wanted": True, "checkpointing": False, **options}
    graph = make_graph(Devices(kind, (0,), ""), recover=lambda: None, **how)
    assert words in graph.note and bool(graph.note) == bool(words)
    assert graph.run(0, [make_batch(2)], lambda batches: 1) is None
    assert make_graph(Devices("cpu", (), ""), recover=lambda: None, **how).note == ""


def test_a_run_that_may_not_capture_says_so(tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    why = "the step is not captured: because."
    monkeypatch.setattr(
        "camoxpert_nb.training.prepare.make_graph", lambda *_, **__: StepGraph(note=why)
    )
    run: Run = fit(tiny)
    assert [record["message"] for record in run.records("note")] == [why]
