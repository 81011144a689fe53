"""What a training will cost here, told before it starts: the dry run, and epochs that fit."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from ..data.counting import doubts_about
from ..outside.spelling import brief
from ..settings.config import Config
from ..settings.decide import told
from .banner import auto_preset
from .budget import RESERVE, SESSION, fit_to_budget, how_far, minutes_gone, minutes_to_train
from .cost import measure_costs
from .prepare import Training
from .schedule import Stage


def estimate(training: Training) -> dict[str, Any]:
    """Take real steps and return, as plain values, what the training will cost here.

    "stages": a row each, of those not over, with "name", "epochs" (left, with fractions),
    "seconds_per_epoch", "seconds", "gib_per_device"; "decoding_seconds" before the first epoch;
    "seconds" in all; "fits": a sentence, where time is limited; "text": all of it. The training's
    state is spoilt.
    """
    place = (training.state.epoch, training.state.seen)
    costs, own = measure_costs(training), training.devices.own
    now = place[0] + place[1] / training.plan.images
    stages: list[dict[str, Any]] = [
        {
            "name": stage.name,
            "epochs": left,
            "seconds_per_epoch": costs.epoch(stage),
            "seconds": costs.epoch(stage) * left,
            "gib_per_device": costs.steps[stage.open_blocks].gib(stage.batch * own) / own,
        }
        for stage in training.plan.stages
        if (left := round(stage.last_epoch - max(stage.first_epoch, now), 3)) > 0
    ]
    minutes, fits = minutes_to_train(training.config.time_budget), None
    if minutes < math.inf:
        per_image, between = costs.per_image(own), costs.between
        how: dict[str, Any] = {"place": place, "elapsed": minutes_gone()}
        if training.config.time_budget:
            how["session"] = min(training.config.time_budget, SESSION - RESERVE)
        fits = str(how_far(training.plan, per_image, minutes, between=between, **how))
    seconds = costs.decoding + sum(row["seconds"] for row in stages)
    found = {
        "stages": stages,
        "decoding_seconds": costs.decoding,
        "seconds": seconds,
        "fits": fits,
    }
    return found | {"text": _estimate_text(found)}


def dry_run_text(training: Training, estimated: Mapping[str, Any]) -> str:
    """Return what `--dry-run` adds: doubtful masks, rates, cost, what differs from the preset.

    Raises InputError where the masks show nothing that can be learned.
    """
    data = training.data
    doubts = doubts_about((*data.train, *data.validation), require=True)
    lines = [f"NOTE: of the masks looked at, {doubt}." for doubt in doubts]
    lines += ["", "learning rates (first, highest and last step of each stage)"]
    ahead = [stage for stage in training.plan.stages if stage.last_epoch > training.state.epoch]
    lines += [line for stage in ahead for line in _rates(training, stage)]
    lines += ["", estimated["text"]]
    changed = told(training.asked) if training.config.preset else {}
    if training.config.preset == "auto":  # what it takes on this machine, nobody gave
        usual = auto_preset(training.config.device, own_images=True).changes
        chosen = {name: value for name, value in usual.items() if changed.get(name) == value}
        changed = {name: value for name, value in changed.items() if name not in chosen}
        lines += ["", "settings that preset auto chose for this machine"]
        lines += [f"  {name} = {value}" for name, value in chosen.items()] or ["  none"]
    lines += ["", "settings that differ from the preset"]
    lines += [f"  {name} = {value}" for name, value in changed.items()] or ["  none"]
    return "\n".join(lines)


def fitted(training: Training, began: float) -> Config:
    """Return the settings with as many epochs as fit into the time there is, by real steps.

    The time budget counts from `began`, as time.time() tells it.
    """
    config, costs = training.asked, measure_costs(training)
    used = (time.time() - began) / 60  # by the steps just taken, too
    minutes = minutes_to_train(config.time_budget, used) - costs.decoding / 60
    return fit_to_budget(
        config,
        len(training.data.train),
        training.devices.count,
        costs.per_image(training.devices.own),
        minutes,
        costs.between,
    )


def _rates(training: Training, stage: Stage) -> list[str]:
    """Return a line for the head's rates and one for the backbone's, each narrow."""
    lines = [f"  stage {stage.name}, epochs {stage.first_epoch + 1}-{stage.last_epoch}"]
    for name, block in (("head", None), ("backbone", 1)):
        rates = [training.plan.lr(time, block) for time in training.plan.times(stage)]
        text = " / ".join(f"{rate:.2e}" for rate in (rates[0], max(rates), rates[-1]))
        lines.append(f"    {name:<10} {text}")
    return lines


def _estimate_text(found: dict[str, Any]) -> str:
    lines = ["estimate, from real steps on this machine, with validation and saving"]
    for row in found["stages"]:
        gib = row["gib_per_device"]
        memory = f"{gib:.1f} GiB per device" if gib else "memory not measured"
        lines.append(
            f"  {'stage ' + row['name']:<22}  {brief(row['seconds_per_epoch'])} an epoch, "
            f"{brief(row['seconds'])} in all, {memory}"
        )
    if found["decoding_seconds"]:
        lines.append(f"  {'images':<22}  {brief(found['decoding_seconds'])} to decode, once")
    lines.append(f"  in all about {brief(found['seconds'])}")
    return "\n".join([*lines, *([f"  {found['fits']}"] if found["fits"] else [])])
