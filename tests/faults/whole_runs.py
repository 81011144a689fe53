"""Tiny trainings in processes of their own, and whether two of them came to the same end."""

from __future__ import annotations

import csv
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from equal_runs import CLOCK, same, without_clock
from forked import CONTEXT

from camoxpert_nb.data.synthetic import make_synthetic
from camoxpert_nb.runs.best_epochs import best_epochs
from camoxpert_nb.runs.run import REQUESTS, Run
from camoxpert_nb.settings.config import Config, make_config

# Done in the process before it trains; what it returns, if anything, is called when it has.
Act = Callable[[], Any]
OWN_FILES = ("log.txt", "figures")  # of the command line


def nothing() -> None:
    """Do nothing."""


def tiny(folder: Path, name: str, **changes: Any) -> Config:
    """Return the settings of a training of three epochs in FOLDER/name, on FOLDER/data."""
    data = make_synthetic(folder / "data", train=16, test=2, size=64)
    places = {"dataset_path": str(data), "cache_dir": str(folder / f"{name}-cache")}
    places["checkpoint_dir"] = str(folder / name)
    return make_config("tiny", device="cpu", **{"epochs": 3, "keep_best": 2, **places, **changes})


def train(
    config: Config, before: Act = nothing, seconds: float = 90, **variables: str
) -> tuple[int, str]:
    """Train, or go on where the folder holds a run, in another process; return how it ended.

    That is the exit code of the command line, negative for a signal, and what was said.
    """
    return ended(started(config, before, **variables), config, seconds)


def started(config: Config, before: Act = nothing, **variables: str) -> Any:
    """Start what `train` waits for."""
    said = Path(f"{config.cache_dir}.said")
    said.unlink(missing_ok=True)
    process = CONTEXT.Process(target=_train, args=(config, before, str(said), variables))
    process.start()
    return process


def ended(process: Any, config: Config, seconds: float = 90) -> tuple[int, str]:
    """Wait for the end of what `started` returned; one that hangs is killed, and code -15."""
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
        code = -15
    said = Path(f"{config.cache_dir}.said")
    return code, said.read_text() if said.exists() else ""


def _train(config: Config, before: Act, said: str, variables: dict[str, str]) -> None:
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.update(variables)
    from camoxpert_nb.errors import KitError
    from camoxpert_nb.machine.distributed import joined
    from camoxpert_nb.training.fit import fit
    from camoxpert_nb.training.resume import resumed_config

    code, finish = 0, nothing
    try:
        finish = before() or nothing
        with joined(1.0, cpu=True) as ranks:
            run = Run(config.checkpoint_dir)
            going_on = ranks.from_first(run.exists)
            if going_on:
                config = resumed_config(run.folder, {})
            fit(config, resume=going_on, ranks=ranks)
    except KitError as error:
        code = error.exit_code
        os.write(2, f"{error}\n".encode())
    except BaseException:
        code = 99
        os.write(2, traceback.format_exc().encode())
    finish()
    if variables.get("WORLD_SIZE"):
        from camoxpert_nb.machine.distributed import leave

        leave(code)
    raise SystemExit(code)


def differences(whole: Path, other: Path) -> list[str]:
    """Say in which respects two ended runs are not one, but for the clock; nothing if they are."""
    found: list[str] = []
    for what, compared in _RESPECTS.items():
        try:
            reason = compared(Run(whole), Run(other))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if reason:
            found.append(f"{what}: {reason}")
    return found


def leftovers(config: Config) -> str:
    """Name what a killed process left in the folders of a run and of its decoded images."""
    folders = [Path(config.checkpoint_dir), Path(config.cache_dir)]
    known = (".pt", ".json", ".jsonl", ".csv", ".npz", ".npy", ".txt", ".png", "")
    found = [each for folder in folders for each in folder.rglob("*")]
    return ", ".join(
        sorted(each.name for each in found if each.name[0] == "." or each.suffix not in known)
    )


def _files(one: Run, other: Run) -> str:
    names = [{path.name for path in run.folder.iterdir()} - {*OWN_FILES} for run in (one, other)]
    return ", ".join(sorted(names[0] ^ names[1]))


def _history(one: Run, other: Run) -> str:
    lines = other.history_path.read_bytes().split(b"\n")
    if lines.pop():
        return "its last line is torn"
    records = [json.loads(line) for line in lines]
    kinds = [each["kind"] for each in records]
    if kinds[-1] != "end" or kinds.count("end") > kinds.count("start"):
        return f"it ends with {kinds[-3:]}"
    if without_clock(records) != without_clock(one.records()):
        places = [(r["kind"], r["epoch"], r["step"]) for r in without_clock(records)]
        return f"other records: {places}"
    return ""


def _table(one: Run, other: Run) -> str:
    first, second = (
        [
            {k: v for k, v in row.items() if k.split("/")[0] not in CLOCK}
            for row in csv.DictReader((run.folder / "history.csv").read_text().splitlines())
        ]
        for run in (one, other)
    )
    return "" if first == second else f"{len(second)} rows, expected {len(first)} or other values"


def _checkpoints(one: Run, other: Run) -> str:
    names = ["last", "best", *(each.name for each in best_epochs(one.folder))]
    apart = [
        f"{name} ({key})"
        for name in names
        for first, second in [(one.load(name), other.load(name))]
        for key in first.keys() | second.keys()
        if key not in ("config", "seconds") and not same(first.get(key), second.get(key))
    ]
    return ", ".join(apart)


def _json(one: Run, other: Run) -> str:
    def told(run: Run, name: str) -> Any:
        values = run.load_json(name)
        for each in ("seconds", "performance", "checkpoint_dir", "cache_dir", "dataset_path"):
            values.pop(each, None)
        for each in ("root", "fingerprint"):  # of where the data lie
            values.get("data", {}).pop(each, None)
        return values

    apart = [n for n in ("summary", "split", "config") if told(one, n) != told(other, n)]
    return ", ".join(apart)


def _preview(one: Run, other: Run) -> str:
    first, second = one.load_preview(), other.load_preview()
    if first.keys() != second.keys():
        return "other arrays"
    return ", ".join(name for name in first if (first[name] != second[name]).any())


def _lock(one: Run, other: Run) -> str:
    asked = [name for name in (*REQUESTS, "failure.json") if (other.folder / name).exists()]
    if other.training_pid() or "trainer" in other.process():
        asked.append("still locked")
    return ", ".join(asked)


_RESPECTS: dict[str, Callable[[Run, Run], str]] = {
    "files": _files,
    "history": _history,
    "history.csv": _table,
    "checkpoints": _checkpoints,
    "json": _json,
    "preview": _preview,
    "lock": _lock,
}
