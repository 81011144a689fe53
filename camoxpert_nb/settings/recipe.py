"""What follows from the length of a training: stages in proportion, and our own recipe.

Pure functions of epochs, photos and batches. A setting that is None in a `Config` is open: `decide`
(settings.decide) gives it the recipe's value once photos and batch are known. Between the rows of a
table values are read off over the logarithm of the length; outside they stay as at its end.

Two things are called length. What over-fitting hangs on are passes over the photos: the epochs.
What rates hang on is how far weights can move. For Adam that is the photos seen, if rates go with
the square root of the batch (Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient
Algorithms", 2022): here in steps of EIGHT, so that no batch changes the recipe but by that root.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

EIGHT = 8  # photos of a step that rates and lengths below are told in


class ByPasses(NamedTuple):
    """A row of what hangs on passes over the photos."""

    augment: float
    uncertainty: float


class BySteps(NamedTuple):
    """A row of what hangs on steps of eight photos; stage one and warm-up as shares of them."""

    lr: float
    stage2_lr: float
    backbone_lr_factor: float
    stage1: float
    warmup: float


# The first rows were measured: 600 steps, 6 epochs of 797 photos (LOG.md, "what the recipe is made
# of"). The last ones are the guide's 140 epochs of 4,040 photos and published recipes. A row
# between them is one more line.
PASSES = {
    # Of the uncertainty loss at 192 px, in two folds (benchmarks/ACCURACY.md).
    6: ByPasses(augment=0.25, uncertainty=8.0),
    # The guide's and everybody's full augmentation; ZoomNeXt's weight of the uncertainty loss.
    140: ByPasses(augment=1.0, uncertainty=1.0),
}
STEPS = {
    600: BySteps(lr=1e-3, stage2_lr=1e-3, backbone_lr_factor=0.4, stage1=0.0, warmup=0.0),
    # The guide's 6.5e-4 at 32 and 1.5e-4 at 24 photos; its backbone factor, as ZoomNeXt's. Stage
    # one between the guide's 30 epochs and the field's none, warm-up the field's one to three.
    70_700: BySteps(lr=3.25e-4, stage2_lr=8.66e-5, backbone_lr_factor=0.1, stage1=0.1, warmup=0.02),
}
# The most weight of the uncertainty loss where all weights begin at random: maps that are often
# wrong are better not pressed to be certain.
UNTRAINED = 2.0
MOST_LR = 1.5e-3  # 1e-3 was good and 2e-3 cost .03 IoU, both at batch 8
# Blocks open in thirds only in trainings about as long as the guide's: 60 epochs of 4,040 photos.
PROGRESSIVE_FROM = 30_000  # steps of eight
# Of the moving average: what it looks back on at the end of the measured runs, by its warm-up; with
# the field's longest (0.9998), and at least a few steps.
WINDOW, FEWEST, MOST = 0.1, 10, 5000
# Below this strength of the recipe a run is short for the guide's numbers: up to about 25 epochs.
SHORT = 0.6

IN_PROPORTION = ("stage1_epochs", "warmup_epochs")
# Settings that the recipe can decide; stage two's rate with stage one's.
DECIDED = (
    *("augment", "uncertainty", "lr", "backbone_lr_factor", "ema_decay"),
    *("stage1_epochs", "warmup_epochs", "progressive_unfreeze"),
)


def recipe(
    epochs: int, photos: int, batch: int, stage2_batch: int = 0, *, pretrained: bool = True
) -> dict[str, Any]:
    """Return the settings for `epochs` of `photos` to train, with so many photos in a step.

    `stage2_batch` is that of stage two, 0: as in stage one. `pretrained`: the backbone begins with
    weights that know photos. Holds DECIDED and "stage2_lr". With more epochs rates, the backbone's
    factor and the uncertainty's weight fall or stay; all else rises or stays.
    """
    later, seen = stage2_batch or batch, epochs * max(photos, 1)
    steps = seen / EIGHT
    augment, uncertainty = _read_off(PASSES, epochs)
    uncertainty = uncertainty if pretrained else min(uncertainty, UNTRAINED)
    lr, stage2_lr, factor, stage1, warmup = _read_off(STEPS, steps)
    last, end = max(STEPS), STEPS[max(STEPS)]
    first = _epochs_of(stage1, end.stage1 * last / steps, epochs)
    return {
        "augment": round(augment, 3),
        "uncertainty": round(uncertainty, 3),
        "lr": _rate(lr, batch),
        "stage2_lr": _rate(stage2_lr, later),
        "backbone_lr_factor": round(factor, 3),
        "ema_decay": round(1 - 1 / min(max(WINDOW * seen / later, FEWEST), MOST), 6),
        "stage1_epochs": first,
        "warmup_epochs": _epochs_of(warmup, end.warmup * last / steps, epochs),
        "progressive_unfreeze": first > 0 and steps >= PROGRESSIVE_FROM,
    }


def in_proportion(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes with which stages and warm-up keep their share of the epochs.

    `values` are the settings before. What the changes give holds, and what is open stays open. Half
    an epoch is rounded down: stage one must leave something to train.
    """
    epochs, before = changes.get("epochs"), values["epochs"]
    if type(epochs) is not int or epochs < 1:  # none is asked for, or `Config` refuses it
        return dict(changes)
    scaled = {
        name: (2 * epochs * values[name] + before - 1) // (2 * before)
        for name in IN_PROPORTION
        if values[name] is not None
    }
    if "stage1_epochs" in scaled and values["stage1_epochs"] < before:  # two of three: none of one
        scaled["stage1_epochs"] = min(scaled["stage1_epochs"], epochs - 1)
    return {**scaled, **changes}


def in_words(values: Mapping[str, Any]) -> str:
    """Return what the recipe decided, as augment 0.25, lr 0.001."""
    return ", ".join(
        f"{name} {value:g}" if not isinstance(value, bool) else f"{name} {'on' if value else 'off'}"
        for name, value in values.items()
    )


def advice(augment: float, epochs: int) -> str:
    """Return what our recipe does better in a run so short and with so strong an augmentation.

    Nothing where it is long, or as mild as the recipe.
    """
    mild = round(_read_off(PASSES, epochs)[0], 3)
    if mild >= SHORT or augment <= mild:
        return ""
    return (
        f"{epochs} epochs are few for this preset's numbers: --preset auto would augment by "
        f"{mild:g} instead of {augment:g} and train the backbone at once and faster, which gave "
        "IoU .574 instead of .537 in 6 epochs of 797 photos"
    )


def _read_off(table: Mapping[int, tuple[float, ...]], length: float) -> tuple[float, ...]:
    """Return a row of the table at any length, between two of its rows over the logarithm."""
    rows = sorted(table)
    if length <= rows[0]:
        return table[rows[0]]
    for low, high in itertools.pairwise(rows):
        if length < high:
            share = math.log(length / low) / math.log(high / low)
            return tuple(
                _between(a, b, share) for a, b in zip(table[low], table[high], strict=True)
            )
    return table[rows[-1]]


def _between(start: float, end: float, share: float) -> float:
    """Return a value on the way: in equal factors where it falls, in equal steps where it rises."""
    if 0 < end < start:  # rates, factors and weights
        return start * (end / start) ** share
    return start + (end - start) * share


def _rate(rate: float, batch: int) -> float:
    return float(f"{min(rate * math.sqrt(batch / EIGHT), MOST_LR):.3g}")


def _epochs_of(share: float, most: float, epochs: int) -> int:
    """Return the epochs of a share, of which `most` are as many steps as in the longest row."""
    return math.floor(min(share, most) * epochs + 0.5)
