"""Flags that several commands share; those of the settings are made from their table."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.reading import Reading
from ..settings.config import GROUPS, PRESETS, Config, flag_of, plain_type

Options = dict[str, Any]
DEVICES = ("auto", "cuda", "cpu")
READING = (
    *("image_folder", "mask_folder", "mask_suffix", "mask_object", "mask_invert", "mask_exif"),
    "ignore_label",
)


def add_command(
    commands: Any, name: str, function: Callable[[Options], int]
) -> argparse.ArgumentParser:
    """Add a command that `function` carries out; its docstring is the help."""
    sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
    sub.set_defaults(command=function)
    return sub


def add_preset(sub: argparse.ArgumentParser) -> None:
    """Add what settings begin with."""
    sub.add_argument("--preset", default="auto", help=f"auto, {', '.join(PRESETS)}")
    sub.add_argument("--config", default="", help="a run's config.json instead of a preset")


def add_settings(sub: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; what is not given stays absent, so presets show through."""
    groups = {name: sub.add_argument_group(name) for name in GROUPS}
    for item in dataclasses.fields(Config):
        if item.name == "preset":
            continue
        kind, optional = plain_type(item)
        shape: dict[str, Any] = {"help": item.metadata["help"], "default": argparse.SUPPRESS}
        if kind is bool:
            shape["action"] = argparse.BooleanOptionalAction
        else:
            shape["type"] = _or_none(kind) if optional else kind
            shape["metavar"] = {int: "N", float: "X", str: "TEXT"}[kind]
        groups[item.metadata["group"]].add_argument(flag_of(item.name), dest=item.name, **shape)


def add_images(sub: argparse.ArgumentParser) -> None:
    """Add which images are scored, and where."""
    sub.add_argument(
        "--dataset-path", nargs="+", default=[], metavar="DIR", help="folders of images and masks"
    )
    sub.add_argument(
        "--split",
        default="auto",
        choices=("auto", "test", "validation", "all"),
        help="which images; auto: the test split, or what the run held out",
    )
    sub.add_argument("--noncam", action="store_true", help="score COD10K's NonCAM images too")
    add_device(sub)


def add_reading(sub: argparse.ArgumentParser) -> None:
    """Add how a data set is read, as `train` has it."""
    group = sub.add_argument_group("how the data are read (default: as the run's own data are)")
    for item in dataclasses.fields(Config):
        if item.name in READING:
            shape: dict[str, Any] = {"help": item.metadata["help"], "default": argparse.SUPPRESS}
            kind, _ = plain_type(item)
            if kind is bool:
                shape["action"] = argparse.BooleanOptionalAction
            else:
                shape |= {"type": kind, "choices": item.metadata.get("choices")}
                shape["metavar"] = {int: "N", str: "TEXT"}[kind]
            group.add_argument(flag_of(item.name), dest=item.name, **shape)


def taken_reading(options: Options) -> Reading | None:
    """Return how the data are to be read, None if nothing was said; takes it out of `options`."""
    given = {name: options.pop(name) for name in READING if name in options}
    return Reading.of(Config(**given)) if given else None


def add_views(sub: argparse.ArgumentParser) -> None:
    """Add test-time augmentation."""
    sub.add_argument("--flip", action="store_true", help="average with the mirrored image's map")
    sub.add_argument(
        "--scales", type=float, nargs="+", default=[1.0], help="average over these image scales"
    )


def add_which(sub: argparse.ArgumentParser) -> None:
    """Add which of a run's weights are used."""
    sub.add_argument(
        "--which", default="best", choices=("best", "last"), help="the best weights, or the last"
    )


def add_device(sub: argparse.ArgumentParser) -> None:
    """Add where the network computes."""
    sub.add_argument("--device", default="auto", choices=DEVICES)


def write_json(path: str, values: Any) -> None:
    """Write plain values to the file that was asked for, if one was."""
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _or_none(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return None if text == "none" else kind(text)

    read.__name__ = kind.__name__  # argparse names it when a text does not fit
    return read
