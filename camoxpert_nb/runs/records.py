"""How fast a training was and how far it came: its records in a dozen figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from statistics import fmean, median
from typing import Any

Records = Sequence[Mapping[str, Any]]


def performance(
    epochs: Records, config: Mapping[str, Any], devices: Sequence[str]
) -> dict[str, Any]:
    """Return the figures of a training; what was not measured or not reached is None.

    epochs: the "epoch" records of its history, in order. config: its settings, of which
    batch_size, stage2_batch_size, accumulation_steps and target_iou are read. devices: a line for
    each device that trained.

    batch_per_device and effective_batch: of stage one and two. minutes_per_epoch: median, of
    training alone; minutes_per_epoch_in_all: median from end to end, with validation and saving.
    gpu_percent: mean utilisation of each GPU. minutes_to_target: of training alone, until the
    first epoch whose validation IoU (raw or averaged weights) was at least target_iou.
    """
    first = config["batch_size"]
    batches = [first, config.get("stage2_batch_size") or first]
    per_step = len(devices) * config.get("accumulation_steps", 1)
    seconds = [record["seconds"] for record in epochs]
    scores = [max(record["iou"], record.get("iou_ema") or 0.0) for record in epochs]
    target = config["target_iou"]
    reached = next((i for i, score in enumerate(scores) if score >= target), None)
    best = max(range(len(scores)), key=scores.__getitem__, default=None)
    ends = [after["time"] - before["time"] for before, after in pairwise(epochs)]
    return {
        "devices": list(devices),
        "batch_per_device": batches,
        "effective_batch": [batch * per_step for batch in batches],
        "epochs": len(epochs),
        "minutes_per_epoch": median(seconds) / 60 if seconds else None,
        "minutes_per_epoch_in_all": median(ends) / 60 if ends else None,
        "images_per_second": _over_time(epochs, "images_per_second"),
        "gpu_percent": _per_gpu(epochs),
        "data_wait_percent": _over_time(epochs, "data_wait_percent"),
        "target_iou": target,
        "minutes_to_target": None if reached is None else list(accumulate(seconds))[reached] / 60,
        "epoch_of_target": None if reached is None else epochs[reached]["epoch"],
        "best_iou": None if best is None else scores[best],
        "best_epoch": None if best is None else epochs[best]["epoch"],
    }


def in_words(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return `performance`'s figures as a row of the guide's table: heading and text."""
    target = f"{figures['target_iou']:g}"
    reached = "not reached"
    if figures["minutes_to_target"] is not None:
        reached = f"{figures['minutes_to_target']:.1f} min (epoch {figures['epoch_of_target']})"
    busy = figures["gpu_percent"]
    return {
        "devices": "; ".join(figures["devices"]),
        "batch per device": _stages(figures["batch_per_device"]),
        "effective batch": _stages(figures["effective_batch"]),
        "epochs": str(figures["epochs"]),
        "minutes per epoch": _text(figures["minutes_per_epoch"], ".2f"),
        "minutes per epoch, with validation": _text(figures["minutes_per_epoch_in_all"], ".2f"),
        "images/s": _text(figures["images_per_second"], ".1f"),
        "GPU busy": ", ".join(f"{each:.0f} %" for each in busy) if busy else "not measured",
        "waiting for data": _text(figures["data_wait_percent"], ".1f", " %"),
        f"training time to IoU {target}": reached,
        "best validation IoU": _text(figures["best_iou"], ".3f")
        + (f" (epoch {figures['best_epoch']})" if figures["best_epoch"] else ""),
    }


def _over_time(epochs: Records, key: str) -> float | None:
    """Return the mean over the time trained: a slow epoch counts as long as it took."""
    total = sum(record["seconds"] for record in epochs)
    return sum(r[key] * r["seconds"] for r in epochs) / total if total else None


def _per_gpu(epochs: Records) -> list[float] | None:
    known = [record["gpu_percent"] for record in epochs if record.get("gpu_percent")]
    return [fmean(each) for each in zip(*known, strict=False)] or None


def _stages(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "{} (stage one), {} (two)".format(*values)


def _text(value: float | None, form: str, unit: str = "") -> str:
    return "not measured" if value is None else f"{value:{form}}{unit}"
