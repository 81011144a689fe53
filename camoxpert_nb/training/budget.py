"""How much time a session has left, what fits into it, and plans that do.

On Kaggle a session ends after twelve hours, and what was not saved by then is lost. So a training
there ends itself before, and says beforehand how far it will come.
"""

from __future__ import annotations

import bisect
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..outside.reading import number_in
from ..settings.config import Config, with_changes
from .schedule import Plan, build_plan

SESSION = 12 * 60.0  # minutes of a Kaggle session with GPUs
RESERVE = 20.0  # minutes of it for what follows the training: scoring, figures, saving of outputs
DEADLINES = (1e9, 1e10)  # Unix times from 2001 to 2286: less are minutes, more milliseconds
QUOTA = 30  # hours with GPUs that Kaggle gives in a week


def minutes_left() -> float:
    """Return the minutes until this session ends by force; infinite where none does.

    CAMOXPERT_DEADLINE (a Unix time) says so; on Kaggle the kit sets it (`kaggle.session`). Raises
    InputError when it holds anything else.
    """
    expected = f"a Unix time in seconds, as {time.time() + 60 * SESSION:.0f} (12 hours from now)"
    end = number_in("CAMOXPERT_DEADLINE", *DEADLINES, expected)
    return (end - time.time()) / 60 if end else math.inf


def minutes_to_train(wished: float = 0.0, used: float = 0.0) -> float:
    """Return after how many minutes a training that starts now has to end; infinite: never.

    `wished` is `--time-budget`, 0 for none, of which `used` minutes are over. Raises InputError
    when the session is nearly over.
    """
    left = minutes_left() - RESERVE
    if left <= 0:
        raise InputError(
            f"the session ends in {max(left + RESERVE, 0):.0f} minutes, too few to train and save. "
            "Start a new one (Save Version > Save & Run All); a run among its inputs goes on there."
        )
    return min(left, max(wished - used, 0.0) if wished else math.inf)


def ends_at(budget: float, began: float | None = None) -> float:
    """Return when a training has to end, as time.time() tells it; infinite: when it is done.

    `budget` is `--time-budget` in minutes, which count from `began`, by default from now.
    """
    passed_minutes = 0.0 if began is None else (time.time() - began) / 60
    return time.time() + 60 * minutes_to_train(budget, passed_minutes)


def minutes_gone() -> float:
    """Return how many minutes of the session are over; 0 where none ends."""
    left = minutes_left()
    return max(SESSION - left, 0.0) if left < math.inf else 0.0


@dataclass(frozen=True)
class Forecast:
    """How far a training comes: `fits` of `epochs` are done when it ends, after `minutes` of it.

    `hours` is what is left to train in all; `elapsed` minutes of the session have passed before.
    """

    fits: int
    epochs: int
    hours: float
    minutes: float
    sessions: int
    elapsed: float

    def __str__(self) -> str:
        if self.sessions == 1:
            every = f"all {self.epochs} epochs" if self.epochs > 1 else "its one epoch"
            return f"fits {every} into this session: {spoken(self.minutes)} of training"
        return (
            f"fits {self.fits} of {self.epochs} epochs; stops "
            f"{spoken(self.elapsed + self.minutes)} after the session began, with a resume point; "
            f"needs {self.sessions} sessions, about {self.hours:.{self.hours < 10:d}f} of your "
            f"{QUOTA} hours a week"
        )


def how_far(
    plan: Plan,
    seconds_per_image: Mapping[int, float],
    minutes: float,
    *,
    between: float = 0.0,
    place: tuple[int, int] = (0, 0),
    elapsed: float = 0.0,
    session: float = SESSION - RESERVE,
) -> Forecast:
    """Return what fits into `minutes` of training from `place` on: an epoch and its images seen.

    `seconds_per_image` is a device's time for one whole training image by the number of open
    backbone blocks; devices work side by side. `between`: seconds from an epoch to the next, for
    validation and saving. `session`: minutes that each later session has.
    """
    used, ends = 0.0, []  # seconds until each epoch ends
    for stage in plan.stages:
        images = stage.effective / plan.devices  # a device's, in a step
        for epoch in range(stage.first_epoch, stage.last_epoch):
            if epoch >= place[0]:
                steps = plan.steps_left(epoch, place[1] if epoch == place[0] else 0)
                each = stage.area * seconds_per_image[stage.open_blocks]
                used += steps * images * each + between
            ends.append(used)
    later = max(used / 60 - minutes, 0.0)
    return Forecast(
        fits=sum(end <= minutes * 60 for end in ends),
        epochs=plan.epochs,
        hours=used / 3600,
        minutes=min(used / 60, minutes),
        sessions=1 + math.ceil(later / session),
        elapsed=elapsed,
    )


def fit_to_budget(
    config: Config,
    images: int,
    devices: int,
    seconds_per_image: Mapping[int, float],
    minutes: float,
    between: float = 0.0,
) -> Config:
    """Return the settings with as many epochs as fit into `minutes`, and what follows from them.

    Raises InputError when not one epoch fits.
    """

    def too_long(epochs: int) -> bool:
        plan = build_plan(with_changes(config, {"epochs": epochs}), images, devices)
        place = (plan.first_epoch_of_part(2) if config.skip_stage1 else 0, 0)
        return how_far(plan, seconds_per_image, minutes, between=between, place=place).sessions > 1

    options = range(1, config.epochs + 1)
    fitting = bisect.bisect_left(options, True, key=too_long)
    if fitting:
        return with_changes(config, {"epochs": options[fitting - 1]})
    raise InputError(
        f"not even one epoch can be trained in {max(minutes, 0):.1f} minutes. Lower --img-size, "
        "take a smaller --backbone, give more time (--time-budget), or leave out --fit-to-budget: "
        "the run then stops in time and goes on in the next session."
    )


def clock(minutes: float) -> str:
    """Return minutes as hours and minutes: 11:40."""
    return "{}:{:02d}".format(*divmod(round(minutes), 60))


def spoken(minutes: float) -> str:
    """Return minutes as people say them: less than a minute, 40 min, 11 h 40 min."""
    if minutes < 1:
        return "less than a minute"
    hours, rest = divmod(round(minutes), 60)
    return " ".join([f"{hours} h"] * (hours > 0) + [f"{rest} min"] * (rest > 0))


GB = 1e9


def disk_forecast(
    images: int, size: int, parameters: int, cache: Path, run: Path, kept: int = 0
) -> str:
    """Say how much disk a training needs, and where.

    The cache holds four bytes a pixel (red, green, blue, mask) of `images` at `size` pixels.
    last.pt holds weights, average and two Adam moments, four bytes each, and is there twice while
    it is written; best.pt, and each of the `kept` best epochs and one more while it is written, the
    weights. Raises InputError when there is no room.
    """
    wanted = (
        ("images", cache, images * 4 * size**2 / GB),
        ("checkpoints", run, (2 * 4 + 1 + kept + bool(kept)) * 4 * parameters / GB),
    )
    parts = []
    for what, folder, need in wanted:
        there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
        free = shutil.disk_usage(there).free / GB
        if need > free:
            raise InputError(
                f"{what} need {need:.1f} GB in {folder}, which has {free:.1f} GB free. Free some, "
                "or choose other places with --cache-dir and --checkpoint-dir."
            )
        told = f"{need:.1f}" if need >= 0.05 else "under 0.1"
        parts.append(f"{what} {told} GB in {folder} ({free:.0f} GB free)")
    return ", ".join(parts)
