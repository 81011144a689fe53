"""A terminal as people have it: closed early, lost, narrow, or of another encoding than UTF-8.

What is printed there may be lost; the work goes on, and files hold what matters.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple, TextIO

GAP = "  "  # between the parts of a line
USUAL = 80  # columns of a terminal that does not tell its width
UNBROKEN = "\0"  # stands for a blank at which no line is broken
PAGE = 100  # columns of a notebook's cell; its page would break longer lines within words
HANG = 10  # columns before what is left of a line of many parts

# What begins a line that is to be typed: a program's name, a call, a path of a file.
TYPED = re.compile(
    r"  (?:[A-Z_]+=\S+ )*"
    r"(?:camoxpert|python3?|torchrun|pip|conda|touch|cd|cp|mv|tensorboard|wandb)\b"
    r"|  [\w.]+\(.*\)$"
    r"|  \S*[/\\].*\.[A-Za-z]\w{1,4}$"
)

LEFT = (errno.EPIPE, errno.EIO, errno.EBADF)  # whoever read has gone: `| head`, a lost terminal


def kernel_shell() -> Any:
    """Return the notebook's shell; None in a script, a terminal or a console."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None


def is_script() -> bool:
    """Say whether a file runs, from top to bottom, with nobody to answer its prompts."""
    ipython = sys.modules.get("IPython")
    return not (ipython and ipython.get_ipython()) and not hasattr(sys, "ps1")


class Patient:
    """A stream that takes everything, also when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lost = stream, False
        self.failure: OSError | None = None  # why it was lost, where nobody wanted that
        with suppress(AttributeError, OSError, ValueError):  # characters it lacks are spelled out
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        """Write, or do nothing once the stream is lost."""
        self._try(lambda: self._stream.write(harmless(text)))
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing once the stream is lost."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Say whether somebody may watch."""
        return not self._lost and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, function: Any) -> None:
        if self._lost:
            return
        try:
            function()
        except (OSError, ValueError) as error:  # a closed pipe, a lost terminal, a full disk
            self._lost = True
            if isinstance(error, OSError) and error.errno not in LEFT:
                self.failure = error
            self._drop()

    def _drop(self) -> None:
        """Let what is left in the buffer go nowhere, else Python complains of it at its end."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def patient() -> Iterator[list[OSError]]:
    """Have both standard streams take everything while a command works.

    The list holds afterwards why the output could not be written, unless nobody reads it any more.
    """
    _fill()
    before = sys.stdout, sys.stderr
    own, failures = [Patient(each or _nowhere()) for each in before], list[OSError]()
    sys.stdout, sys.stderr = own
    try:
        yield failures
    finally:
        for stream in own:
            stream.flush()
        failures += [stream.failure for stream in own if stream.failure]
        sys.stdout, sys.stderr = before


# What steers a terminal, or turns the order of letters: names of files may hold it. Colours, a line
# begun anew and its end wiped stay: progress bars of ours and of libraries are made of them.
_STEERS = re.compile(
    "(?!\x1b\\[[0-9;]*[mK])"
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def harmless(text: str) -> str:
    r"""Return a text in which what would steer a terminal is spelled out, as \x1b."""
    return _STEERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Part(NamedTuple):
    """A part of a line: its text, how much it matters, and what may stand for it ("": nothing)."""

    text: str
    matters: int
    short: str = ""


def moves(stream: IO[str]) -> bool:
    """Say whether a line can be drawn again there: a terminal that does more than type."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def columns(stream: IO[str]) -> int:
    """Return how many columns a terminal has now: people resize its window."""
    with suppress(OSError, ValueError, AttributeError):
        if found := os.get_terminal_size(stream.fileno()).columns:
            return found
    told = os.environ.get("COLUMNS", "")
    return int(told) if told.isdecimal() and int(told) else USUAL


def fitted(parts: Sequence[Part], most: int) -> str:
    """Return the parts as a line of at most so many columns.

    What matters least is shortened first, then left out; the last part that is left is cut.
    """
    kept = list(parts)
    while width(line := GAP.join(part.text for part in kept)) > most and len(kept) > 1:
        least = min(range(len(kept)), key=lambda i: kept[i].matters)
        text, matters, short = kept.pop(least)
        if short and width(short) < width(text):
            kept.insert(least, Part(short, matters))
    while width(line) > most and line:
        line = line[:-1]
    return line


def room(stream: IO[str] | None = None) -> int:
    """Return how many columns a table may take there: a terminal's; 0, without limit, elsewhere."""
    stream = stream or sys.stdout
    return columns(stream) if stream.isatty() else 0


def tell(text: str, stream: IO[str] | None = None) -> None:
    """Print lines at once, folded where somebody watches, in the place of a line that moves."""
    stream = stream or sys.stdout
    stream.write("\r\x1b[K" * moves(stream) + readable(text, stream) + "\n")
    stream.flush()


def readable(text: str, stream: IO[str]) -> str:
    """Return lines as that stream shows them best: folded where it is a terminal."""
    if not stream.isatty():
        return text
    most = columns(stream)
    return "\n".join(folded(line, most) for line in text.split("\n"))


def folded(line: str, most: int) -> str:
    """Return a line as lines of at most `most` columns, as long as its words allow.

    A line of a name and its text (`name   text`) goes on under the text, and is broken between
    words. One of many parts is broken between parts, two blanks apart. What is to be copied stays
    whole: a line of two blanks and a command, a call or a file, and what stands in `backquotes`.
    """
    if width(line) <= most or TYPED.match(line):
        return line
    before = len(line) - len(line.lstrip())
    name, *parts = re.split(r"\s{2,}", line.strip())
    hang = before
    if len(parts) == 1:
        hang = line.index(parts[0], before + len(name))
    elif parts:
        hang = before or HANG
        line = re.sub(r"(?<=\S) (?=\S)", UNBROKEN, line)
    line = re.sub(r"`[^`]+`", lambda found: found[0].replace(" ", UNBROKEN), line)
    lines = textwrap.wrap(
        line,
        max(most, hang + 1),
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    )
    return "\n".join(lines).replace(UNBROKEN, " ")


def paged(text: str) -> str:
    """Return lines as a notebook's page shows them best, folded; as they are where this is none."""
    if kernel_shell() is None:
        return text
    return "\n".join(folded(line, PAGE) for line in text.split("\n"))


def width(text: str) -> int:
    """Return how many columns a terminal gives a text: wide characters two, accents none.

    Where terminals differ (emoji of several characters), the larger number.
    """
    return sum(_cells(each) for each in text)


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cc"):
        return character == "\ufe0f"  # it makes the character before it a wide picture
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fill() -> None:
    """Open what was closed (`>&-`), else the next file that is opened would be the output."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 (lives as long as we)
