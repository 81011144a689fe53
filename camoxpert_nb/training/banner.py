"""What is said of a training before it starts: what it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from torch import nn

from .. import __version__
from ..data.cache import cache_folder
from ..data.counting import first
from ..data.reading import Reading
from ..errors import few
from ..machine.devices import pick_devices
from ..outside.spelling import counted
from ..settings.config import Config
from ..settings.decide import few_validate, lr_warnings, recipe_lines, short_run
from ..settings.presets import Suggestion, suggest
from .budget import disk_forecast
from .prepare import Training
from .schedule import Stage


def banner(training: Training) -> str:
    """Return the lines that are shown when a training starts."""
    config, data, net = training.config, training.data, training.state.net
    left_out = [f"left out: {_some(names)} {why}" for why, names in data.left_out.items()]
    rows = [
        ("run", config.checkpoint_dir or "runs/DATE-TIME"),
        *[("device", line) for line in training.device_lines],
        ("", training.devices.reason),
        ("precision", training.precision.reason),
        ("data", f"{data.root}"),
        ("", f"{len(data.train)} to train, {len(data.validation)} held out for validation"),
        *[("", line) for line in left_out],
        *[("", f"read with {words}") for words in [Reading.of(config).in_words()] if words],
        ("disk", _disk(training)),
        ("loading", f"{training.workers} workers: {training.workers_reason}"),
        ("backbone", config.backbone),
        ("weights", training.state.start.source),
        ("experts", _experts(config)),
        ("parameters", f"{_parameters(net) / 1e6:.2f} million"),
        ("resolution", _resolution(training)),
        *zip(("stage one", ""), _part(training, 1), strict=False),
        *zip(("stage two", ""), _part(training, 2), strict=False),
        ("epochs", f"{config.epochs}, {training.plan.steps_from(0)} steps"),
        *[("goes on", words) for words in [_place(training)] if words],
        *zip(("recipe", "", ""), _recipe(training), strict=False),
        ("deep supervision", _on(config.deep_supervision)),
        ("checkpointing", _on(config.gradient_checkpointing)),
        ("progressive", _unfreezing(training)),
        ("EMA", _average(training)),
        *[("your own", words) for words in [training.state.own.in_words] if words],
        ("target", f"IoU {config.target_iou:g} (mean over validation images, threshold 0.5)"),
    ]
    lines = [f"CamoXpert {__version__}, preset {config.preset or 'none'}", "-" * 78]
    lines += [f"{name:<17} {text}".rstrip() for name, text in rows]
    if not training.state.start.pretrained:
        lines.append("NOTE: the backbone starts from random weights. Expect a much lower IoU.")
    lines += [f"NOTE: {sentence}." for sentence in _doubts(training)]
    lines += [f"NOTE: {note}." for note in first(data.notes)]
    if data.leaks:
        lines.append(f"WARNING: {_some(data.leaks)} training images are test images too.")
    if data.near_leaks:
        lines.append(
            f"WARNING: {len(data.near_leaks)} training images are nearly the same picture as a "
            f"test or validation image: {few(data.near_leaks)}. Scores there are too good."
        )
    return "\n".join(lines)


def _doubts(training: Training) -> list[str]:
    warnings = lr_warnings(training.config, training.devices.count)
    warnings += few_validate(len(training.data.validation))
    return [*warnings, *short_run(training.config), *training.changes]


def auto_preset(device: str, *, own_images: bool, given: Collection[str] = ()) -> Suggestion:
    """Return what to begin with on this machine, or on its CPU alone; `given` as for `suggest`."""
    memory = pick_devices("cpu" if device == "cpu" else "auto").memory()
    return suggest(memory, own_images=own_images, given=given)


def _place(training: Training) -> str:
    """Say where a training goes on, nothing of one that begins."""
    state = training.state
    if not state.step:
        return ""
    if state.epoch >= training.config.epochs:
        return f"nowhere: all {counted(state.epoch, 'epoch')} are done"
    within = f", {state.seen} of its images done" if state.seen else ""
    return f"in epoch {state.epoch + 1}{within}; {counted(state.step, 'step')} in all"


def _recipe(training: Training) -> list[str]:
    plan, decided = training.plan, training.config
    return recipe_lines(training.asked, plan.images, plan.devices, decided)


def _disk(training: Training) -> str:
    config, data = training.config, training.data
    images = len(data.train) + len(data.validation)
    parameters = _parameters(training.state.net)
    run = Path(config.checkpoint_dir or "runs")
    place = cache_folder(config)
    return disk_forecast(images, config.img_size, parameters, place, run, config.keep_best)


def _parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def _experts(config: Config) -> str:
    if config.num_experts == 1:
        return "1: no mixture"
    if config.top_k >= config.num_experts:
        return f"{config.num_experts}, weighed in each cell of the image"
    return f"{config.num_experts}, the best {config.top_k} in each cell of the image"


def _resolution(training: Training) -> str:
    """Return the side of the images, and from which epoch on they grow to it."""
    side, stages = training.config.img_size, training.plan.stages
    begins: dict[int, int] = {}
    for stage in stages:
        begins.setdefault(stage.size, stage.first_epoch + 1)
    grown = ", ".join(f"{size} px from epoch {epoch}" for size, epoch in begins.items() if size)
    return f"{side} x {side} px" + (f"; trained with {grown}" if grown else "")


def _part(training: Training, part: int) -> list[str]:
    stages = [stage for stage in training.plan.stages if stage.part == part]
    if not stages:
        return ["none"]
    first, config, count = stages[0], training.config, training.devices.count
    what = "decoder alone" if part == 1 else "decoder and backbone"
    epochs = sum(stage.epochs for stage in stages)
    device = "GPU" if training.devices.ids else "CPU"
    return [
        f"{counted(epochs, 'epoch')}, {what}, {_rate(training, stages)}",
        f"batch {first.batch} per {device} x {count} {device}{'s' if count > 1 else ''} "
        f"x {config.accumulation_steps} accumulated = {first.effective} effective, "
        f"{counted(first.steps, 'step')} an epoch{_of_images(first, training.plan.images)}",
    ]


def _rate(training: Training, stages: Sequence[Stage]) -> str:
    """Say the learning rate of a part, and what is left of it where its schedule was changed."""
    said = f"learning rate {stages[0].lr:g}"
    now = training.plan.time(training.state.epoch, training.state.seen)
    left = stages[-1].last_epoch - now
    if training.plan.origin is None or left <= 0:
        return said
    begin = max(now, stages[0].first_epoch)
    return f"{said}, from now on at most {training.plan.highest(begin, stages[-1].last_epoch):.2g}"


def _of_images(stage: Stage, images: int) -> str:
    """Say how many images an epoch's whole steps take, where that is not all of them."""
    taken = stage.steps * stage.effective
    return "" if taken == images else f" of {taken} of {images} images, chosen anew each epoch"


def _unfreezing(training: Training) -> str:
    if not training.config.progressive_unfreeze:
        return "off: stage two opens the whole backbone at once"
    now = training.state.epoch
    opened = [s for s in training.plan.stages if s.part == 2 and s.last_epoch > now]
    return ", ".join(f"{s.name} from epoch {s.first_epoch + 1}" for s in opened) or "off"


def _average(training: Training) -> str:
    config = training.config
    if not config.use_ema:
        return "off"
    horizon = 1 / (1 - config.ema_decay) / training.plan.stages[-1].steps
    return f"decay {config.ema_decay:g}, looks back about {horizon:.1f} epochs"


def _some(names: Sequence[str]) -> str:
    """Return how many there are, and the names of a few."""
    return f"{len(names)} ({', '.join(names)})" if len(names) <= 3 else str(len(names))


def _on(value: bool) -> str:
    return "on" if value else "off"
