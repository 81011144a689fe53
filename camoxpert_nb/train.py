"""The loop: one optimiser step, one epoch of them, and the validation after it.

`train_epoch` is a generator: whoever consumes it prints, saves, pauses or stops between two steps,
where the state is whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from .augment import augment_batch, to_float
from .devices import seed_step
from .errors import TrainingError
from .losses import total
from .metrics import batch_iou, batch_mae
from .optim import Place, Plan, set_learning_rates, set_open_blocks

MOST_SKIPPED = 30  # non-finite steps in a row before a run is given up
PREVIEWS = 12

Batch = dict[str, Tensor]


@dataclass
class TrainState:
    """Everything that changes while training; `state_dict` holds it as tensors and plain values."""

    net: nn.Module  # bare: what is saved
    supervised: nn.Module  # net and losses, split over the devices: what is called
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    weights_source: str  # of the backbone, in words; begins with "none" for random weights
    step: int = 0
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)  # epoch, iou, weights: "raw" or "ema"
    sums: dict[str, float] = field(default_factory=dict)  # over the steps of this epoch so far
    shares: Tensor | None = None  # (stages, experts) summed gates of this epoch so far
    skipped_in_row: int = 0

    @property
    def pretrained(self) -> bool:
        """Say whether the backbone knew photos before this training."""
        return not self.weights_source.startswith("none")

    def open_blocks(self, count: int) -> None:
        """Make the head and the deepest `count` blocks of the backbone trainable, nothing else."""
        blocks = backbone_blocks(self.net)
        set_open_blocks(self.net, blocks, count, keep_statistics=self.pretrained)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "net": self.net.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "weights_source": self.weights_source,
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "sums": self.sums,
            "shares": self.shares,
            "skipped_in_row": self.skipped_in_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's contents; the weights are loaded strictly."""
        self.net.load_state_dict(state["net"])
        if self.ema:
            # A run that used no average so far starts it from the weights, not from random ones.
            self.ema.module.load_state_dict(state["ema"] or state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.weights_source = state["weights_source"]
        self.step, self.seconds = state["step"], state["seconds"]
        self.best, self.sums = dict(state["best"]), dict(state["sums"])
        self.shares, self.skipped_in_row = state["shares"], state["skipped_in_row"]


@dataclass(frozen=True)
class StepSettings:
    """What a step needs to know besides the state."""

    seed: int
    accumulation: int
    augment: float
    clip: float
    deep: float
    balance: float
    uncertainty: float


def train_epoch(
    state: TrainState, plan: Plan, batches: Iterable[Batch], settings: StepSettings
) -> Iterator[dict[str, Any]]:
    """Train to the end of the epoch that `state.step` stands in; yield a record per step.

    `batches` are the epoch's remaining ones. The epoch's sums live in the state, so an epoch that
    was interrupted ends with the same means as one that was not.
    """
    place = plan.at(state.step)
    state.open_blocks(place.stage.open_blocks)
    started = time.perf_counter()
    for group, waited in _groups(batches, settings.accumulation):
        set_learning_rates(state.optimizer, plan, state.step)
        seed_step(settings.seed, state.step)
        weights = {
            "deep": settings.deep,
            "balance": settings.balance,
            "uncertainty": settings.uncertainty * ramp(state.step / plan.steps),
        }
        values = train_step(state, group, settings, weights)
        state.step += 1
        seconds = time.perf_counter() - started
        state.seconds += seconds
        values |= {"seconds": seconds, "data_wait": waited, "images": _count(group)}
        _add(state.sums, values)
        yield _record(state, plan, place, values)
        started = time.perf_counter()


def train_step(
    state: TrainState, batches: list[Batch], settings: StepSettings, weights: dict[str, float]
) -> dict[str, float]:
    """Take one optimiser step on the mean loss of all images in `batches`.

    A step whose gradient is not finite is skipped and counted: under fp16 that is how the scaler
    finds its scale. Raises TrainingError after too many in a row.
    """
    device = next(state.net.parameters()).device
    state.optimizer.zero_grad(set_to_none=True)
    images, sums = _count(batches), None
    for batch in batches:
        image, mask, uniform = (
            batch[key].to(device, non_blocking=True) for key in ("image", "mask", "uniform")
        )
        image, mask = augment_batch(image, mask, uniform, strength=settings.augment)
        parts = state.supervised(image, mask)
        loss, terms = total(parts, **weights)
        share = len(image) / images  # the last batch of a step may be shorter
        state.scaler.scale(loss * share).backward()
        values = torch.stack([loss, *terms.values()]).detach() * share
        sums = values if sums is None else sums + values
        state.shares = _plus(state.shares, parts["gates"].detach().sum(0))
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.net.parameters(), settings.clip)
    assert sums is not None  # a step has at least one batch
    *numbers, norm_value = torch.cat([sums, norm.view(1)]).tolist()  # the one wait for the device
    _apply(state, skip=not math.isfinite(norm_value))
    return dict(zip(["loss", *terms], numbers, strict=True)) | {
        "gradient_norm": norm_value,
        "skipped": float(state.skipped_in_row > 0),
    }


