"""The command line in processes that start in a moment: forked from one that has imported all.

Importing torch takes seconds, which a test of two processes pays twice. Here one server imports it
once (Python's own forkserver), and each process is a fork of it, with its own environment.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["camoxpert_nb.cli.main", "camoxpert_nb.training.fit", "camoxpert_nb.figures.results"]
)


class Forked:
    """A process that runs `camoxpert ARGUMENTS`, after the Python code `change`.

    What it says, on both streams, is written to `output`.
    """

    def __init__(
        self, arguments: list[str], output: Path, change: str = "", **variables: str
    ) -> None:
        self.output = output
        environment = {**os.environ, **variables}
        self._process = CONTEXT.Process(
            target=_work, args=(arguments, str(output), change, environment)
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """The exit code, once it ended."""
        return self._process.exitcode

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid or 0

    def said(self) -> str:
        """Return what it has said so far."""
        return self.output.read_text() if self.output.exists() else ""

    def says(self, words: str, seconds: float = 60) -> None:
        """Wait until it has said these words."""
        wait_until(lambda: words in self.said(), f"'{words}' in: {self.said()}", seconds)

    def ends(self, seconds: float = 90) -> tuple[int, str]:
        """Wait for its end; return exit code and words."""
        self._process.join(seconds)
        assert self.returncode is not None, f"still there after {seconds} s: {self.said()}"
        return self.returncode, self.said()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.join()


def wait_until(what: Callable[[], bool], missing: str, seconds: float = 60) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, missing
        time.sleep(0.05)


def _work(arguments: list[str], output: str, change: str, environment: dict[str, str]) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.clear()
    os.environ.update(environment)
    exec(change, {})
    from camoxpert_nb.cli.main import main

    sys.exit(main(arguments))
