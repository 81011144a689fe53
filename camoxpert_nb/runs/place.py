"""Where runs lie, and which there are: one folder, whatever started them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, few
from ..settings.config import Config
from .latest import LATEST
from .process import other_settings, status
from .records import performance
from .run import RUNS, Run

NOTEBOOKS = Path("notebooks")
DEEPEST = 4  # folders below the one that is looked through
SIGNS = ("history.jsonl", "last.pt", "process.json")  # of a run, beside its settings


def enter_kit() -> str:
    """Go from the kit's folder of notebooks to the kit's own, where its commands are typed.

    So both have one `runs/`, and a relative path means the same in both. Returns a sentence about
    it, "" where this is no such folder.
    """
    here = Path.cwd()
    if here.name != NOTEBOOKS.name or not (here.parent / "camoxpert_nb" / "__init__.py").is_file():
        return ""
    os.chdir(here.parent)
    return f"folder    {here.parent}, as in a terminal: runs lie in its {RUNS}/"


def usual_places() -> list[Path]:
    """Return the folders of runs that are here; older kits let notebooks have one of their own."""
    return [path for path in (RUNS, NOTEBOOKS / RUNS) if path.is_dir()]


def runs_below(folder: Path) -> Iterator[Run]:
    """Yield the runs in a folder and below it; links are not followed, so none comes twice."""
    for place, below, files in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        if "config.json" in files and any(name in files for name in SIGNS):
            yield Run(place)
            below.clear()
        kept = [each for each in below if each[0] != "." and each != LATEST]
        below[:] = kept if depth < DEEPEST else []


def check_run(run: Run, flag: str = "") -> None:
    """Raise InputError for a folder that is no run: what it holds instead, and how to see runs.

    flag: what the user calls the folder, if a flag named it.
    """
    if run.config_path.exists() or run.has("best") or run.has("last"):  # weights alone predict
        return
    where = f"{flag} {run.folder}".strip()
    see = "`camoxpert runs FOLDER` lists the runs below a folder."
    if not run.folder.is_dir():
        raise InputError(f"{where}: no such folder, expected that of a run. {see}")
    names = sorted(each.name for each in run.folder.iterdir() if not each.name.startswith("."))
    below = [str(each.folder) for each in runs_below(run.folder) if each.folder != run.folder]
    inside = f" There is a run in it: {below[0]}." if below else f" Give a run's folder. {see}"
    if len(below) > 1:
        inside = f" There are {len(below)} runs in it: {few(sorted(below))}. Give one of them."
    raise InputError(
        f"{where} is no run: it has no config.json, and holds {few(names) if names else 'nothing'}."
        + inside
    )


def listed(run: Run) -> dict[str, Any]:
    """Return what a list says of a run; what is not known is None.

    "state": as `process.status` names it, or "unreadable", with the reason as "note"; "epochs_done"
    and "epochs"; "best_iou": the validation IoU of best.pt, 0 to 1; "when": of its last sign of
    life, as time.time() tells it.
    """
    row: dict[str, Any] = {
        "name": run.folder.name,
        "folder": str(run.folder),
        "state": "unreadable",
    }
    row |= dict.fromkeys(("epochs_done", "epochs", "best_iou", "backbone", "img_size", "data"))
    row["when"] = _when(run)
    try:
        config, epochs = run.load_json("config"), run.records("epoch")
        figures = performance(epochs, {"batch_size": 0, "target_iou": 1.0}, [])
        row |= {name: config.get(name) for name in ("epochs", "backbone", "img_size")}
        return row | {
            "state": status(run).name,
            "epochs_done": epochs[-1].get("epoch") if epochs else 0,
            "best_iou": figures["best_iou"],
            "data": config.get("dataset_path") or "generated images",
        }
    except InputError as error:
        return row | {"note": str(error)}


def list_runs(folders: list[Path]) -> list[dict[str, Any]]:
    """Return `listed` of each run below these folders, the newest first."""
    rows = [listed(run) for folder in folders for run in runs_below(folder)]
    return sorted(rows, key=lambda row: row["when"], reverse=True)


def unfinished(config: Config) -> Run | None:
    """Return the run in runs/ of these very settings that ended before its end and can go on.

    Of several the one with the most epochs, so that a second try does not hide the first. None
    where a folder is named, or where one of these settings was finished since. A run with parts of
    a user's own goes on by `fit` alone.
    """
    ended, last = list[Run](), 0.0
    for path in [] if config.checkpoint_dir else sorted(RUNS.glob("*/config.json")):
        with suppress(InputError):  # of a folder that cannot be read nothing is known
            run = Run(path.parent)
            if path.parent.name == LATEST or other_settings(config, run) or run.own_parts:
                continue
            if run.finished:
                last = max(last, _ended(run))
            elif run.has("last") and status(run).name in ("stopped", "died"):
                ended.append(run)
    left = [run for run in ended if _ended(run) > last]
    return max(left, key=lambda run: (run.epochs, _ended(run)), default=None)


def _ended(run: Run) -> float:
    return float(run.newest().get("time", 0.0))


def in_words(row: Mapping[str, Any]) -> dict[str, str]:
    """Return a row of `list_runs` as people read it; "" for what is not known."""
    done = "" if row["epochs_done"] is None else f"{row['epochs_done']} of {row['epochs'] or '?'}"
    return {
        "run": row["folder"],
        "state": row["state"],
        "epochs": done,
        "best IoU": "" if row["best_iou"] is None else f"{row['best_iou']:.3f}",
        "backbone": row["backbone"] or "",
        "size": f"{row['img_size']} px" if row["img_size"] else "",
        "when": when_text(row["when"]),
        "data": row["data"] or "",
    }


def when_text(moment: float) -> str:
    """Return a Unix time as people read it, here."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _when(run: Run) -> float:
    found = [0.0]
    for name in ("config.json", *SIGNS):
        with suppress(OSError):
            found.append((run.folder / name).stat().st_mtime)
    return max(found)