def _apply(state: TrainState, *, skip: bool) -> None:
    if not skip:
        state.scaler.step(state.optimizer)
        if state.ema:
            state.ema.update(state.net, step=state.step + 1)
    elif state.scaler.is_enabled():
        state.scaler.step(state.optimizer)  # finds the infinity itself and skips
    state.scaler.update()
    state.skipped_in_row = state.skipped_in_row + 1 if skip else 0
    if state.skipped_in_row >= MOST_SKIPPED:
        raise TrainingError(
            f"the gradient was not finite in {MOST_SKIPPED} steps in a row (up to step "
            f"{state.step}). The last good state is saved. Try a lower --lr, --clip 0.5, or "
            "--no-amp; `camoxpert data` finds damaged images."
        )


def validate(
    net: nn.Module, batches: Iterable[Batch], dtype: torch.dtype | None
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the scores over all images and a preview of the first few.

    Scores: mean over images of IoU (threshold 0.5) and of MAE, at the network's size. Preview:
    arrays as `Run.save_preview` takes them, without names.
    """
    device = next(net.parameters()).device
    was_training = net.training
    net.eval()
    scores: dict[str, list[Tensor]] = {"iou": [], "mae": []}
    preview: dict[str, list[np.ndarray]] = {}
    with torch.inference_mode():
        for batch in batches:
            image, mask = to_float(batch["image"].to(device), batch["mask"].to(device))
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                outputs = net(image)
            probability = outputs["logits"].float().sigmoid()
            scores["iou"].append(batch_iou(probability, mask))
            scores["mae"].append(batch_mae(probability, mask))
            _keep_preview(preview, batch, probability, outputs["gates"])
    net.train(was_training)
    means = {name: torch.cat(values).mean().item() for name, values in scores.items()}
    return means, {name: np.concatenate(parts)[:PREVIEWS] for name, parts in preview.items()}


def epoch_record(state: TrainState, plan: Plan, place: Place) -> dict[str, Any]:
    """Return the finished epoch's means and start the next epoch's sums from nothing.

    Losses and the gradient norm are means over steps, expert shares over images.
    """
    sums, shares = state.sums, state.shares
    state.sums, state.shares = {}, None
    steps, images = sums.pop("steps"), sums.pop("images")
    seconds, wait, skipped = (sums.pop(key) for key in ("seconds", "data_wait", "skipped"))
    assert shares is not None  # an epoch has at least one step
    return {
        "epoch": place.epoch + 1,
        "step": state.step,
        "stage": place.stage.name,
        "seconds": round(seconds, 3),
        **{name: value / steps for name, value in sums.items()},
        "lr": _rates(plan, state.step - 1),
        "images_per_second": images / seconds,
        "data_wait_percent": 100 * wait / seconds,
        "gates": [[round(value, 4) for value in row] for row in (shares / images).tolist()],
        "skipped_steps": int(skipped),
    }


def ramp(progress: float) -> float:
    """Return the share of the uncertainty loss: 0 for the first 30 %, then a cosine rise to 1."""
    return 0.5 * (1 - math.cos(math.pi * min(max((progress - 0.3) / 0.7, 0.0), 1.0)))


def backbone_blocks(net: nn.Module) -> list[list[nn.Module]]:
    """Return the network's backbone, in blocks from shallow to deep."""
    return net.backbone_blocks()  # type: ignore[operator]


def _record(
    state: TrainState, plan: Plan, place: Place, values: dict[str, float]
) -> dict[str, Any]:
    return {
        "epoch": place.epoch + 1,
        "step": state.step,
        "stage": place.stage.name,
        "lr": _rates(plan, state.step - 1),
        "images_per_second": values["images"] / values["seconds"],
        **{name: value for name, value in values.items() if name != "images"},
    }


def _rates(plan: Plan, step: int) -> dict[str, float]:
    return {"head": plan.lr(step, None), "backbone": plan.lr(step, 1)}


def _groups(batches: Iterable[Batch], size: int) -> Iterator[tuple[list[Batch], float]]:
    """Yield up to `size` batches at a time, and the seconds spent waiting for them."""
    group: list[Batch] = []
    waited, started = 0.0, time.perf_counter()
    for batch in batches:
        waited += time.perf_counter() - started
        group.append(batch)
        if len(group) == size:
            yield group, waited
            group, waited = [], 0.0
        started = time.perf_counter()
    if group:
        yield group, waited


def _keep_preview(
    preview: dict[str, list[np.ndarray]], batch: Batch, probability: Tensor, gates: Tensor
) -> None:
    kept = sum(len(part) for part in preview.get("mask", []))
    if kept >= PREVIEWS:
        return
    arrays = {
        "image": batch["image"].permute(0, 2, 3, 1),
        "mask": batch["mask"][:, 0],
        "probability": (probability[:, 0] * 255).round().to(torch.uint8),
        "gates": gates.float(),
        "index": batch["index"],
    }
    for name, values in arrays.items():
        preview.setdefault(name, []).append(values.cpu().numpy())


def _add(sums: dict[str, float], values: dict[str, float]) -> None:
    for name, value in {**values, "steps": 1.0}.items():
        # A skipped step's loss may be infinite; it is counted as skipped, not averaged.
        sums[name] = sums.get(name, 0.0) + (value if math.isfinite(value) else 0.0)


def _plus(total_so_far: Tensor | None, more: Tensor) -> Tensor:
    return more if total_so_far is None else total_so_far + more


def _count(batches: list[Batch]) -> int:
    return sum(len(batch["index"]) for batch in batches)
