"""What is said about a training when it ends: the figures, the images, and why memory ran out."""

from __future__ import annotations

from typing import Any

from .devices import bare
from .limits import advice, clean_up, measure_step
from .performance import performance
from .plan import batches_per_device
from .recipe import Training, versions
from .run import Run

BATCH_FLAGS = {1: "--batch-size", 2: "--stage2-batch-size"}


def split(training: Training) -> dict[str, list[str]]:
    """Name the images of each side, so that no later evaluation mistakes one for the other."""
    data = training.data
    return {
        "train": [pair.name for pair in data.train],
        "validation": [pair.name for pair in data.validation],
    }


def summary(training: Training, fingerprint: str, run: Run, *, finished: bool) -> dict[str, Any]:
    """Return the contents of summary.json; `fingerprint` is that of the decoded images."""
    state, data, epochs = training.state, training.data, run.records("epoch")
    devices = list(training.device_lines)
    figures = performance(epochs, training.config.as_dict(), devices)
    return {
        "finished": finished,
        "best": state.best,
        "target_iou": training.config.target_iou,
        "target_reached_at_epoch": figures["epoch_of_target"],
        "epochs": len(epochs),
        "step": state.step,
        "seconds": round(state.seconds, 1),
        "devices": devices,
        "parallel": training.devices.kind,
        "performance": figures,
        "precision": training.precision.reason,
        "parameters": sum(p.numel() for p in state.net.parameters()),
        "weights_source": state.weights_source,
        "versions": versions(),
        "data": {
            "root": str(data.root),
            "fingerprint": fingerprint,
            "train": len(data.train),
            "validation": len(data.validation),
            "left_out": {why: list(names) for why, names in data.left_out.items()},
            "leaks": list(data.leaks),
        },
    }


def memory_advice(training: Training) -> str:
    """Return what ran out where, and what to try, with what each would save."""
    config, state = training.config, training.state
    stage = training.plan.at(state.step).stage
    clean_up()
    cost = measure_step(bare(state.supervised), config.img_size, state.device, batch=1)
    flags = zip(BATCH_FLAGS.values(), batches_per_device(config), strict=True)
    own_first = sorted(flags, key=lambda item: item[0] != BATCH_FLAGS[stage.part])
    tips = advice(
        cost,
        dict(own_first),
        accumulation=config.accumulation_steps,
        size=config.img_size,
        checkpointing=config.gradient_checkpointing,
    )
    return (
        f"out of memory in stage '{stage.name}' with {stage.batch} images per device at "
        f"{config.img_size} px. In this order, try: {'; or '.join(tips)}. Go on with "
        f"`camoxpert resume {config.checkpoint_dir}` and one of these."
    )
