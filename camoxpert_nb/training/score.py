"""What an epoch's weights are worth: both are scored, the better of them is judged and shown."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from ..machine.devices import bare
from ..runs.run import Run
from .best import choose_weights
from .prepare import Loaders, Training
from .validate import Validation, preview, validate


class Judged(NamedTuple):
    """The weights that are judged ("raw" or "ema"), what they score, and the record of both."""

    weights: str
    net: nn.Module
    scored: Validation
    record: dict[str, Any]
    finite: bool  # whether the raw weights give numbers


def nets_of(training: Training) -> dict[str, nn.Module]:
    """Return the network, and its average if there is one."""
    state = training.state
    return {"raw": state.net} | ({"ema": state.ema.module} if state.ema else {})


def judge(training: Training, loaders: Loaders, batch: int) -> Judged:
    """Score raw and averaged weights on the validation images, and choose between them."""
    nets, supervised = nets_of(training), bare(training.state.supervised)
    losses: dict[str, Any] = {"legacy": training.config.legacy_loss, "own": supervised.own}
    how = {"ranks": training.ranks, **losses, **_how(training)}
    scores = {name: validate(net, loaders.validation(batch), **how) for name, net in nets.items()}
    weights = choose_weights(scores)
    scored = scores[weights]
    record = {
        "iou": scores["raw"].iou,
        "iou_ema": scores["ema"].iou if "ema" in scores else None,
        "mae": scored.mae,
        "val_loss": scored.loss,
        "empty_masks": scored.empty,
    }
    return Judged(weights, nets[weights], scored, record, scores["raw"].finite)


def save_preview(training: Training, loaders: Loaders, run: Run, net: nn.Module) -> None:
    """Write how the same few validation images are predicted now."""
    arrays = preview(net, loaders.validation_set, **_how(training))
    pairs = training.data.validation
    names = [pairs[index].name for index in arrays.pop("index").tolist()]
    run.save_preview(arrays | {"names": names})


def _how(training: Training) -> dict[str, Any]:
    return {"dtype": training.precision.dtype, "device": training.devices.main}
