"""How a training looks in a terminal, and in the run's log file."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from .. import __version__
from ..data.cache import cache_folder
from ..machine.devices import pick_devices
from ..settings.config import Config, differences, make_config
from ..settings.presets import suggest
from .budget import disk_forecast, fit_to_budget, foresee, minutes_to_train, passed
from .memory import StepCost, measure_step
from .prepare import Training, prepare
from .schedule import Stage, lr_warnings


class Console:
    """Print records: a moving line per step where someone watches, one line per epoch elsewhere.

    Everything but the moving line also goes to `log`, the run's log.txt.
    """

    def __init__(self, experts: tuple[str, ...], stream: IO[str] | None = None) -> None:
        self.experts = experts
        self.stream = stream or sys.stdout
        self.log: Path | None = None
        self._moving = self.stream.isatty()
        self._started: tuple[float, int] | None = None  # time and step of the first record
        self._drawn = 0.0
        self._gist = ""

    def say(self, text: str) -> None:
        """Print lines for good, and log them."""
        if self._moving:
            self.stream.write("\r\x1b[K")
        self.stream.write(text + "\n")
        self.stream.flush()
        if self.log:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    def progress(self, done: int, total: int) -> None:
        """Show how far a preparation is."""
        if self._moving and self._due(done == total):
            self._draw(f"preparing images {_bar(done, total)} {done}/{total}")

    def report(self, record: dict[str, Any]) -> None:
        """Show a record of the training."""
        kind = record["kind"]
        if kind == "step":
            self._step(record)
        elif kind == "epoch":
            self.say(epoch_line(record))
            self.say(experts_line(record["gates"], self.experts))
            self._judge_speed(record["verdict"])
        elif kind == "note":
            self.say(record["message"])

    def _step(self, record: dict[str, Any]) -> None:
        now = time.monotonic()
        self._started = self._started or (now, record["step"])
        if not (self._moving and self._due()):
            return
        began, first = self._started
        done, total = record["step"], record["steps"]
        left = (now - began) / max(done - first, 1) * (total - done)
        self._draw(
            f"epoch {record['epoch']} {record['stage']} {_bar(done, total)} step {done}/{total}  "
            f"loss {record['loss']:.3f}  {record['images_per_second']:.0f} img/s  "
            f"{time.strftime('%H:%M:%S', time.gmtime(left))} left"
        )

    def _judge_speed(self, verdict: str) -> None:
        """Say what bounds the speed, when it is something else than before."""
        gist = verdict.split("(")[0]
        if gist != self._gist:
            self.say(f"          {verdict}")
        self._gist = gist

    def _due(self, last: bool = False) -> bool:
        now = time.monotonic()
        if now - self._drawn < 0.2 and not last:
            return False
        self._drawn = now
        return True

    def _draw(self, text: str) -> None:
        self.stream.write("\r\x1b[K" + text)
        self.stream.flush()


def epoch_line(record: dict[str, Any]) -> str:
    """Return one epoch's record as a line."""
    average = "" if record["iou_ema"] is None else f" (EMA {record['iou_ema']:.3f})"
    skipped = f"  {record['skipped_steps']} steps skipped" if record["skipped_steps"] else ""
    return (
        f"epoch {record['epoch']:>3} {record['stage']:<10} loss {record['loss']:.3f}  "
        f"IoU {record['iou']:.3f}{average}{' best' if record['best'] else '     '}  "
        f"lr {record['lr']['head']:.1e}/{record['lr']['backbone']:.1e}  "
        f"{record['images_per_second']:.0f} img/s  data-wait {record['data_wait_percent']:.0f} %  "
        f"{record['seconds']:.0f} s{skipped}"
    )


def experts_line(gates: list[list[float]], experts: tuple[str, ...]) -> str:
    """Return each expert's share, in per cent, as a mean over stages."""
    shares = [100 * sum(column) / len(gates) for column in zip(*gates, strict=True)]
    named = zip(experts, shares, strict=False)
    return "          experts %  " + "  ".join(f"{name} {share:.0f}" for name, share in named)


