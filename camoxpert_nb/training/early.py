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
    best, epoch = state.best, state.epoch
    if config.stop_at_target and best["iou"] >= config.target_iou:
        return (
            f"the target is reached: IoU {best['iou']:.3f} at epoch {best['epoch']}, to reach "
            f"{config.target_iou:g}"
        )
    since = last_better(best)
    waited = epoch - max(since["epoch"], _stage_two(plan))
    if not 0 < config.patience <= waited:
        return ""
    return (
        f"in the last {waited} epochs none was better than epoch {since['epoch']} (IoU "
        f"{since['iou']:.3f}) by more than chance"
    )


def refuse_over(config: Config, plan: Plan, state: TrainState) -> None:
    """Raise Over, with the flags that let it go on, where a run that is resumed has ended."""
    why = why_over(config, plan, state)
    if not why:
        return
    if config.stop_at_target and state.best["iou"] >= config.target_iou:
        way_on = "--no-stop-at-target, or a higher --target-iou"
    else:
        way_on = f"--patience 0, or more than {config.patience}"
    raise Over(
        f"this run is over since epoch {state.epoch} of {plan.epochs}: {why}. To go on all the "
        f"same, give {way_on}."
    )


def _stage_two(plan: Plan) -> int:
    """Return how many epochs are over when stage two begins; 0 where there is none."""
    return next((stage.first_epoch for stage in plan.stages if stage.part == 2), 0)
