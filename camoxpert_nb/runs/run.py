"""A run is one folder. Training writes it; dashboard, plots, resume and reports only read it.

    config.json    the settings                     last.pt       everything needed to go on
    history.jsonl  one record a line                best.pt       the weights that scored best
    summary.json   how it ended                     preview.npz   fixed validation images, predicted
    pause, stop, save   empty files: requests to the training process, from anywhere
    lock.json      the process that is training now

Only whole files are ever visible: each is written beside itself, flushed to disk and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import InputError, TrainingError

REQUESTS = ("pause", "stop", "save")
# They tell of a process that trains, not of the run.
OF_A_PROCESS = ("lock.json", "process.json", "launch.json", "stderr.txt", "failure.json")


class Run:
    """Read and write one run folder; opening it costs nothing and changes nothing."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def config_path(self) -> Path:
        """The settings file."""
        return self.folder / "config.json"

    @property
    def history_path(self) -> Path:
        """The records, one JSON object a line."""
        return self.folder / "history.jsonl"

    def exists(self) -> bool:
        """Say whether a run lives here already."""
        return self.config_path.exists()

    def has(self, name: str) -> bool:
        """Say whether checkpoint `name` ("last" or "best") was saved."""
        return self._checkpoint(name).exists()

    # -- records -----------------------------------------------------------------------------

    def log(self, kind: str, **values: Any) -> dict[str, Any]:
        """Append one record and return it."""
        record = {"kind": kind, "time": round(time.time(), 3), **values}
        with self.history_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        return record

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return all records, or those of one kind; a torn last line is left out."""
        found = list(self._read_records())
        return [record for record in found if kind is None or record["kind"] == kind]

    def cut_history(self, step: int) -> None:
        """Drop the records after `step`: a killed process may have written past its checkpoint."""
        kept = [record for record in self._read_records() if record.get("step", 0) <= step]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        self._replace(self.history_path, lambda file: file.write(text.encode()))

    def _read_records(self) -> Iterator[dict[str, Any]]:
        if not self.history_path.exists():
            return
        for line in self.history_path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return

    # -- checkpoints and other whole files ---------------------------------------------------

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write checkpoint `name` (tensors and plain values only), whole or not at all.

        Raises TrainingError when the disk is full; the checkpoint saved before stays as it was.
        """
        import torch

        self._replace(self._checkpoint(name), lambda file: torch.save(state, file))

    def load(self, name: str, device: Any = "cpu") -> dict[str, Any]:
        """Return checkpoint `name`; InputError when there is none."""
        return load_checkpoint(self._checkpoint(name), device)

    def save_json(self, name: str, values: dict[str, Any]) -> Path:
        """Write `name`.json, readable by people."""
        text = json.dumps(values, indent=1) + "\n"
        path = self.folder / f"{name}.json"
        self._replace(path, lambda file: file.write(text.encode()))
        return path

    def load_json(self, name: str) -> dict[str, Any]:
        """Return `name`.json, or an empty dict while there is none."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def save_preview(self, arrays: dict[str, Any]) -> None:
        """Write preview.npz: the same validation images each time, as predicted now."""
        import numpy as np

        self._replace(self.folder / "preview.npz", lambda file: np.savez_compressed(file, **arrays))

    def load_preview(self) -> dict[str, Any]:
        """Return the arrays of preview.npz, or an empty dict while there is none."""
        import numpy as np

        path = self.folder / "preview.npz"
        if not path.exists():
            return {}
        with np.load(path) as arrays:
            return dict(arrays)

    def _checkpoint(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _replace(self, path: Path, write: Callable[[IO[bytes]], Any]) -> None:
        part = path.with_name(path.name + ".part")
        try:
            with part.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            part.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise TrainingError(
                f"{path} could not be written ({error}): the disk is probably full. What was "
                "saved before is untouched. Free some space, then go on with "
                f"`camoxpert resume {self.folder}`."
            ) from error

    def copy_to(self, target: Path) -> None:
        """Copy the run's files, to be written there even if they are read-only here."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name not in OF_A_PROCESS:
                copy = target / path.relative_to(self.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)

    # -- requests ----------------------------------------------------------------------------

    def request(self, name: str, wanted: bool = True) -> None:
        """Ask the training process to `pause`, `stop` or `save`, or take that back."""
        if name not in REQUESTS:
            raise ValueError(f"no request '{name}': {', '.join(REQUESTS)}")
        path = self.folder / name
        path.touch() if wanted else path.unlink(missing_ok=True)

    def wants(self, name: str) -> bool:
        """Say whether that was requested."""
        return (self.folder / name).exists()

    def clear_requests(self) -> None:
        """Forget old requests; a run starts without them."""
        for name in REQUESTS:
            self.request(name, wanted=False)

    # -- one training process at a time ------------------------------------------------------

    def training_pid(self) -> int | None:
        """Return the id of the process that trains here now, on this machine; None if none."""
        lock = self.load_json("lock")
        lives = lock.get("host") == platform.node() and alive(lock.get("pid", 0))
        return lock["pid"] if lives else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder while training; InputError when another process does."""
        pid = self.training_pid()
        if pid is not None and pid != os.getpid():
            raise InputError(
                f"{self.folder} is being trained by process {pid}. Watch that run, end it "
                f"(`touch {self.folder / 'stop'}`), or choose another --checkpoint-dir."
            )
        self.save_json("lock", {"pid": os.getpid(), "host": platform.node()})
        try:
            yield
        finally:
            (self.folder / "lock.json").unlink(missing_ok=True)


class Onlooker(Run):
    """The run as the processes beside the first see it: they write nothing.

    A request made in such a process, by a signal, stays there until all are asked.
    """

    def __init__(self, folder: Path | str) -> None:
        super().__init__(folder)
        self._requests: set[str] = set()

    def log(self, kind: str, **values: Any) -> dict[str, Any]:
        """Return the record."""
        return {"kind": kind, **values}

    def request(self, name: str, wanted: bool = True) -> None:
        """Remember or forget a request."""
        (self._requests.add if wanted else self._requests.discard)(name)

    def wants(self, name: str) -> bool:
        """Say whether this process was asked."""
        return name in self._requests

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold nothing."""
        yield

    def _replace(self, path: Path, write: Callable[[IO[bytes]], Any]) -> None:
        pass


def load_checkpoint(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's contents, read without running any code that may hide in it.

    Raises InputError when the file is missing or is not a checkpoint.
    """
    import pickle

    import torch

    if not path.exists():
        raise InputError(f"{path}: no such checkpoint. Give a run folder that holds last.pt.")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path}: cannot be read as a checkpoint ({str(error).splitlines()[0]}). If its copy "
            "was cut short, copy it again."
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a checkpoint.")
    return state


def bare_keys(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict without the `module.` that a parallel wrapper puts before each key."""
    if state and all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def alive(pid: int) -> bool:
    """Say whether a process lives on this machine; one that ended unnoticed (a zombie) does not."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # a system without /proc
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    return pid > 0