def _bar(done: int, total: int, width: int = 20) -> str:
    filled = width * done // max(total, 1)
    return "[" + "#" * filled + "." * (width - filled) + "]"


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
        ("weights", training.state.weights_source),
        ("experts", _experts(config)),
        ("parameters", f"{parameters / 1e6:.2f} million"),
        ("resolution", f"{config.img_size} x {config.img_size} px"),
        *zip(("stage 1", ""), _part(training, 1), strict=False),
        *zip(("stage 2", ""), _part(training, 2), strict=False),
        ("epochs", f"{config.epochs}, {training.plan.steps} steps"),
        ("deep supervision", _on(config.deep_supervision)),
        ("checkpointing", _on(config.gradient_checkpointing)),
        ("progressive", _unfreezing(training)),
        ("EMA", _average(training)),
        ("target", f"IoU {config.target_iou:g} (mean over validation images, threshold 0.5)"),
    ]
    lines = [f"CamoXpert {__version__}, preset {config.preset or 'none'}", "-" * 78]
    lines += [f"{name:<17} {text}".rstrip() for name, text in rows]
    if not training.state.pretrained:
        lines.append("NOTE: the backbone starts from random weights. Expect a much lower IoU.")
    lines += [f"NOTE: {sentence}." for sentence in lr_warnings(config, training.devices.count)]
    if data.leaks:
        lines.append(f"WARNING: {_some(data.leaks)} training images are test images too.")
    return "\n".join(lines)


def forecast(training: Training) -> str:
    """Return what `--dry-run` adds: changed settings, learning rates, memory and time."""
    config, state = training.config, training.state
    lines = ["", "learning rates (first, highest and last step of each stage)"]
    lines += [_rates(training, stage) for stage in training.plan.stages]
    cost = _cost(training)
    lines += ["", "estimate, from one real step on this machine"]
    lines += [_stage_cost(training, stage, cost) for stage in training.plan.stages]
    seconds = sum(_seconds(training, stage, cost) for stage in training.plan.stages)
    lines.append(f"  in all about {_duration(seconds)}, validation not counted")
    minutes = minutes_to_train(config.time_budget)
    if minutes < math.inf:
        seen = foresee(training.plan, _pace(cost), minutes, step=state.step, elapsed=passed())
        lines.append(f"  {seen}")
    changed = differences(config, make_config(config.preset)) if config.preset else {}
    lines += ["", "settings that differ from the preset"]
    lines += [f"  {name} = {value}" for name, value in changed.items()] or ["  none"]
    return "\n".join(lines)


def auto_preset(dataset_path: str) -> tuple[str, str]:
    """Return the preset for this machine and the reason."""
    return suggest(pick_devices().memory(), own_images=bool(dataset_path))


def fitted(config: Config) -> Config:
    """Return the settings with as many epochs as fit into the time there is, by one real step."""
    training = prepare(config, empty=True)
    images, minutes = len(training.data.train), minutes_to_train(config.time_budget)
    pace = _pace(_cost(training))
    return fit_to_budget(config, images, training.devices.count, pace, minutes)


def _pace(cost: dict[int, StepCost]) -> dict[int, float]:
    return {blocks: each.seconds_per_image for blocks, each in cost.items()}


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
        f"x {config.accumulation_steps} accumulated = {training.images_per_step(first)} effective, "
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
        rates = [training.plan.lr(step, block) for step in range(stage.first_step, stage.last_step)]
        texts.append(" / ".join(f"{rate:.2e}" for rate in (rates[0], max(rates), rates[-1])))
    return f"  {stage.name:<12} {span:<15} head {texts[0]}   backbone {texts[1]}"


def _cost(training: Training) -> dict[int, StepCost]:
    """Measure each number of open blocks once."""
    state, costs = training.state, {}
    for count in {stage.open_blocks for stage in training.plan.stages}:
        state.open_blocks(count)
        size = training.config.img_size
        costs[count] = measure_step(state.supervised, size, training.devices.main)
    return costs


def _seconds(training: Training, stage: Stage, cost: dict[int, StepCost]) -> float:
    images = stage.batches * stage.batch * stage.epochs
    return images * cost[stage.open_blocks].seconds_per_image


def _stage_cost(training: Training, stage: Stage, cost: dict[int, StepCost]) -> str:
    gib = cost[stage.open_blocks].gib(stage.batch)
    seconds = _seconds(training, stage, cost)
    return (
        f"  {stage.name:<12} {_duration(seconds / stage.epochs)} an epoch, "
        f"{_duration(seconds)} in all, {gib:.1f} GiB per device"
    )


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
