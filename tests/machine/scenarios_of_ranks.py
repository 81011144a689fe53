"""What two processes do together; test_ranks.py starts this under torchrun and reads what it found.

One start for all scenarios: importing torch twice costs more than they do.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import camoxpert_nb.training.train as train_module
from camoxpert_nb.errors import InputError, PeerLost
from camoxpert_nb.machine.distributed import Ranks, joined
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.settings.recipe import DECIDED
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.prepare import Loaders, prepare


def weights_sum(run: Run) -> float:
    return sum(float(value.double().sum()) for value in run.load("last")["net"].values())


def agreements(ranks: Ranks, config: Config) -> Any:
    return {
        "places": ranks.gather([ranks.rank, ranks.world, ranks.local_rank]),
        "any": ranks.any(ranks.rank == 1, False),
        "total": ranks.total(torch.tensor([1.0, ranks.rank])).tolist(),
        "from_first": ranks.from_first(lambda: f"rank {ranks.rank}"),
    }


def an_error_in_one(ranks: Ranks, config: Config) -> Any:
    def work() -> None:
        if ranks.rank == 1:
            raise InputError("no such file on this machine")

    try:
        ranks.in_turn(work)
    except (InputError, PeerLost) as error:
        return ranks.gather(type(error).__name__)


def a_recipe(ranks: Ranks, config: Config) -> Any:
    """What each rank decides of open settings, and for how many photos."""
    training = prepare(config.replace(epochs=20, **dict.fromkeys(DECIDED)), ranks=ranks)
    values = {name: getattr(training.config, name) for name in (*DECIDED, "stage2_lr")}
    return {"values": ranks.gather(values), "photos": len(training.data.train)}


def samples(ranks: Ranks, config: Config) -> Any:
    """The images each rank trains on and validates, in one epoch."""
    training = prepare(config, ranks=ranks)
    loaders = Loaders(training)
    seen = [batch["index"].tolist() for batch in loaders.epoch(training.plan.stage_at(0), 0)]
    held_out = [i for batch in loaders.validation(3) for i in batch["index"].tolist()]
    return {"train": ranks.gather(seen), "validation": ranks.gather(held_out)}


def whole_training(ranks: Ranks, config: Config) -> Any:
    run = fit(config, ranks=ranks)
    return {"epochs": len(run.records("epoch"))}


def going_on(ranks: Ranks, config: Config) -> Any:
    """One process began; two go on."""
    config = config.replace(checkpoint_dir=os.environ["BEGUN"])
    return {"epochs": len(fit(config, resume=True, ranks=ranks).records("epoch"))}


def last_steps(ranks: Ranks, config: Config, ask: Any) -> Any:
    """Train with `ask` looking on; return each rank's last step and what ended the run."""
    steps: list[int] = []

    def report(record: dict[str, Any]) -> None:
        if record["kind"] == "step":
            steps.append(record["step"])
            ask(record["step"])

    run = fit(config.replace(epochs=500), report=report, ranks=ranks)
    end = run.records()[-1]
    return {"steps": ranks.gather(steps[-1]), "saved": run.load("last")["step"], "end": end}


def a_signal_to_one(ranks: Ranks, config: Config) -> Any:
    def ask(step: int) -> None:
        if step == 5 and ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    return last_steps(ranks, config, ask)


def a_stop_file(ranks: Ranks, config: Config) -> Any:
    def ask(step: int) -> None:
        if step == 4 and ranks.first:
            Run(config.checkpoint_dir).request("stop")

    return last_steps(ranks, config, ask)


def a_deadline(ranks: Ranks, config: Config) -> Any:
    return last_steps(ranks, config.replace(time_budget=0.01), lambda step: None)


def an_early_end(ranks: Ranks, config: Config) -> Any:
    epochs: list[int] = []

    def report(record: dict[str, Any]) -> None:
        if record["kind"] == "epoch":
            epochs.append(record["epoch"])

    how = {"stop_at_target": True, "target_iou": 0.0, "log": "csv"}
    run = fit(config.replace(epochs=500, **how), report=report, ranks=ranks)
    return {"epochs": ranks.gather(epochs), "summary": run.load_json("summary")["ended_early"]}


def a_pause(ranks: Ranks, config: Config) -> Any:
    run, times = Run(config.checkpoint_dir), []

    def ask(step: int) -> None:
        times.append(time.monotonic())
        if step == 3 and ranks.first:
            run.request("pause")
            threading.Timer(1.0, run.request, ("pause", False)).start()
        if step == 5 and ranks.first:
            run.request("stop")

    last_steps(ranks, config, ask)
    return {"longest": ranks.gather(max(b - a for a, b in itertools.pairwise(times)))}


def a_gradient_that_is_not_finite(ranks: Ranks, config: Config) -> Any:
    """Rank 1 alone computes infinities, in one step."""
    steps = iter(range(100))
    augment = train_module.augment_batch

    def poisoned(image: Tensor, *more: Any, **how: Any) -> tuple[Tensor, Tensor]:
        image, mask = augment(image, *more, **how)
        return (image * float("nan") if next(steps) == 2 and ranks.rank == 1 else image), mask

    skipped: list[float] = []
    train_module.augment_batch = poisoned

    def report(record: dict[str, Any]) -> None:
        if record["kind"] == "step":
            skipped.append(record["skipped"])

    run = fit(config, report=report, ranks=ranks)
    train_module.augment_batch = augment
    return {"skipped": ranks.gather(skipped[:6]), "finite": weights_sum(run) == weights_sum(run)}


SCENARIOS = (
    agreements,
    an_error_in_one,
    samples,
    a_recipe,
    whole_training,
    going_on,
    a_signal_to_one,
    a_stop_file,
    a_deadline,
    an_early_end,
    a_pause,
    a_gradient_that_is_not_finite,
)


def main() -> None:
    config, folder = Config.load(Path(sys.argv[1])), Path(sys.argv[2])
    found = {}
    with joined() as ranks:
        for scenario in SCENARIOS:
            name = scenario.__name__
            found[name] = scenario(ranks, config.replace(checkpoint_dir=str(folder / name)))
        if ranks.first:
            (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
