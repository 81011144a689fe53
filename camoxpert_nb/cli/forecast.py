"""The dry run for GPUs that are not here: `train --dry-run --on CARD`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InputError
from ..outside.terminal import tell
from .flags import write_json
from .parser import Options

EXAMPLE = "`camoxpert train --dry-run --on t4x2 --images 4040`"


def forecast_flags(sub: argparse.ArgumentParser) -> None:
    """Add the card, and how many images."""
    sub.add_argument(
        "--on",
        default="",
        metavar="CARD",
        help="of a dry run: forecast it for these GPUs, which need not be here: t4x2, a100, ...",
    )
    sub.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="with --on: so many images to train and validate, instead of the data set's",
    )


def refuse_mixed(options: Options) -> None:
    """Raise InputError for flags of a forecast that ask for more than a forecast."""
    on, images = options["on"], options["images"]
    if not on and images is None:
        return
    if not on or not options["dry_run"]:
        raise InputError(f"--on CARD, --images N and --dry-run belong together, as in {EXAMPLE}.")
    if images is not None and images < 1:
        raise InputError(f"--images is {images}; it must be at least 1, as in {EXAMPLE}.")
    if options["fit_to_budget"] or options["resume_from"]:
        raise InputError(
            "--on forecasts a new training: leave out --fit-to-budget and --resume-from. The "
            "forecast says how long an epoch takes; --epochs sets how many there are."
        )


def forecast(options: Options, choose: Callable[[Options, Sequence[float]], Any]) -> int:
    """Say what the training that `choose` makes of the flags would cost on other GPUs.

    Raises InputError for an unknown card.
    """
    on, images = options.pop("on"), options.pop("images")
    from ..forecast.forecast import forecast_on
    from ..machine.cards import find_card

    card, count = find_card(on)
    order = choose(options, [card.gib] * count)
    found = forecast_on(order.config, on, images or 0)
    tell("\n".join(filter(None, [order.reason, found["text"]])))
    write_json(order.json, found)
    return 0
