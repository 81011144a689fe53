"""Whether a state is worth keeping, and the way on where the training has lost its numbers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import TrainingError
from ..runs.run import Run
from ..settings.config import Config, as_flags
from .state import TrainState

WORKS = {"lr": 6.5e-4, "stage2_lr": 1.5e-4, "clip": 1.0, "deep_weight": 1.0, "balance": 0.1}
WORKS |= {"uncertainty": 0.0}  # values that no training is known to break at
FEW = 3  # skipped steps in a row after which a state is not saved
FEW_SCALED = 12  # under fp16, whose scaler looks for its scale by skipping


def why_unsound(state: TrainState, *, epoch_ends: bool = False) -> str:
    """Say why a state shall not be saved as a good one, or "".

    It is no good when a number in it is not finite, or when the last steps could not be taken: then
    nothing says that any later one can. Where an epoch ends that is already so after one step, but
    under fp16.
    """
    most = FEW_SCALED if state.scaler.is_enabled() else 1 if epoch_ends else FEW
    if state.skipped_in_row >= most:
        steps = f"the last {state.skipped_in_row} steps" if most > 1 else "the last step"
        return f"{steps} had gradients that are not finite"
    for what, tensors in _parts(state):
        floating = [each for each in tensors if each.is_floating_point()]
        if floating and not torch.stack([each.isfinite().all() for each in floating]).all():
            return f"its {what} are not finite"
    return ""


def why_spoiled(state: TrainState, *, all_skipped: bool) -> str:
    """Say why an epoch brought nothing, or spoiled the weights, or ""."""
    if all_skipped and not state.scaler.is_enabled():
        return f"all steps of epoch {state.epoch} had gradients that are not finite"
    if state.skipped_in_row:
        return ""  # not saved, and one more epoch tells
    return why_unsound(state, epoch_ends=True)


def _parts(state: TrainState) -> Iterator[tuple[str, list[Tensor]]]:
    yield "weights", [*state.net.state_dict().values()]
    if state.ema:
        yield "averaged weights", [*state.ema.module.state_dict().values()]
    moments = [value for each in state.optimizer.state.values() for value in each.values()]
    yield "moments", [value for value in moments if isinstance(value, Tensor)]


def diverged(run: Run, config: Config, why: str, state: TrainState) -> TrainingError:
    """Return the error for a training that has lost its numbers, with advice that works."""
    if state.own.names:
        return _diverged_by(state, run, why)
    flags = shlex.join(as_flags(_gentler(config)))
    number = next(n for n in range(2, 1000) if not _beside(run, n).exists())
    anew = f"camoxpert train --config {run.config_path} {flags} --checkpoint-dir"
    saved = "last.pt stays as it was before" if run.has("last") else "nothing was saved"
    return TrainingError(
        f"{why}, so training cannot go on; {saved}. The steps are too large: go on with "
        f"`camoxpert resume {run.folder} {flags}`. If it ends so again, the weights were spoiled "
        f"before they were saved: begin anew with `{anew} {_beside(run, number)}`. "
        "`camoxpert data` finds damaged images; --no-amp computes in float32."
    )


def _diverged_by(state: TrainState, run: Run, why: str) -> TrainingError:
    """Return the error for a training with parts of the user's own: one may be to blame."""
    names = state.own.names
    saved = "last.pt stays as it was before" if run.has("last") else "nothing was saved"
    if "loss" in names and state.unsound_loss:
        blame = f"Your loss{_named(names)} gave no number: guard its log, sqrt and divisions"
    elif "loss" in names:
        blame = f"The gradient of your loss{_named(names)} may be infinite, as that of sqrt at 0"
    else:
        blame = f"Your own {state.own.in_words} may be to blame, or a learning rate too large"
    return TrainingError(
        f"{why}, so training cannot go on; {saved}. {blame}. Mend it and go on with "
        f"`{state.own.call(run.folder)}`, or begin anew with a lower lr in make_config."
    )


def _beside(run: Run, number: int) -> Any:
    return run.folder.with_name(f"{run.folder.name}-{number}")


def _gentler(config: Config) -> dict[str, Any]:
    """Return settings that take smaller steps: those that are larger than what is known to work."""
    now = config.as_dict()
    changes = {
        name: value
        for name, value in WORKS.items()
        if now[name] is not None and now[name] > max(value, 1e-12) and "lr" not in name
    }
    for name in ("lr", "stage2_lr"):
        if now[name] is not None:
            changes[name] = float(f"{min(now[name] / 10, WORKS[name]):.2g}")
    lowest = min(value for name, value in changes.items() if "lr" in name)
    if config.min_lr >= lowest:
        changes["min_lr"] = lowest / 100
    if config.weight_decay > 1:
        changes["weight_decay"] = 1e-4
    return changes


def _named(names: dict[str, str]) -> str:
    """Return the name of the user's loss behind a word, unless it is that word."""
    return "" if names["loss"] == "loss" else f" {names['loss']}"
