"""The command line: which commands there are, and how they end.

Their flags, and what they do, stand in `train`, `evaluate` and `machine`. Exit codes: 0 the work
was done, 1 it broke, 2 unusable input, 130 it was stopped before its end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..errors import STOPPED, KitError
from . import evaluate, machine, train
from .flags import Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = vars(_parser().parse_args(arguments))
    code = _run(options.pop("command"), options)
    if "WORLD_SIZE" in os.environ:  # as torchrun sets it, or whoever starts several by hand
        from ..machine.distributed import leave

        leave(code)
    return code


def _run(command: Callable[[Options], int], options: Options) -> int:
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
    for file in (train, evaluate, machine):
        file.add_commands(commands)
    return parser
