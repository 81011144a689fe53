"""The presets: each a small set of differences from the defaults of `config.Config`.

A learning rate was chosen for the effective batch (`lr_batch`) on as many GPUs as a preset is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .recipe import DECIDED

BATCH_SIZE = 16  # images per GPU where a preset names no other number
# Own photos without a GPU: about half an hour for 800 of them on two cores.
ON_CPU: dict[str, Any] = {"img_size": 192, "epochs": 6, "batch_size": 8}


def _rates_for(gpus: int, **changes: Any) -> dict[str, Any]:
    """Add the effective batches on so many GPUs, which the learning rates were chosen for."""
    batch = changes.get("batch_size", BATCH_SIZE)
    later = changes.get("stage2_batch_size", batch)
    return {**changes, "lr_batch": gpus * batch, "stage2_lr_batch": gpus * later}


PRESETS: dict[str, dict[str, Any]] = {
    "balanced-2gpu": _rates_for(2, stage2_batch_size=12, stage2_lr=1.5e-4),
    "max-speed-2gpu": _rates_for(2, batch_size=24, stage2_batch_size=16, lr=1e-3, stage2_lr=2e-4),
    "high-res-2gpu": _rates_for(
        2, img_size=352, batch_size=12, stage2_batch_size=8, stage2_lr=1.5e-4
    ),
    "single-gpu": _rates_for(1, batch_size=8, lr=2.5e-4, stage2_lr=1e-4),
    "single-gpu-optimized": _rates_for(1, batch_size=12, lr=4e-4, stage2_lr=1.2e-4),
    # Reasoned from published recipes (resolution is their strongest lever), not measured yet.
    "accurate": _rates_for(
        2,
        img_size=384,
        batch_size=8,
        epochs=100,
        stage1_epochs=10,
        lr=5e-4,
        stage2_lr=3e-4,
        weight_decay=0.05,
        warmup_epochs=3,
    ),
    # Our own: what hangs on the length is open, and the recipe decides it (settings.recipe). What
    # hangs on the machine is added by `suggest`.
    "auto": dict.fromkeys(DECIDED),
    # Learns from scratch within minutes on two cores; see LOG.md for what was tried.
    "demo": {
        "img_size": 96,
        "backbone": "resnet10t",
        "pretrained": False,
        "width": 64,
        "epochs": 24,
        "stage1_epochs": 2,
        "lr": 2e-3,
        "backbone_lr_factor": 1.0,
        "warmup_epochs": 1,
        "progressive_unfreeze": False,
        "ema_decay": 0.98,
        "target_iou": 0.6,
    },
    # For tests: every part of the pipeline, in seconds.
    "tiny": {
        "img_size": 64,
        "backbone": "test_resnet",
        "pretrained": False,
        "width": 16,
        "epochs": 2,
        "stage1_epochs": 1,
        "batch_size": 4,
        "lr": 2e-3,
        "warmup_epochs": 0,
        "num_workers": 0,
        "ema_decay": 0.9,
    },
}


class Suggestion(NamedTuple):
    """A preset for a machine, what it has there, and the reason."""

    preset: str
    changes: dict[str, Any]
    reason: str


def suggest(memory: Sequence[float], *, own_images: bool) -> Suggestion:
    """Return what to begin with on GPUs with so many GiB each (none: the CPU).

    `own_images`: a data set was given.
    """
    if not memory and not own_images:
        why = "no GPU and no data set: a small network that a CPU trains in minutes"
        return Suggestion("demo", {}, why)
    if not memory:
        size, epochs = ON_CPU["img_size"], ON_CPU["epochs"]
        why = f"no GPU, so {size} px and {epochs} epochs: minutes for a few hundred photos, hours "
        why += "for thousands (--dry-run measures it); --img-size and --epochs override"
        return Suggestion("auto", dict(ON_CPU), why)
    if len(memory) >= 2:
        first, second = BATCH_SIZE, PRESETS["balanced-2gpu"]["stage2_batch_size"]
        changes = {"batch_size": first, "stage2_batch_size": second}
        why = f"{len(memory)} GPUs, batch {first} and {second} on each"
        return Suggestion("auto", changes, why)
    large = memory[0] >= 14
    like = PRESETS["single-gpu-optimized" if large else "single-gpu"]
    why = f"one GPU with {memory[0]:.0f} GiB{'' if large else ', under 14'}"
    batch = like["batch_size"]
    return Suggestion("auto", {"batch_size": batch}, f"{why}, batch {batch}")
