"""Whole runs that change their number of processes: nothing is lost, seen twice, or jumps.

One process trains alone; several are started by the kit's own launcher and talk over gloo.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from forked import Forked

from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.prepare import prepare
from camoxpert_nb.training.schedule import Plan, build_plan

# The launcher gives a CPU two processes; here as many as the test wants, which note their steps.
LAUNCHER = """
import camoxpert_nb.machine.devices as devices, camoxpert_nb.machine.distributed as distributed
devices.TRIAL_PROCESSES, start = {world}, distributed.start_ranks
distributed.start_ranks = lambda words, count: start(["watched_rank", *words[1:]], count)
"""
HERE = str(Path(__file__).parent)
ALONE = f"""
import sys
sys.path.insert(0, {HERE!r})
import watched_rank
watched_rank.watch_steps()
"""
NEVER = "epoch 99"


@pytest.fixture
def config(pair_config: Config, tmp_path: Path) -> Config:
    return pair_config.replace(
        epochs=6,
        stage1_epochs=1,
        batch_size=2,
        progressive_unfreeze=True,
        checkpoint_dir=str(tmp_path / "run"),
    )


def train(config: Config, stretches: list[tuple[int, str]], folder: Path) -> list[dict[str, Any]]:
    """Train in stretches of so many processes, each to its stop; return all their steps."""
    steps = []
    config.save(folder / "run.json")
    command = ["train", "--config", str(folder / "run.json")]
    for number, (world, stop) in enumerate(stretches):
        change = LAUNCHER.format(world=world) if world > 1 else ALONE
        parallel = ["--parallel", "ddp" if world > 1 else "none"]
        noted = folder / f"steps-{number}-"
        variables = {"STEPS": str(noted), "STOP_AT": stop}
        variables["PYTHONPATH"] = os.pathsep.join(
            filter(None, [HERE, os.environ.get("PYTHONPATH", "")])
        )
        process = Forked([*command, *parallel], folder / f"said-{number}.txt", change, **variables)
        code, said = process.ends(150)
        assert code == (0 if stop == NEVER else 130), said
        ranks = [Path(f"{noted}{rank}").read_text().splitlines() for rank in range(world)]
        rows = [[json.loads(line) for line in lines] for lines in ranks]
        assert {row["world"] for lines in rows for row in lines} == {world}
        for together in zip(*rows, strict=True):
            images = [image for row in together for image in row["images"]]
            steps.append(together[0] | {"images": images})
        command = ["resume", config.checkpoint_dir]
    return steps


# More, fewer, more again; within an epoch, at an epoch's end, within one.
ORDER = [(2, "step 5"), (3, "epoch 3"), (1, "step 30"), (2, NEVER)]


def test_any_order_of_processes_trains_the_whole_run(config: Config, tmp_path: Path) -> None:
    steps, run = train(config, ORDER, tmp_path), Run(config.checkpoint_dir)
    images = len(prepare(config).data.train)
    assert_whole(run, steps)
    assert_no_image_twice(steps, images)
    assert_one_schedule(config, steps, images)
    ends = [(record["kind"], record["step"]) for record in run.records()]
    stops = ["stop"] * (len(ORDER) - 1)
    assert [kind for kind, _ in ends if kind in ("stop", "end")] == [*stops, "end"]


def assert_whole(run: Run, steps: list[dict[str, Any]]) -> None:
    summary, epochs = run.load_json("summary"), run.records("epoch")
    assert summary["finished"] and summary["epochs"] == 6
    assert [record["epoch"] for record in epochs] == [1, 2, 3, 4, 5, 6]
    assert summary["step"] == run.load("last")["step"] == epochs[-1]["step"] == len(steps)
    numbers = [record["step"] for record in run.records("step")]
    assert numbers == sorted(set(numbers))
    ends = [sum(step["epoch"] < epoch for step in steps) for epoch in range(1, 7)]
    assert [record["step"] for record in epochs] == ends


def assert_no_image_twice(steps: list[dict[str, Any]], images: int) -> None:
    for epoch, rows in itertools.groupby(steps, lambda step: step["epoch"]):
        seen = [image for row in rows for image in row["images"]]
        assert len(seen) == len(set(seen)), f"epoch {epoch}"
        assert images - 6 < len(seen) <= images  # what does not fill a step of 6 is left out


def assert_one_schedule(config: Config, steps: list[dict[str, Any]], images: int) -> None:
    """Rates follow the plan's one curve over time, and blocks open once, in their turn."""
    plans: dict[int, Plan] = {}
    for step in steps:
        plan = plans.setdefault(step["world"], build_plan(config, images, step["world"]))
        time = plan.time(step["epoch"], step["seen"])
        assert step["lr"] == pytest.approx(
            plans[steps[0]["world"]].lr(time, None), rel=1e-6
        )  # float32
        assert step["opened"] == plan.stage_at(time).open_blocks
    opened = [step["opened"] for step in steps]
    assert opened == sorted(opened)
    assert set(opened) == {0, 1, 2, 4}
    later = [step["lr"] for step in steps if step["epoch"] > 0]
    assert later == sorted(later, reverse=True)
