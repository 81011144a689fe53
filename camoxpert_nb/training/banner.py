"""What is said of a training before it starts: what it is, and what it will cost."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.cache import cache_folder
from ..machine.devices import pick_devices
from ..settings.config import Config, differences, make_config
from ..settings.presets import suggest
from .budget import (
    RESERVE,
    SESSION,
    disk_forecast,
    fit_to_budget,
    how_far,
    minutes_gone,
    minutes_to_train,
)
from .cost import measure_costs
from .prepare import Training
from .schedule import Stage, lr_warnings


def banner(training: Training) -> str:
    """Return the lines that are shown when a training starts."""
    config, data, net = training.config, training.data, training.state.net
    parameters = sum(parameter.numel() for parameter in net.parameters())
    left_out = [f"left out: {_some(names)} {why}" for why, names in data.left_out.items()]
    rows = [
        ("run", config.checkpoint_dir or "runs/DATE-TIME"),
        *[("device", line) for line in training.device_lines],
        ("", training.devices.reason),
        ("precision", training.precision.reason),
        ("data", f"{data.root}"),
        ("", f"{len(data.train)} to train, {len(data.validation)} held out for validation"),
        *[("", line) for line in left_out],
        ("disk", _disk(training)),
        ("loading", f"{training.workers} workers: {training.workers_reason}"),
        ("backbone", config.backbone),
        ("weights", training.state.start.source),
        ("experts", _experts(config)),
        ("parameters", f"{parameters / 1e6:.2f} million"),
        ("resolution", f"{config.img_size} x {config.img_size} px"),
        *zip(("stage 1", ""), _part(training, 1), strict=False),
        *zip(("stage 2", ""), _part(training, 2), strict=False),
        ("epochs", f"{config.epochs}, {training.plan.steps_from(0)} steps"),
        ("deep supervision", _on(config.deep_supervision)),
        ("checkpointing", _on(config.gradient_checkpointing)),
        ("progressive", _unfreezing(training)),
        ("EMA", _average(training)),
        ("target", f"IoU {config.target_iou:g} (mean over validation images, threshold 0.5)"),
    ]
    lines = [f"CamoXpert {__version__}, preset {config.preset or 'none'}", "-" * 78]
    lines += [f"{name:<17} {text}".rstrip() for name, text in rows]
    if not training.state.start.pretrained:
        lines.append("NOTE: the backbone starts from random weights. Expect a much lower IoU.")
    lines += [f"NOTE: {sentence}." for sentence in lr_warnings(config, training.devices.count)]
    lines += [f"NOTE: {change}." for change in training.changes]
    if data.leaks:
        lines.append(f"WARNING: {_some(data.leaks)} training images are test images too.")
    return "\n".join(lines)


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


def forecast(training: Training, estimated: Mapping[str, Any]) -> str:
    """Return what `--dry-run` adds: learning rates, cost, settings that differ from the preset."""
    config = training.config
    lines = ["", "learning rates (first, highest and last step of each stage)"]
    lines += [_rates(training, stage) for stage in training.plan.stages]
    lines += ["", estimated["text"]]
    changed = differences(config, make_config(config.preset)) if config.preset else {}
    lines += ["", "settings that differ from the preset"]
    lines += [f"  {name} = {value}" for name, value in changed.items()] or ["  none"]
    return "\n".join(lines)


def auto_preset(dataset_path: str) -> tuple[str, str]:
    """Return the preset for this machine and the reason."""
    return suggest(pick_devices().memory(), own_images=bool(dataset_path))


def fitted(training: Training, began: float) -> Config:
    """Return the settings with as many epochs as fit into the time there is, by real steps.

    The time budget counts from `began`, as time.time() tells it.
    """
    config, costs = training.config, measure_costs(training)
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


def _disk(training: Training) -> str:
    config, data = training.config, training.data
    images = len(data.train) + len(data.validation)
    parameters = sum(parameter.numel() for parameter in training.state.net.parameters())
    run = Path(config.checkpoint_dir or "runs")
    return disk_forecast(images, config.img_size, parameters, cache_folder(config), run)


def _experts(config: Config) -> str:
    if config.num_experts == 1:
        return "1: no mixture"
    return f"{config.num_experts}, the best {min(config.top_k, config.num_experts)} for each image"


def _part(training: Training, part: int) -> list[str]:
    stages = [stage for stage in training.plan.stages if stage.part == part]
    if not stages:
        return ["none"]
    first, config, count = stages[0], training.config, training.devices.count
    what = "decoder alone" if part == 1 else "decoder and backbone"
    epochs = sum(stage.epochs for stage in stages)
    device = "GPU" if training.devices.ids else "CPU"
    return [
        f"{epochs} epochs, {what}, learning rate {first.lr:g}",
        f"batch {first.batch} per {device} x {count} {device}{'s' if count > 1 else ''} "
        f"x {config.accumulation_steps} accumulated = {first.effective} effective, "
        f"{first.steps} steps an epoch",
    ]


def _unfreezing(training: Training) -> str:
    if not training.config.progressive_unfreeze:
        return "off: stage 2 opens the whole backbone at once"
    opened = [s for s in training.plan.stages if s.part == 2]
    return ", ".join(f"{s.name} from epoch {s.first_epoch + 1}" for s in opened) or "off"


def _average(training: Training) -> str:
    config = training.config
    if not config.use_ema:
        return "off"
    horizon = 1 / (1 - config.ema_decay) / training.plan.stages[-1].steps
    return f"decay {config.ema_decay:g}, looks back about {horizon:.1f} epochs"


def _rates(training: Training, stage: Stage) -> str:
    span = f"epochs {stage.first_epoch + 1}-{stage.last_epoch}"
    texts = []
    for block in (None, 1):
        rates = [training.plan.lr(time, block) for time in training.plan.times(stage)]
        texts.append(" / ".join(f"{rate:.2e}" for rate in (rates[0], max(rates), rates[-1])))
    return f"  {stage.name:<12} {span:<15} head {texts[0]}   backbone {texts[1]}"


def _estimate_text(found: dict[str, Any]) -> str:
    lines = ["estimate, from real steps on this machine, with validation and saving"]
    for row in found["stages"]:
        gib = f"{row['gib_per_device']:.1f} GiB" if row["gib_per_device"] else "memory not measured"
        lines.append(
            f"  {row['name']:<12} {_duration(row['seconds_per_epoch'])} an epoch, "
            f"{_duration(row['seconds'])} in all, {gib} per device"
        )
    if found["decoding_seconds"]:
        lines.append(f"  images       {_duration(found['decoding_seconds'])} to decode, once")
    lines.append(f"  in all about {_duration(found['seconds'])}")
    return "\n".join([*lines, *([f"  {found['fits']}"] if found["fits"] else [])])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _some(names: Sequence[str]) -> str:
    """Return how many there are, and the names of a few."""
    return f"{len(names)} ({', '.join(names)})" if len(names) <= 3 else str(len(names))


def _on(value: bool) -> str:
    return "on" if value else "off"
