"""How arguments are taken: paths looked at, nothing passed over, faults named with the way out."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..errors import InputError
from ..outside import paths
from ..outside.terminal import readable
from ..runs.latest import place_of
from ..runs.place import check_run
from ..runs.repeat import Repeat, is_repeat
from ..runs.run import Run
from ..settings.checks import near
from ..settings.config import NONE

Options = dict[str, Any]
MANY = 12  # flags: with more of them the line of usage says [FLAGS]


@dataclasses.dataclass(frozen=True)
class PathKind:
    """What a flag's path must be: the `type` of each argument that takes one.

    kind: "file", "folder", "file or folder", "run", "run or file", "runs" (a run, or the folder
    that `repeat` made) or "runs or maps", which must be there; "new file" or "new folder", which
    can be written.
    `optional`: the word "none" stands for no path.
    """

    kind: str
    optional: bool = False
    holds: str = ""  # of a new file: what it may replace, a key of paths.SIGNS

    @property
    def metavar(self) -> str:
        """What stands for it in the help."""
        if self.kind.startswith("run"):
            return "RUN"
        return "PATH" if self.kind == "file or folder" else self.kind.split()[-1].upper()

    def __call__(self, text: str) -> str:
        """Return the text as it is: paths are looked at together, by `check_paths`."""
        return text

    def checked(self, text: str, flag: str) -> str:
        """Return the path, its `~` replaced; InputError, naming the flag, if it cannot be used."""
        if self.optional and text == NONE:
            return ""
        if self.kind == "new file":
            path = paths.writable_file(text, flag)
            if self.holds == "a picture":
                paths.check_ending(path, flag, paths.PICTURES)
            return str(paths.replaceable(path, flag, self.holds))
        if self.kind == "new folder":
            return str(paths.writable_folder(text, flag))
        if self.kind.startswith("run"):
            kind = "file or folder" if self.kind == "run or file" else "folder"
            place = paths.readable(place_of(paths.given(text, flag)), flag, kind)
            if place.is_dir() and self.kind != "runs or maps" and not is_repeat(place):
                check_run(Run(place), flag)
            if is_repeat(place) and not self.kind.startswith("runs"):
                one = next(iter(Repeat.load(place).members().values())).folder
                raise InputError(
                    f"{flag} {place} holds several runs: name one of them, as {one}. All of them "
                    f"go on with `camoxpert repeat --checkpoint-dir {place}`."
                )
            return str(place)
        return str(paths.readable(text, flag, self.kind))


FILE, FOLDER, EITHER = PathKind("file"), PathKind("folder"), PathKind("file or folder")
RUN, RUN_OR_FILE, RUNS = PathKind("run"), PathKind("run or file"), PathKind("runs")
RUNS_OR_MAPS = PathKind("runs or maps")
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


class OnOff(argparse.BooleanOptionalAction):
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
        """Keep what was said: on, off or auto."""
        text = str(option_string)
        said = None if text.startswith("--auto-") else not text.startswith("--no-")
        if self.given not in (None, str(said)):
            raise argparse.ArgumentError(self, "given in two ways (on, off, auto): leave one out.")
        self.given = str(said)
        setattr(namespace, self.dest, said)


class _Formatter(argparse.HelpFormatter):
    """Help with each flag's default, unless its sentence tells it already."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        """Return FILE, FOLDER, PATH or RUN for a path: the flag's own name says nothing more."""
        if isinstance(action.type, PathKind):
            return action.type.metavar
        return super()._get_default_metavar_for_optional(action)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        told = action.default in (None, False, "", argparse.SUPPRESS) or action.default == []
        if told or "default" in text:
            return text
        several = isinstance(action.default, list)
        default = " ".join(map(str, action.default)) if several else str(action.default)
        return f"{text} (default {default.replace('%', '%%')})"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that passes nothing over, and tells which arguments are paths ("paths")."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": _Formatter, **options})
        for name in (None, "store"):
            self.register("action", name, _Once)
        for kind, read in READ.items():
            self.register("type", kind, read)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and add "paths" to what was found."""
        words = [*(sys.argv[1:] if args is None else args)]
        self._refuse_unknown(words)
        found, rest = super().parse_known_args(words, namespace)
        if rest:
            flag = f"--{rest[0].lstrip('-')}"
            hint = f"; did you mean {flag}?" if flag in self._flags() else "."
            self.error(f"{' '.join(rest)}: nothing here takes it{hint}")
        if not hasattr(found, "paths"):
            found.paths = [each for each in self._actions if isinstance(each.type, PathKind)]
        return found, rest

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if arg_strings == ["--"] and action.nargs is None:  # Python before 3.13 loses this value
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def format_help(self) -> str:
        """Return the help. Where there are many flags, the first line does not list them."""
        if self.usage is None and len(self._flags()) > MANY:
            self.usage = " ".join(["%(prog)s", *self._needed(), "[FLAGS]"])
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Say what was wrong and where help is, and end with code 2."""
        if message.endswith("required: COMMAND"):
            message = "no command was given."
        elif "are required: " in message:
            missing = message.partition("required: ")[2]
            missing = missing if missing.startswith("-") else missing.upper()
            verb = "are" if "," in missing else "is"
            message = f"{missing} {verb} missing, as in `{self.prog} {' '.join(self._needed())}`."
        help = f"`{self.prog} --help` lists what can be given."
        self.exit(2, readable(f"{self.prog}: {message}\n{help}\n", sys.stderr))

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        """End with the known flags that are like the first unknown one."""
        for word in words:
            if word == "--" or (self._subparsers and not word.startswith("-")):
                return  # what follows are no flags, or those of a command
            flag = word.partition("=")[0]
            if re.fullmatch(r"--?[A-Za-z][^ ]*", flag) and not self._is_known(flag):
                self.error(f"no flag {flag}{self._bare(flag) or near(flag, self._flags())}")

    def _bare(self, flag: str) -> str:
        """Return the end of a sentence where what the flag would name stands without one."""
        names = [each.dest for each in self._actions if not each.option_strings]
        name = next((each for each in names if flag.lstrip("-") in (each, each + "s")), "")
        return f": the {name} stands by itself, as `{self.prog} {name.upper()}`." * bool(name)

    def _is_known(self, flag: str) -> bool:
        if flag.startswith("--"):
            return any(known.startswith(flag) for known in self._option_string_actions)
        return flag[:2] in self._option_string_actions

    def _flags(self) -> list[str]:
        return [flag for flag in self._option_string_actions if flag.startswith("--")]

    def _needed(self) -> list[str]:
        needed = [each for each in self._actions if not each.option_strings or each.required]
        return [
            f"{each.option_strings[0]} {each.dest.upper()}"
            if each.option_strings
            else f"[{each.metavar or each.dest}]"
            if each.nargs in ("?", "*")
            else str(each.metavar or each.dest.upper())
            for each in needed
        ]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name what may be chosen; commands that are not for people are not named."""
        if action.choices is None or value in action.choices:
            return
        shown = [str(each) for each in action.choices]
        if isinstance(action, argparse._SubParsersAction):
            shown = [each.dest for each in action._choices_actions]
            shown_all = f"\nCommands: {', '.join(shown)}."
            raise argparse.ArgumentError(
                None, f"no command '{value}'{near(str(value), shown)}{shown_all}"
            )
        hint = near(str(value), shown)
        raise argparse.ArgumentError(action, f"'{value}' is none of {', '.join(shown)}{hint}")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number, as 100 is one") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no number, as 0.5 or 1e-4 is one") from None


READ: dict[type, Callable[[str], Any]] = {int: _whole, float: _number}


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
