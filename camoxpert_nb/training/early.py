"""When a training is over before its last epoch: nothing gets better, or the target is reached."""

from __future__ import annotations

from ..errors import InputError
from ..settings.config import Config
from .best import last_better
from .schedule import Plan
from .state import TrainState


class Over(InputError):
    """A run that has ended by its own settings is asked to go on."""


def why_over(config: Config, plan: Plan, state: TrainState) -> str:
    """Say why a training ends here, between two epochs, or nothing while it goes on.

    `patience` counts epochs without a better score; better is what exceeds all before by more than
    chance, as best.pt judges. Stage two has its own count, and stage one ends no training that
    has a stage two: there the backbone has not learned yet. What is said follows from settings and
    state alone, so a run that is resumed knows it too.
    """
    if not state.best or state.epoch >= plan.epochs:
        return ""
    best = state.best
    if config.stop_at_target and best["iou"] >= config.target_iou:
        return (
            f"the target is reached: IoU {best['iou']:.3f} at epoch {best['epoch']}, to reach "
            f"{config.target_iou:g}"
        )
    since, waited = last_better(best), _waited(plan, state)
    if not 0 < config.patience <= waited:
        return ""
    lately = (
        f"none of the last {waited} epochs was" if waited > 1 else f"epoch {state.epoch} is not"
    )
    return (
        f"{lately} better than epoch {since['epoch']} (IoU {since['iou']:.3f}) by more than chance"
    )


def refuse_over(config: Config, plan: Plan, state: TrainState) -> None:
    """Raise Over, with the flags that let it go on, where a run that is resumed has ended."""
    why = why_over(config, plan, state)
    if not why:
        return
    if config.stop_at_target and state.best["iou"] >= config.target_iou:
        way_on = "--no-stop-at-target, or a higher --target-iou"
    else:
        way_on = f"--patience 0, or more than {_waited(plan, state)}"
    raise Over(
        f"this run is over since epoch {state.epoch} of {plan.epochs}: {why}. To go on all the "
        f"same, give {way_on}."
    )


def _waited(plan: Plan, state: TrainState) -> int:
    """Return the epochs of stage two, if there is one, since a better score; negative before it."""
    begins = next((stage.first_epoch for stage in plan.stages if stage.part == 2), 0)
    return state.epoch - max(last_better(state.best)["epoch"], begins)
