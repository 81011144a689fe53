"""The command line: which commands there are, and how they end.

Their flags, and what they do, stand in the files beside this one. Exit codes: 0 the work was done,
1 it broke, 2 unusable input, 130 it was stopped before its end. Paths are looked at before the work
begins; what the system refuses later ends in a sentence too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..errors import STOPPED, KitError
from ..outside.paths import lend_home
from ..outside.refused import sentence
from ..outside.terminal import patient, tell
from . import evaluate, lists, machine, rates, repeat, train
from .parser import Options, Parser, check_paths, flag_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    lend_home()
    with patient() as failures:
        options = vars(_parser().parse_args(arguments))
        code = _run(options.pop("command"), options)
    if failures:
        print(f"camoxpert: the output could not be written ({failures[0]})", file=sys.stderr)
        code = code or 1
    if "WORLD_SIZE" in os.environ:  # as torchrun sets it, or whoever starts several by hand
        from ..machine.distributed import leave

        leave(code)
    return code


def _run(command: Callable[[Options], int], options: Options) -> int:
    paths = options.pop("paths")
    given = {flag_text(path): options.get(path.dest) for path in paths}
    try:
        options.pop("before", lambda options: None)(options)
        if "RANK" not in os.environ:  # else the other processes would wait for this one
            check_paths(paths, options)
        return command(options)
    except KitError as error:
        if not error.silent:
            _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted")
        return STOPPED
    except OSError as error:
        _complain(sentence(error, given))
        return KitError.exit_code


def _complain(why: str) -> None:
    tell(f"camoxpert: {why}", sys.stderr)


def _parser() -> Parser:
    parser = Parser(
        prog="camoxpert",
        description="Train, judge and use networks that find camouflaged animals and people.",
    )
    parser.add_argument("--version", action="version", version=f"camoxpert_nb {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for file in (train, repeat, rates, evaluate, lists, machine):
        file.add_commands(commands)
    return parser
