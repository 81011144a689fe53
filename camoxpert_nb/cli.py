"""The command line: which commands there are and what they take.

What they do stands in `cli_train`, `cli_judge` and `cli_machine`. The flags of `train` are made
from the settings table. Exit codes: 0 the work was done, 1 it broke, 2 unusable input, 130 it was
stopped before its end.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .cli_judge import compare, data, evaluate, export, predict
from .cli_machine import batch_size, doctor, kaggle
from .cli_train import demo, rank, resume, train
from .config import GROUPS, PRESETS, Config, flag_of, plain_type
from .errors import STOPPED, KitError
from .version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = vars(_parser().parse_args(arguments))
    code = _run(options.pop("command"), options)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from .ranks import leave

        leave(code)
    return code


def _run(command: Callable[[dict[str, Any]], int], options: dict[str, Any]) -> int:
    try:
        return command(options)
    except KitError as error:
        if not error.silent:
            print(f"camoxpert: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("camoxpert: interrupted", file=sys.stderr)
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camoxpert",
        description="Train, judge and use networks that find camouflaged animals and people.",
    )
    parser.add_argument("--version", action="version", version=f"camoxpert_nb {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _training_commands(commands)
    _add_evaluate(_command(commands, "evaluate", evaluate))
    sub = _command(commands, "compare", compare)
    sub.add_argument("runs", nargs="+", help="run folders; the first is what others are held to")
    _add_images(sub)
    sub = _command(commands, "predict", predict)
    sub.add_argument("--run", required=True, help="run folder whose best weights are used")
    sub.add_argument("--input", required=True, help="an image or a folder of images")
    sub.add_argument("--output", required=True, help="folder for the maps")
    sub.add_argument("--overlay", action="store_true", help="also draw each map on its image")
    _add_views(sub)
    sub.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))
    sub = _command(commands, "export", export)
    sub.add_argument("run", help="run folder whose best weights are exported")
    sub.add_argument("--format", default="onnx", choices=("onnx", "torchscript"))
    sub.add_argument("--output", default="", help="file; default: RUN/model.onnx or model.pt")
    sub = _command(commands, "data", data)
    sub.add_argument("folder", help="data set, or a folder that holds several")
    sub.add_argument("--json", default="", help="file for the findings")
    sub.add_argument("--picture", default="", help="PNG file for a sample of images and masks")
    _machine_commands(commands)
    return parser


def _machine_commands(commands: Any) -> None:
    sub = _command(commands, "doctor", doctor)
    sub.add_argument("--quick", action="store_true", help="a smaller network, fewer steps")
    sub.add_argument("--json", default="", help="file for the findings")
    sub = _command(commands, "kaggle", kaggle)
    sub.add_argument("what", choices=("build", "check"), help="make the folders, or check one")
    sub.add_argument("folder", nargs="?", default="kaggle/build", help="default kaggle/build")
    sub.add_argument("--user", default="your-name", help="your name on Kaggle, as in addresses")
    sub.add_argument("--data", nargs="*", metavar="OWNER/NAME", help="data sets to attach")
    sub.add_argument("--weights", nargs="*", default=[], help="files of backbone weights to add")


def _training_commands(commands: Any) -> None:
    sub = _command(commands, "train", train)
    _add_start(sub)
    sub.add_argument(
        "--fit-to-budget",
        action="store_true",
        help="train as many epochs as the time allows, instead of stopping and going on later",
    )
    sub.add_argument("--resume-from", default="", help="run folder or its last.pt to go on from")
    _add_dry_run(sub)
    _add_settings(sub)
    sub = _command(commands, "resume", resume)
    sub.add_argument("run", help="the run folder")
    _add_dry_run(sub)
    _add_settings(sub)
    sub = _command(commands, "batch-size", batch_size)
    _add_start(sub)
    sub.add_argument("--json", default="", help="file for the limits")
    _add_settings(sub)
    sub = _command(commands, "demo", demo)
    sub.add_argument("folder", nargs="?", default="", help="folder of the run")
    sub.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="default 42")
    sub = commands.add_parser("rank")  # no help: it is not for people
    sub.set_defaults(command=rank)
    sub.add_argument("config")
    sub.add_argument("--resume", action="store_true")


def _add_evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--run", default="", help="run folder whose best weights are scored")
    _add_images(sub)
    sub.add_argument("--predictions", default="", help="folder of 8-bit maps, instead of a run")
    sub.add_argument("--ground-truth", default="", help="folder of the masks of those maps")
    _add_views(sub)
    sub.add_argument(
        "--validation-threshold",
        action="store_true",
        help="also score at the threshold that is best on the run's validation images",
    )
    sub.add_argument("--json", default="", help="file for the scores, per image and in the mean")
    sub.add_argument("--csv", default="", help="file for the scores of each image, as a table")
    sub.add_argument("--report", action="store_true", help="write RUN/report.html")


def _add_images(sub: argparse.ArgumentParser) -> None:
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
    sub.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))


def _add_views(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--flip", action="store_true", help="average with the mirrored image's map")
    sub.add_argument(
        "--scales", type=float, nargs="+", default=[1.0], help="average over these image scales"
    )


def _add_start(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--preset", default="auto", help=f"auto, {', '.join(PRESETS)}")
    sub.add_argument("--config", default="", help="a run's config.json instead of a preset")


def _add_dry_run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dry-run", action="store_true", help="show what would be done, and end")


def _command(commands: Any, name: str, function: Any) -> argparse.ArgumentParser:
    sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
    sub.set_defaults(command=function)
    return sub


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; what is not given stays absent, so presets show through."""
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
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


def _or_none(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return None if text == "none" else kind(text)

    read.__name__ = kind.__name__  # argparse names it when a text does not fit
    return read
