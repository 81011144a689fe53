"""Flags that several commands share; those of the settings are made from their table."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..data.reading import Reading
from ..outside.refused import naming
from ..settings.checks import flag_of
from ..settings.config import AUTO, GROUPS, NONE, OPEN, PRESETS, Config, plain_type
from ..settings.table import help_of
from .parser import FILE, FOLDER, NEW_JSON, READ, OnOff, Options, PathKind

STDOUT = "-"
DEVICES = ("auto", "cuda", "cpu")
READING = (
    *("image_folder", "mask_folder", "mask_suffix", "mask_object", "mask_invert", "mask_exif"),
    "ignore_label",
)

# Of a table that cannot know the preset.
DEFAULTS = (
    "The defaults below hold where the preset says nothing else. Preset auto, the usual one, takes "
    "what says `auto: by the recipe` from photos and epochs, without a GPU also fewer epochs and "
    "pixels; `camoxpert train --dry-run` shows what holds."
)


def add_command(
    commands: Any,
    name: str,
    function: Callable[[Options], int],
    before: Callable[[Options], None] = lambda options: None,
) -> argparse.ArgumentParser:
    """Add a command that `function` carries out; its docstring is the help.

    `before` raises InputError for flags that do not belong together, whatever their values are.
    """
    sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
    sub.set_defaults(command=function, before=before)
    return sub


def add_preset(sub: argparse.ArgumentParser) -> None:
    """Add what settings begin with."""
    help = f"{', '.join(PRESETS)}; by default auto, without a GPU and a data set demo"
    sub.add_argument("--preset", default="", help=help)
    help = "a run's config.json instead of a preset"
    sub.add_argument("--config", type=FILE, default="", help=help)


def add_settings(sub: argparse.ArgumentParser, given: str = "") -> None:
    """Add a flag for each setting; what is not given stays absent, so presets show through.

    given: whence settings come that are not given, if not from the table's defaults.
    """
    groups = {name: sub.add_argument_group(name) for name in GROUPS}
    for item in dataclasses.fields(Config):
        if item.name != "preset":
            _add_setting(groups[item.metadata["group"]], item, default=not given)
    if not given:
        sub.description = f"{sub.description} {DEFAULTS}"
    sub.epilog = given or "Switches go off with --no- before their name."


def _add_setting(group: Any, item: dataclasses.Field[Any], *, default: bool) -> None:
    kind, optional = plain_type(item)
    shape: dict[str, Any] = {"default": argparse.SUPPRESS}
    shape["help"] = help_of(item, default=default).replace("%", "%%")
    if kind is bool:
        shape["action"] = OnOff
        if optional:
            shape["also"] = [flag_of(f"auto_{item.name}")]
    else:
        path = item.metadata.get("path")
        words = (NONE, AUTO) if item.name in OPEN else (NONE,)
        shape["type"] = (
            _or_none(kind, words) if optional else PathKind(path, True) if path else kind
        )
        shape["metavar"] = {int: "N", float: "X", str: "TEXT"}[kind]
        if path:
            shape["metavar"] = "FILE" if path == "file" else "FOLDER"
            shape["metavar"] = "PATH" if path == "file or folder" else shape["metavar"]
        if choices := item.metadata.get("choices"):
            shape["metavar"] = "|".join(choices)
    group.add_argument(flag_of(item.name), dest=item.name, **shape)


def add_images(sub: argparse.ArgumentParser) -> None:
    """Add which images are scored, and where."""
    sub.add_argument(
        "--dataset-path",
        type=FOLDER,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of images and masks",
    )
    sub.add_argument(
        "--split",
        default="auto",
        choices=("auto", "test", "validation", "all"),
        help="which images; auto: the test split, or what the run held out",
    )
    sub.add_argument("--noncam", action="store_true", help="score COD10K's NonCAM images too")
    add_device(sub)


def add_reading(sub: argparse.ArgumentParser, given: str = "as the run's own data are") -> None:
    """Add how a data set is read, as `train` has it; given: the default, "" for the table's."""
    told = f" (default: {given})" if given else ""
    group = sub.add_argument_group(f"how the data are read{told}")
    for item in dataclasses.fields(Config):
        if item.name in READING:
            _add_setting(group, item, default=not given)


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
    help = "the best weights, the last, or those of an epoch that --keep-best kept, by its number"
    sub.add_argument("--which", default="best", metavar="best|last|EPOCH", help=help)


def add_device(sub: argparse.ArgumentParser) -> None:
    """Add where the network computes."""
    sub.add_argument("--device", default="auto", choices=DEVICES, help="where the network computes")


def add_json(sub: argparse.ArgumentParser, what: str) -> None:
    """Add a file for what a command finds."""
    sub.add_argument("--json", type=NEW_JSON, default="", help=f"file for {what}")


def add_list_json(sub: argparse.ArgumentParser) -> None:
    """Add the same for a command that prints a list: without a file JSON takes the list's place."""
    help = "print JSON instead of the table, or write it to this file"
    sub.add_argument(
        "--json", type=NEW_JSON, nargs="?", const=STDOUT, default="", metavar="FILE", help=help
    )


def write_json(path: str, values: Any) -> None:
    """Write plain values to the file that was asked for, if one was."""
    if path:
        with naming(Path(path)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _or_none(kind: type, words: Sequence[str]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return None if text.lower() in words else READ.get(kind, kind)(text)

    return read
