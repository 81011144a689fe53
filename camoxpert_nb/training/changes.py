"""What a run that goes on has other than before: taken over, without effect, or refused."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..settings.checks import flag_of
from ..settings.config import ON_RESUME, Config, differences
from ..settings.presets import PRESETS
from ..settings.recipe import IN_PROPORTION, recipe
from .schedule import Plan

LOW = 0.1  # of the rate, below which more epochs change little


def compare_settings(was: Config, now: Config, source: str) -> list[str]:
    """Return a line for each setting that changed since `source` was saved.

    Raises InputError for settings that need a new run.
    """
    changed = differences(now, was)
    lines = {}
    for kind, names in ON_RESUME.items():
        listed = [
            f"{flag_of(name)} {_shown(getattr(was, name))} -> {_shown(value)}"
            for name, value in changed.items()
            if name in names.split()
        ]
        if listed and kind == "a new run":
            raise InputError(
                f"{source} was trained with other settings ({', '.join(listed)}). A run goes on "
                "with the network and the images it began with, or its scores would not be true. "
                "Leave these flags out, or start a new run from its weights: --init-from."
            )
        lines[kind] = listed
    goes_on = [f"goes on with {line}" for line in lines["taken over"] + lines["of the machine"]]
    ignored = [f"{line} has no effect: the run began long ago" for line in lines["no effect"]]
    return [*goes_on, *_kept(was, now), *ignored]


def without_uncertainty(was: Config, now: Config) -> Config:
    """Return the settings with which a run goes on that takes a loss of the user's own.

    The recipe's weight of the uncertainty term, which is part of the kit's loss, is open then. A
    weight that the user gave stays.
    """
    by_recipe = PRESETS.get(was.preset, {}).get("uncertainty", 0.0) is None
    given = now.uncertainty != was.uncertainty
    usual = [recipe(was.epochs, 1, 1, pretrained=each)["uncertainty"] for each in (True, False)]
    if by_recipe and not given and was.uncertainty in usual:
        return now.replace(uncertainty=None)
    return now


def fallen(plan: Plan, place: tuple[int, int], was: Config, now: Config) -> list[str]:
    """Say that the rate is low already for the epochs that were added, and what to do instead.

    plan: that of the settings `now`; place: where the run is, in epochs and images of the next.
    """
    more, time = now.epochs - was.epochs, plan.time(*place)
    if more <= 0 or time >= plan.epochs:
        return []
    most, base = plan.highest(time, plan.epochs), plan.stage_at(time).lr
    if most >= LOW * base:
        return []
    return [
        f"the learning rate had fallen to {most:.2g}, of {base:g}, in the {was.epochs} epochs, and "
        f"does not rise again: {more} more change little. To train on at a higher rate begin a new "
        f"run from these weights: camoxpert train --init-from {now.checkpoint_dir}"
    ]


def _kept(was: Config, now: Config) -> list[str]:
    """Say what other epochs leave as it was, and how to change it."""
    if was.epochs == now.epochs:
        return []
    kept = [name for name in IN_PROPORTION if getattr(was, name) == getattr(now, name)]
    flags = " and ".join(f"{flag_of(name)} {getattr(now, name)}" for name in kept)
    lines = [f"{flags} stay as the run began; give them to change them"] if kept else []
    if was.preset == "auto":
        lines.append(
            f"the recipe's numbers stay those of {was.epochs} epochs; to have one decided anew, "
            "as --augment auto"
        )
    return lines


def _shown(value: Any) -> str:
    return (
        "none" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)
    )
