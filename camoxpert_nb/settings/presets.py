"""The presets: each a small set of differences from the defaults of `config.Config`.

A learning rate was chosen for the effective batch (`lr_batch`) on as many GPUs as a preset is for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


def suggest(
    memory: Sequence[float], *, own_images: bool, given: Collection[str] = ()
) -> Suggestion:
    """Return what to begin with on GPUs with so many GiB each (none: the CPU).

    `own_images`: a data set was given. `given`: settings that the user chose; the reason is silent
    on what they override.
    """
    if not memory and not own_images:
        why = "no GPU and no data set: a small network that a CPU trains in minutes"
        return Suggestion("demo", {}, why)
    if not memory:
        return Suggestion("auto", dict(ON_CPU), _why_on_cpu(given))
    if len(memory) >= 2:
        first, second = BATCH_SIZE, PRESETS["balanced-2gpu"]["stage2_batch_size"]
        changes = {"batch_size": first, "stage2_batch_size": second}
        kept = [f"{value}" for name, value in changes.items() if name not in given]
        stage = {"batch_size": " in stage two", "stage2_batch_size": " in stage one"}
        where = "".join(words for name, words in stage.items() if name in given)
        batches = f", batch {' and '.join(kept)} on each{where}" if kept else ""
        return Suggestion("auto", changes, f"{len(memory)} GPUs{batches}")
    large = memory[0] >= 14
    like = PRESETS["single-gpu-optimized" if large else "single-gpu"]
    why = f"one GPU with {round(memory[0], 1):g} GiB{'' if large else ', under 14'}"
    batch = like["batch_size"]
    why += "" if "batch_size" in given else f", batch {batch}"
    return Suggestion("auto", {"batch_size": batch}, why)


def _why_on_cpu(given: Collection[str]) -> str:
    """Return why the CPU gets smaller images and fewer epochs, of those that nobody chose."""
    parts = {"img_size": f"{ON_CPU['img_size']} px", "epochs": f"{ON_CPU['epochs']} epochs"}
    open_ = [name for name in parts if name not in given]
    if not open_:
        return "no GPU"
    why = f"no GPU, so {' and '.join(parts[name] for name in open_)}"
    flags = " and ".join("--" + name.replace("_", "-") for name in open_)
    if len(open_) == len(parts):  # else how long it takes hangs on what was chosen
        why += ": minutes for a few hundred photos, hours for thousands (--dry-run measures it)"
    return f"{why}; {flags} override{'s' if len(open_) == 1 else ''}"
