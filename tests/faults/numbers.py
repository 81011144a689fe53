"""Numbers that are none, in each place where a training keeps some.

A step that is not finite is skipped and counted, or the training ends with a command that works;
what is saved as the best is finite, always.
"""

from __future__ import annotations

import random
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from poisoned import poison_loss

import camoxpert_nb.training.train as train
from camoxpert_nb.cli import main
from camoxpert_nb.data.synthetic import make_synthetic
from camoxpert_nb.errors import InputError, TrainingError
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.fit import fit

from .tally import Fault, Tally

STEPS = 12  # of the training
NUMBERS = (float("nan"), float("inf"), -float("inf"))


def _is_finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(map(_is_finite, values)) and (not isinstance(value, float) or abs(value) < 1e300)


def _at_steps(patch: pytest.MonkeyPatch, change: Callable[[Any], None], at: set[int]) -> None:
    """Change the state just before the steps of these numbers, from 0."""
    real, done = train.step_on_device, iter(range(10**6))

    def changed(state: Any, *arguments: Any, **more: Any) -> Any:
        if next(done) in at:
            change(state)
        return real(state, *arguments, **more)

    patch.setattr(train, "step_on_device", changed)


def _spoil(what: str, number: float) -> Callable[[Any], None]:
    def spoil(state: Any) -> None:
        parameters = [each for each in state.net.parameters() if each.requires_grad]
        if what == "a weight":
            parameters[len(parameters) // 2].data.view(-1)[0] = number
        elif what == "a statistic":
            norm = next(v for k, v in state.net.state_dict().items() if k.endswith("running_var"))
            norm.view(-1)[0] = number
        elif what == "an average" and state.ema:
            next(iter(state.ema.module.parameters())).data.view(-1)[0] = number
        else:
            for moments in list(state.optimizer.state.values())[:1]:
                moments["exp_avg"].view(-1)[0] = number

    return spoil


def _break(
    config: Config, rng: random.Random, patch: pytest.MonkeyPatch
) -> tuple[Config, set[int]]:
    """Break something of a training; return its settings and the steps that must be skipped."""
    number, at = rng.choice(NUMBERS), set(rng.sample(range(STEPS), rng.randint(1, 4)))
    way = rng.choice(["loss", "loss", "state", "state", "rate", "masks"])
    if way == "loss":
        poison_loss(patch, number, at=at)
        return config, at
    if way == "state":
        parts = ["a weight", "a statistic", "an average", "a moment"]
        _at_steps(patch, _spoil(rng.choice(parts), number), {min(at)})
    if way == "rate":
        how = {"weight_decay": 100.0, "warmup_epochs": 0, "scheduler": "none"}
        return config.replace(lr=1.0, stage2_lr=1.0, **how), set()
    if way == "masks":
        for path in Path(config.dataset_path).rglob("GT*/*.png"):
            grey = np.asarray(Image.open(path))
            Image.fromarray(np.full_like(grey, rng.choice([0, 255]))).save(path)
    return config, set()


def _follow(error: Exception, run: Run) -> str:
    """Follow the advice; say what is wrong with it, or ""."""
    commands = re.findall(r"`camoxpert ((?:resume|train) [^`]*)`", str(error))
    if not commands:
        return f"no command in: {error}"
    for command in commands:
        words = [*shlex.split(command), "--device", "cpu"]
        if main.main(words) == 0:
            folder = words[words.index("--checkpoint-dir") + 1] if words[0] == "train" else None
            went_on = Run(folder or run.folder)
            last = (went_on.newest() or {}).get("kind")
            return "" if last == "end" and _saved_is_finite(went_on) else f"{words} ended in {last}"
    return f"none of {commands} works"


def _saved_is_finite(run: Run) -> bool:
    return all(_is_finite(run.load(name)) for name in ("best", "last") if run.has(name))


def _what_is_wrong(config: Config, rng: random.Random) -> str:
    run = Run(config.checkpoint_dir)
    with pytest.MonkeyPatch.context() as patch:
        config, skipped = _break(config, rng, patch)
        try:
            fit(config)
        except InputError as error:
            return "" if "mask" in str(error) else f"refused: {error}"
        except TrainingError as error:
            failed: Exception | None = error
        else:
            failed = None
    if not _saved_is_finite(run):
        return "what was saved is not finite"
    if failed:
        return _follow(failed, run)
    counted = sum(each["skipped_steps"] for each in run.records("epoch"))
    return "" if counted == len(skipped) else f"{counted} skips counted of {len(skipped)}"


def not_finite(folder: Path, times: int, seed: int) -> Tally:
    """Train with something broken, and go on as the message says."""
    rng, tally = random.Random(seed), Tally()
    made = make_synthetic(folder / "made", train=40, test=2, size=64)
    for number in range(times):
        place = folder / "one"
        shutil.copytree(made, place / "data")
        config = make_config(
            "tiny",
            epochs=2,
            dataset_path=str(place / "data"),
            cache_dir=str(place / "cache"),
            checkpoint_dir=str(place / "run"),
            device="cpu",
        )
        try:
            wrong = _what_is_wrong(config, rng)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        tally.count(not wrong, f"number {number} of seed {seed}: {wrong}")
        shutil.rmtree(place)
    return tally


NO_NUMBERS = (
    Fault(
        "numbers that are none",
        "steps skipped and counted, or an end whose advice works; best.pt finite",
        not_finite,
        4,
        80,
    ),
)
