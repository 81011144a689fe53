"""Records of trainings that never were, for tests of what is drawn."""

from __future__ import annotations

from typing import Any


def fabricated(epochs: int, *, per_epoch: int = 20, gpus: int = 2) -> list[dict[str, Any]]:
    """The records of a training that never was: loss falls, IoU rises to its best at the end."""
    records: list[dict[str, Any]] = [{"kind": "start", "step": 0, "time": 1e9}]
    for epoch in range(1, epochs + 1):
        rate = {"head": 1e-3 / epoch, "backbone": 0.0 if epoch == 1 else 1e-4 / epoch}
        fall = 1 / epoch
        terms = {"loss": 0.002 + 2 * fall, "structure": fall, "deep": fall, "balance": 0.02}
        weights = {"structure": 1.0, "deep": 1.0, "balance": 0.1}
        terms["weighted"] = {name: w * terms[name] for name, w in weights.items()}
        terms["weighted"]["uncertainty"] = 0.0
        terms["train_iou"] = 0.8 * (1 - fall)
        same = {"epoch": epoch, "stage": "all", "lr": rate, "images_per_second": 80.0, **terms}
        for step in range((epoch - 1) * per_epoch + 1, epoch * per_epoch + 1):
            more = {"kind": "step", "step": step, "steps": epochs * per_epoch, "uncertainty": 0.0}
            records.append({**same, **more, "time": 1e9 + step})
        scores = {"iou": 0.7 * (1 - fall), "iou_ema": 0.72 * (1 - fall), "data_wait_percent": 1.0}
        scores["val_loss"] = 0.1 + fall
        usage = {"gpu_percent": [90.0] * gpus, "gpu_memory_gib": [11.0] * gpus}
        gates = {"gates": [[1 / 7] * 7] * 4, "kind": "epoch", "step": epoch * per_epoch}
        records.append({**same, **scores, **usage, **gates, "time": 1e9 + epoch * per_epoch})
    return records
