"""What settings may be: each by its type and limits, and all of a `Config` together."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outside.paths import given
from ..outside.spelling import alike

STRIDE = 32  # of the deepest features, in pixels: no image is smaller
NONE = "none"  # on the command line: no value, or no path
LOGS = ("csv", "tensorboard", "wandb")  # where a training's numbers can go
BOUNDS = (
    ("low", "at least", operator.ge),
    ("above", "above", operator.gt),
    ("high", "at most", operator.le),
)


def flag_of(name: str) -> str:
    """Return the command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def flag_with(name: str, value: str) -> list[str]:
    """Return a setting's flag and its value; one that looks like a flag, as -gt, is bound to it."""
    number = value[1:].replace(".", "").isdecimal()
    flag = flag_of(name)
    return [f"{flag}={value}"] if value.startswith("-") and not number else [flag, value]


def typed(item: dataclasses.Field[Any], value: Any, kind: type, optional: bool) -> Any:
    """Return the value in the setting's type, a path with its `~` replaced; else InputError."""
    if value is None and optional:
        return None
    number = isinstance(value, int) and not isinstance(value, bool)
    if number if kind is int else isinstance(value, kind):
        return _placed(item, value)
    if (kind is float and number and abs(value) < 1e300) or (
        kind is str and isinstance(value, Path)
    ):
        return _placed(item, kind(value))
    raise InputError(
        f"{item.name} is {value!r} ({type(value).__name__}), but must be of type {kind.__name__}."
    )


def _placed(item: dataclasses.Field[Any], value: Any) -> Any:
    """Return a path with its `~` replaced, an empty one and anything else as it is."""
    return str(given(value, flag_of(item.name))) if value and "path" in item.metadata else value


def check_limits(
    item: dataclasses.Field[Any], value: Any, preset: str = "", own: Mapping[str, Any] | None = None
) -> None:
    """Raise InputError for a value outside the setting's limits.

    own: what the preset sets otherwise than the defaults, to name what is usual there.
    """
    limits = item.metadata
    if value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{flag_of(item.name)} is {value}, but must be a finite number.")
    if "choices" in limits and value not in limits["choices"]:
        raise InputError(
            f"{flag_of(item.name)} is '{value}'; it must be one of {', '.join(limits['choices'])}"
            f"{near(str(value), limits['choices'])}"
        )
    bounds = [(words, limits[key], holds) for key, words, holds in BOUNDS if key in limits]
    if not all(holds(value, bound) for _, bound, holds in bounds):
        wanted = " and ".join(f"{words} {bound}" for words, bound, _ in bounds)
        its = (own or {}).get(item.name, item.default)
        usual = "" if its is None else f"; preset {preset}: {its}" if own else f"; usually {its}"
        raise InputError(
            f"{flag_of(item.name)} is {value}, but must be {wanted} ({limits['help']}{usual})."
        )


def check_together(config: Any) -> None:
    """Raise InputError for settings of a `Config` that contradict each other."""
    if not re.fullmatch(r"auto|nonzero|\d+(,\d+)*", config.mask_object):
        raise InputError(
            f"--mask-object is '{config.mask_object}'; give auto, nonzero, or the mask values "
            "that are object, as 1 or 1,3."
        )
    if str(config.ignore_label) in config.mask_object.split(","):
        raise InputError(
            f"--mask-object {config.mask_object} and --ignore-label {config.ignore_label} name the "
            "same value: it is either object or counts nowhere. Leave it out of one of them."
        )
    if config.start_size and not STRIDE <= config.start_size <= config.img_size:
        raise InputError(
            f"--start-size is {config.start_size}; images grow from it to --img-size "
            f"{config.img_size}, so it must be from {STRIDE} to that, or 0 for none."
        )
    _check_gpus(config.gpus)
    log_names(config.log)
    fold_of(config.fold)
    first = config.stage1_epochs or 0
    if first > config.epochs:
        raise InputError(
            f"--stage1-epochs {first} is more than --epochs {config.epochs}, which "
            "counts both stages. Raise --epochs or lower --stage1-epochs."
        )
    for flag, rate in (("--lr", config.lr), ("--stage2-lr", config.stage2_lr)):
        if rate is not None and config.min_lr >= rate:
            raise InputError(
                f"--min-lr {config.min_lr:g} is not below {flag} {rate:g}, so the learning rate "
                "would rise instead of fall. Lower --min-lr (1e-5 is usual)."
            )
    if config.skip_stage1 and first == config.epochs:
        raise InputError(
            f"--skip-stage1 leaves nothing to train: all {config.epochs} epochs are stage one."
        )


def in_strides(side: float) -> int:
    """Return the nearest side of an image, in pixels, that is a whole number of strides."""
    return max(round(side / STRIDE), 1) * STRIDE


def fold_of(text: str) -> tuple[int, int]:
    """Return which fold of how many `--fold` names, (0, 0) for none; InputError for others."""
    if text.strip().lower() in ("", NONE):
        return 0, 0
    found = re.fullmatch(r"\s*(\d{1,4})\s*/\s*(\d{1,4})\s*", text)
    fold, folds = map(int, found.groups()) if found else (0, 0)
    if not (0 < fold <= folds and folds > 1):
        raise InputError(
            f"--fold is '{text}'; give the fold that validates and how many there are, as 2/5 (the "
            "first is 1/5, the last 5/5). `camoxpert repeat --folds 5` trains all of them."
        )
    return fold, folds


def _check_gpus(gpus: str) -> None:
    """Raise InputError for what names no GPUs, whichever of them are here."""
    numbers = [part.strip() for part in gpus.split(",")]
    if gpus == "all" or (all(part.isdecimal() for part in numbers) and _once(numbers)):
        return
    raise InputError(
        f"--gpus is '{gpus}'; it must be all, or the numbers of GPUs, each once, as 0 or 0,1."
    )


def _once(numbers: list[str]) -> bool:
    return len(set(map(int, numbers))) == len(numbers)


def log_names(text: str) -> tuple[str, ...]:
    """Return what `--log` names, in lower case, each once; InputError for what is none of LOGS."""
    names = [name.strip().lower() for name in text.replace(";", ",").split(",") if name.strip()]
    for name in names:
        if name not in (*LOGS, NONE):
            raise InputError(
                f"--log names '{name}'; it takes {', '.join(LOGS)}, several with commas"
                f"{near(name, LOGS)}"
            )
    return tuple(dict.fromkeys(name for name in names if name != NONE))


def near(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence: the known names that are like this one, or a full stop.

    Capitals, and - for _, make no other name.
    """
    folded = {_folded(each): each for each in known}
    found = [_folded(name)] if _folded(name) in folded else []
    found = found or alike(_folded(name), folded)
    return f"; did you mean {' or '.join(folded[each] for each in found)}?" if found else "."


def _folded(name: str) -> str:
    return name.lower().replace("_", "-").strip("-")
