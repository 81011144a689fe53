"""Flags that several commands share; those of the settings are made from their table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..data.reading import Reading
from ..errors import InputError
from ..outside import paths
from ..outside.refused import naming
from ..runs.latest import place_of
from ..settings.checks import flag_of
from ..settings.config import AUTO, GROUPS, NONE, OPEN, PRESETS, Config, plain_type

Options = dict[str, Any]
DEVICES = ("auto", "cuda", "cpu")
READING = (
    *("image_folder", "mask_folder", "mask_suffix", "mask_object", "mask_invert", "mask_exif"),
    "ignore_label",
)


@dataclasses.dataclass(frozen=True)
class PathKind:
    """What a flag's path must be: the `type` of each argument that takes one.

    kind: "file", "folder", "file or folder", "run" or "run or file", which must be there; "new
    file" or "new folder", which can be written. `optional`: the word "none" stands for no path.
    """

    kind: str
    optional: bool = False
    holds: str = ""  # of a new file: what it may replace, a key of paths.SIGNS

    def __call__(self, text: str) -> str:
        """Return the text as it is: paths are looked at together, by `check_paths`."""
        return text

    def checked(self, text: str, flag: str) -> str:
        """Return the path, its `~` replaced; InputError, naming the flag, if it cannot be used."""
        if self.optional and text == NONE:
            return ""
        if self.kind == "new file":
            return str(paths.replaceable(paths.writable_file(text, flag), flag, self.holds))
        if self.kind == "new folder":
            return str(paths.writable_folder(text, flag))
        if self.kind.startswith("run"):
            kind = "folder" if self.kind == "run" else "file or folder"
            return str(paths.readable(place_of(paths.given(text, flag)), flag, kind))
        return str(paths.readable(text, flag, self.kind))


FILE, FOLDER, EITHER = PathKind("file"), PathKind("folder"), PathKind("file or folder")
RUN, RUN_OR_FILE = PathKind("run"), PathKind("run or file")
NEW_JSON, NEW_CSV = PathKind("new file", holds="JSON"), PathKind("new file", holds="scores")
NEW_PICTURE = PathKind("new file", holds="a picture")
NEW_ONNX = PathKind("new file", holds="ONNX")
NEW_FOLDER = PathKind("new folder")


class _Once(argparse.Action):
    """Keep a value. A flag given twice is refused, unless it takes several: then all count."""

    given = False

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before: Any = getattr(namespace, self.dest, None)
        if self.given and isinstance(values, list):
            values = [*before, *values]
        elif self.given and values != before:
            raise argparse.ArgumentError(
                self, f"given twice, as {before} and as {values}: which one? Leave one out."
            )
        self.given = values is not self.default or bool(self.option_strings)
        setattr(namespace, self.dest, values)


class _OnceOnOff(argparse.BooleanOptionalAction):
    """--this and --no-this, and --auto-this for what may be open; two of them are refused."""

    given: str | None = None

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        also = options.pop("also", [])
        super().__init__(option_strings, dest, **options)
        self.option_strings = [*self.option_strings, *also]

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        text = str(option_string)
        said = None if text.startswith("--auto-") else not text.startswith("--no-")
        if self.given not in (None, str(said)):
            raise argparse.ArgumentError(self, "given in two ways (on, off, auto): leave one out.")
        self.given = str(said)
        setattr(namespace, self.dest, said)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that passes nothing over, and tells which arguments are paths ("paths")."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in (None, "store"):
            self.register("action", name, _Once)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and add "paths" to what was found."""
        found, rest = super().parse_known_args(args, namespace)
        if not hasattr(found, "paths"):
            found.paths = [each for each in self._actions if isinstance(each.type, PathKind)]
        return found, rest


def flag_text(argument: argparse.Action) -> str:
    """Return an argument as people type it: --json, or RUN."""
    return next(iter(argument.option_strings), argument.dest.upper())


def check_paths(arguments: Sequence[argparse.Action], options: Options) -> None:
    """Replace the paths among the options by what they mean; InputError for the first bad one.

    Two outputs in one file are refused: the second would replace the first.
    """
    written: dict[str, str] = {}
    for each in arguments:
        if not (isinstance(each, _Once) and each.given and isinstance(each.type, PathKind)):
            continue
        value, flag = options[each.dest], flag_text(each)
        if isinstance(value, list):
            options[each.dest] = [each.type.checked(one, flag) for one in value]
        else:
            options[each.dest] = each.type.checked(value, flag)
        if each.type.kind == "new file" and options[each.dest]:
            path = os.path.normcase(os.path.realpath(options[each.dest]))
            if path in written:
                raise InputError(
                    f"{written[path]} and {flag} name the same file, {options[each.dest]}: one "
                    "would replace the other. Give each a file of its own."
                )
            written[path] = flag


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


def add_settings(sub: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; what is not given stays absent, so presets show through."""
    groups = {name: sub.add_argument_group(name) for name in GROUPS}
    for item in dataclasses.fields(Config):
        if item.name != "preset":
            _add_setting(groups[item.metadata["group"]], item)


def _add_setting(group: Any, item: dataclasses.Field[Any]) -> None:
    kind, optional = plain_type(item)
    shape: dict[str, Any] = {"help": item.metadata["help"], "default": argparse.SUPPRESS}
    if kind is bool:
        shape["action"] = _OnceOnOff
        if optional:
            shape["also"] = [flag_of(f"auto_{item.name}")]
    else:
        path = item.metadata.get("path")
        words = (NONE, AUTO) if item.name in OPEN else (NONE,)
        shape["type"] = (
            _or_none(kind, words) if optional else PathKind(path, True) if path else kind
        )
        shape["metavar"] = {int: "N", float: "X", str: "TEXT"}[kind]
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


def add_reading(sub: argparse.ArgumentParser) -> None:
    """Add how a data set is read, as `train` has it."""
    group = sub.add_argument_group("how the data are read (default: as the run's own data are)")
    for item in dataclasses.fields(Config):
        if item.name in READING:
            _add_setting(group, item)


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


def add_json(sub: argparse.ArgumentParser, what: str) -> None:
    """Add a file for what a command finds."""
    sub.add_argument("--json", type=NEW_JSON, default="", help=f"file for {what}")


def write_json(path: str, values: Any) -> None:
    """Write plain values to the file that was asked for, if one was."""
    if path:
        with naming(Path(path)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _or_none(kind: type, words: Sequence[str]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return None if text.lower() in words else kind(text)

    read.__name__ = kind.__name__  # argparse names it when a text does not fit
    return read
