"""A run is one folder. Training writes it; dashboard, plots, resume and reports only read it.

    config.json    the settings                     last.pt       everything needed to go on
    history.jsonl  one record a line                best.pt       the weights that scored best
    history.csv    the same of epochs, as a table   preview.npz   fixed validation images, predicted
    summary.json   how it ended                     pause, stop, save   empty files: requests to the
    process.json   who was started last, who trains                     training, from anywhere
    own.json       names of the user's own loss, augmentation, optimiser, where there are some
    best-epoch012-iou0.8123.pt   of the best epochs, with --keep-best (`best_epochs`)

Only whole files are ever visible: each is written beside itself, flushed to disk and renamed. A
reader reads a file once, and again when it is another one; of the history, what is new.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from ..outside.paths import given
from ..outside.reading import Kinds, in_words, ordinary, read_json
from ..settings.config import Config
from .checkpoint import load_checkpoint
from .history import ENDS, Record, finite, is_after, parsed
from .holder import FRESH, MARKS, holds, is_here, noted_as, this_machine
from .latest import place_of, point_latest
from .result import Result
from .whole import drop_parts, in_place, write_whole

RUNS = Path("runs")  # where runs live that were given no other place
NEXT = RUNS / "next.json"  # the settings the next training takes
REQUESTS = ("pause", "stop", "save")
# What readers rely on in the files of a run, however they came here.
KINDS: dict[str, Kinds] = {
    "summary": {"best": dict, "data": dict, "data.root": str, "versions": dict},
    "split": {"train": (dict, list), "validation": (dict, list), "masks": dict, "gone": list},
    "process": {"pid": int, "trainer": int, "host": str, "started": (int, float), "boot": str},
    "lock": {"pid": int, "host": str},
    "failure": {"message": str},
    "config": {"epochs": int, "target_iou": (int, float)},
}
# They tell of a process that trains, not of the run; the last two were written by older kits.
OF_A_PROCESS = ("process.json", "stderr.txt", "failure.json", "lock.json", "launch.json")


class Run(Result):
    """Read and write one run folder; opening it costs nothing and changes nothing."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = place_of(given(folder)) if str(folder) else Path()
        self.config_path = self.folder / "config.json"
        self.history_path = self.folder / "history.jsonl"
        self._read: dict[str, tuple[Any, Any]] = {}  # by name: what told the file, and its contents
        # Of the history: its records, the offset after them, and the last bytes before that, by
        # which a file that was written anew is known. One value, so an interrupt cannot split it.
        self._history: tuple[list[Record], int, bytes] = ([], 0, b"")

    def exists(self) -> bool:
        """Say whether a run lives here already; settings alone are one that is still to begin."""
        return self.config_path.exists() and (self.history_path.exists() or self.has("last"))

    def has(self, name: str) -> bool:
        """Say whether checkpoint `name` ("last" or "best") was saved."""
        return self._checkpoint(name).exists()

    # -- records -----------------------------------------------------------------------------

    def log(self, kind: str, **values: Any) -> Record:
        """Append one record and return it."""
        plain = {name: finite(value) for name, value in values.items()}
        record = {"kind": kind, "time": round(time.time(), 3), **plain}
        with in_place(self.history_path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        return record

    def records(self, kind: str | None = None) -> list[Record]:
        """Return all records, or those of one kind; a torn line is left out."""
        records, offset, tail = self._history
        try:
            with ordinary(self.history_path).open("rb") as file:
                file.seek(offset - len(tail))
                text = file.read()
                if not text.startswith(tail):
                    file.seek(0)
                    records, offset, tail, text = [], 0, b"", file.read()
        except FileNotFoundError:
            records, offset, tail, text = [], 0, b"", b""
        lines = text[len(tail) : text.rfind(b"\n") + 1]  # a torn last line is read later
        records = [*records, *parsed(lines)]
        if lines.strip() and not records:
            found = in_words(lines)
            raise InputError(
                f"{self.history_path}: no line is a record of a training ({found}). Copy the run's "
                "history again."
            )
        self._history = records, offset + len(lines), (tail + lines)[-200:]
        return [record for record in records if kind in (None, record["kind"])]

    def newest(self) -> Record:
        """Return the last record, or an empty one while there is none."""
        return (self.records() or [{}])[-1]

    def cut_history(self, epoch: int, step: int) -> None:
        """Drop the steps and epochs after a checkpoint that a killed process may have written.

        epoch: how many are done; step: of the epoch in progress, the last that is kept.
        """
        kept = [each for each in self.records() if not is_after(each, epoch, step)]
        self.save_text(self.history_path.name, "".join(json.dumps(r) + "\n" for r in kept))

    # -- checkpoints and other whole files ---------------------------------------------------

    def save(self, name: str, state: dict[str, Any], instead_of: Sequence[str] = ()) -> None:
        """Write checkpoint `name` (tensors and plain values only), whole or not at all.

        instead_of: checkpoints that are removed just before this one appears. Raises TrainingError
        when the disk is full; the checkpoint saved before stays as it was.
        """
        import torch

        def remove() -> None:
            for each in instead_of:
                self._checkpoint(each).unlink(missing_ok=True)

        self._replace(
            self._checkpoint(name), lambda file: torch.save(state, file), instead_of=remove
        )

    def load(self, name: str, device: Any = "cpu") -> dict[str, Any]:
        """Return checkpoint `name`; InputError when there is none."""
        return load_checkpoint(self._checkpoint(name), device)

    def save_json(self, name: str, values: dict[str, Any]) -> Path:
        """Write `name`.json, readable by people."""
        return self.save_text(f"{name}.json", json.dumps(values, indent=1) + "\n")

    def save_text(self, name: str, text: str) -> Path:
        """Write the file of this name, whole or not at all; return its path."""
        path = self.folder / name
        self._replace(path, lambda file: file.write(text.encode()))
        return path

    def load_json(self, name: str) -> dict[str, Any]:
        """Return `name`.json, or an empty dict while there is none; InputError if it is broken."""
        what = f"the {name}.json of a run"
        return dict(self._load(f"{name}.json", lambda path: read_json(path, what, KINDS.get(name))))

    def save_config(self, config: Config) -> None:
        """Write config.json."""
        self._replace(self.config_path, lambda file: config.save(Path(file.name)))

    def save_preview(self, arrays: dict[str, Any]) -> None:
        """Write preview.npz: the same validation images each time, as predicted now."""
        from .preview import write_preview

        self._replace(self.folder / "preview.npz", lambda file: write_preview(file, arrays))

    def load_preview(self) -> dict[str, Any]:
        """Return the arrays of preview.npz, or an empty dict while there is none.

        The same dict comes back until training has written others.
        """
        from .preview import read_preview

        return self._load("preview.npz", read_preview)

    def _load(self, name: str, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        path = self.folder / name
        try:
            about = ordinary(path).stat()
            stamp = about.st_ino, about.st_mtime_ns, about.st_size
            if self._read.get(name, [None])[0] != stamp:
                self._read[name] = stamp, read(path)
        except FileNotFoundError:
            self._read[name] = None, {}
        return self._read[name][1]

    def _checkpoint(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _replace(self, path: Path, write: Callable[[IO[bytes]], Any], **more: Any) -> None:
        write_whole(path, write, **more)

    def copy_to(self, target: Path) -> None:
        """Copy the run's files, to be written there even if they are read-only here."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name not in OF_A_PROCESS:
                copy = target / path.relative_to(self.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)

    def point_latest(self) -> str:
        """Let `latest` beside the folder name it; say why not, or "" if it does."""
        return point_latest(self.folder)

    # -- requests ----------------------------------------------------------------------------

    def request(self, name: str, wanted: bool = True) -> None:
        """Ask the training process to `pause`, `stop` or `save`, or take that back."""
        if name not in REQUESTS:
            raise ValueError(f"no request '{name}': {', '.join(REQUESTS)}")
        path = self.folder / name
        in_place(path).touch() if wanted else path.unlink(missing_ok=True)

    def wants(self, name: str) -> bool:
        """Say whether that was requested."""
        return os.path.lexists(self.folder / name)  # a link that leads nowhere, too

    def clear(self) -> None:
        """Forget requests, a failure and halves of files of before; a run starts without them."""
        for name in (*REQUESTS, "failure.json"):
            (self.folder / name).unlink(missing_ok=True)
        drop_parts(self.folder)

    # -- one training process at a time ------------------------------------------------------

    def process(self) -> dict[str, Any]:
        """Return what process.json says, of which everything may be missing.

        "pid" and "started" (a Unix time): the process that was started last; "trainer": the one
        that holds the folder; "host": the machine of both. Older kits said the last two elsewhere.
        """
        return {key: value for key, value in self._noted().items() if key not in MARKS}

    def _noted(self) -> dict[str, Any]:
        """Return the same with MARKS: what tells these processes from others of their numbers."""
        known, lock = self.load_json("process"), self.load_json("lock")
        if not lock:
            return known
        here = known if known.get("host") == lock.get("host") else {}
        return {**here, "trainer": lock.get("pid", 0), "host": lock.get("host")}

    def save_process(self, values: dict[str, Any]) -> None:
        """Write process.json, in the place of whatever told of a process before."""
        (self.folder / "lock.json").unlink(missing_ok=True)
        if {"pid", "trainer"} & values.keys():
            self.save_json("process", values)
        else:
            (self.folder / "process.json").unlink(missing_ok=True)

    def training_pid(self) -> int | None:
        """Return the id of the process that trains here now, on this machine; None if none."""
        return self._holder("trainer")

    def starter_pid(self) -> int | None:
        """Return the id of the process that was started here last, unless it ended."""
        return self._holder("pid")

    def _holder(self, name: str) -> int | None:
        known = self._noted()
        files = [self.folder / each for each in ("process.json", "lock.json")]
        noted = max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
        return known[name] if name in known and holds(known, name, noted) else None

    def far_away(self) -> int | None:
        """Return the id of a process that trains on another machine, if it wrote lately."""
        known, last = self.process(), self.newest()
        if is_here(known) or last.get("kind") in (None, *ENDS):
            return None
        return known.get("trainer") if time.time() - last.get("time", 0) < FRESH else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, made if need be, while training; InputError if another process does."""
        far = self.far_away()
        pid = self.training_pid() or far
        if pid is not None and (far or pid != os.getpid()):
            where = f" on {self.process()['host']}" if far else ""
            again = f" If that machine is gone, try again in {FRESH:.0f} s." if far else ""
            raise InputError(
                f"{self.folder} is being trained by process {pid}{where}. Watch that run, end it "
                f"(`touch {self.folder / 'stop'}`), or choose another --checkpoint-dir.{again}"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        known = self._noted()
        started = {key: known[key] for key in known if "trainer" not in key}
        if not is_here(known):
            started = {}
        here = this_machine()
        self.save_process(started | here | noted_as("trainer", os.getpid()))
        try:
            yield
        finally:
            if self.folder.is_dir():  # else it was removed, which another error says
                self.save_process(started or here)


class Onlooker(Run):
    """The run as the processes beside the first see it: they call the same, and write nothing.

    A request made in such a process, by a signal, stays there until all are asked.
    """

    def __init__(self, folder: Path | str) -> None:
        super().__init__(folder)
        self._requests: set[str] = set()

    def log(self, kind: str, **values: Any) -> Record:
        """Return the record."""
        return {"kind": kind, **values}

    def request(self, name: str, wanted: bool = True) -> None:
        """Remember or forget a request."""
        (self._requests.add if wanted else self._requests.discard)(name)

    def wants(self, name: str) -> bool:
        """Say whether this process was asked."""
        return name in self._requests

    def clear(self) -> None:
        """Forget the requests."""
        self._requests.clear()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold nothing."""
        yield

    def point_latest(self) -> str:
        """Leave the link to the first process."""
        return ""

    def _replace(self, path: Path, write: Callable[[IO[bytes]], Any], **more: Any) -> None:
        pass
