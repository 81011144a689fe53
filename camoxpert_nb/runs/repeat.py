"""Several runs as one: a folder that holds a run for each seed or fold.

repeat.json    the settings all share, and by what they differ
seed-1/ ...    the members, each an ordinary run; or fold-1-of-5/ ...
results.json, results.csv, images.csv    what came out: members, mean and spread, each image
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outside.reading import read_json
from ..settings.checks import flag_of
from ..settings.config import ON_RESUME, Config, differences
from .process import command_for, environment, status
from .run import Run

FILE = "repeat.json"
FORMAT = 1
KINDS = {"format": int, "by": str, "numbers": list, "settings": dict}


@dataclass(frozen=True)
class Repeat:
    """What is trained several times. by: "seed" or "fold"; numbers: the seeds, or 1 to K."""

    folder: Path
    by: str
    numbers: tuple[int, ...]
    config: Config  # what all share; its seed, fold and folder are not theirs
    preset: str = ""  # as it was asked for, perhaps "auto"

    @classmethod
    def load(cls, folder: Path) -> Repeat:
        """Read repeat.json; InputError where it is broken."""
        path = folder / FILE
        values = read_json(path, "the plan of several runs", KINDS)
        by, numbers = values.get("by"), values.get("numbers", [])
        if by not in ("seed", "fold") or len(numbers) < 2 or values.get("format") != FORMAT:
            raise InputError(
                f"{path}: no plan of several runs that this kit can read. Copy it again, or begin "
                "anew in another --checkpoint-dir."
            )
        config = Config().replace(**values["settings"])
        return cls(folder, by, tuple(numbers), config, str(values.get("preset", "")))

    def save(self) -> None:
        """Write repeat.json."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = {"format": FORMAT, "by": self.by, "numbers": list(self.numbers)}
        settings = {"preset": self.preset, "settings": self.config.as_dict()}
        Run(self.folder).save_json("repeat", plan | settings)

    def members(self) -> dict[str, Run]:
        """Return each member's run by its name, in order; some may not have begun."""
        return {name: Run(self.folder / name) for name in map(self.name, self.numbers)}

    def name(self, number: int) -> str:
        """Return a member's name, which is that of its folder."""
        return f"seed-{number}" if self.by == "seed" else f"fold-{number}-of-{len(self.numbers)}"

    def config_of(self, name: str) -> Config:
        """Return a member's settings."""
        number = int(name.split("-")[1])
        own = {"seed": number} if self.by == "seed" else {"fold": f"{number}/{len(self.numbers)}"}
        return self.config.replace(checkpoint_dir=str(self.folder / name), **own)

    def changed(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return which of these settings are others than before; InputError if they may not be.

        What hangs on the machine may differ; of anything else the members would not be alike.
        """
        wanted = differences(self.config.replace(**given), self.config)
        wanted.pop("checkpoint_dir", None)
        wanted.pop("seed", None) if self.by == "seed" else None
        fixed = [name for name in wanted if name not in ON_RESUME["of the machine"].split()]
        if fixed:
            was = self.config.as_dict()
            told = ", ".join(f"{flag_of(x)} {wanted[x]} (there: {was[x]})" for x in fixed)
            raise InputError(
                f"{self.folder} repeats other settings than are given: {told}. Leave them out to "
                "go on there, or name another --checkpoint-dir to begin anew."
            )
        return wanted


def is_repeat(folder: Path) -> bool:
    """Say whether a folder holds several runs that are one."""
    return (folder / FILE).is_file()


def members_of(folders: Iterable[Path | str]) -> list[Path]:
    """Return the folders of runs; in the place of one that holds several, those that have weights.

    Raises InputError where none has.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if not is_repeat(folder):
            found.append(folder)
            continue
        trained = [run.folder for run in Repeat.load(folder).members().values() if run.has("best")]
        if not trained:
            raise InputError(
                f"{folder}: none of its members has weights yet. Go on with it first: "
                f"camoxpert repeat --checkpoint-dir {folder}"
            )
        found += trained
    return found


def train_member(run: Run, config: Config, flags: list[str], wanted: Callable[[], int]) -> int:
    """Train a member to its end or a stop, as the command line does; return the exit code.

    `flags` are for one that goes on. `wanted` is asked again and again and returns a signal to pass
    on, once for each it got, or 0. The child does not hear the terminal itself, so that it gets
    each Ctrl-C once.
    """
    if not run.exists():
        run.folder.mkdir(parents=True, exist_ok=True)
        run.save_config(config)
    child = subprocess.Popen(
        command_for(run, flags),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env=environment(),
    )
    while child.poll() is None:
        if number := wanted():
            os.kill(child.pid, number)
        time.sleep(0.1)
    return int(child.returncode)


def why_failed(run: Run, code: int) -> str:
    """Return in a sentence why a member's training ended before its time."""
    if cause := status(run).cause:
        return cause
    ended = f"was killed (signal {-code})" if code < 0 else f"ended with code {code}"
    return f"its process {ended}; what it said stands above."
