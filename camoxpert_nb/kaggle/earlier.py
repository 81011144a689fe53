"""Runs of earlier sessions that are attached: which one goes on, and what is said of the others."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from ..data.layouts import find_datasets
from ..errors import InputError, few
from ..runs.process import status
from ..runs.run import Run
from ..settings.config import Config
from .inputs import sources

NOBODYS = "this notebook"  # stands for owner/slug in a notebook that nobody has uploaded yet
# Files by which a folder is known as a run, or as what is left of one.
TRACES = ("last.pt", "history.jsonl", "split.json")
PLACES = ("", "*/", "runs/*/", "*/runs/*/")


def find_runs() -> list[Run]:
    """Return the attached runs that can be gone on with, the one to go on with last."""
    return look_for_runs()[0]


def look_for_runs() -> tuple[list[Run], list[str]]:
    """Return the attached runs, and a sentence about each that cannot be gone on with.

    The last one is to go on: the newest that is not finished, or the newest. runs/latest, another
    one's name, counts only where it is the only one.
    """
    patterns = [place + trace for place in PLACES for trace in TRACES]
    found = {path.parent for each in sources() for one in patterns for path in each.glob(one)}
    folders = sorted(
        folder
        for folder in found
        if folder.name != "latest"
        or not any(each.parent == folder.parent for each in found - {folder})
    )
    faults = {folder: fault_of(Run(folder)) for folder in folders}
    whole = [Run(folder) for folder in folders if not faults[folder]]
    whole.sort(key=lambda run: (not run.finished, run.newest().get("time", 0)))
    said = [
        f"the run in {folder} is attached, but cannot go on: {why}. It is passed over. Attach a "
        "whole copy of it (the output of a version that was saved to its end)."
        for folder, why in faults.items()
        if why
    ]
    return whole, said


def wanted_last(runs: list[Run], wanted: str, passed: list[str]) -> list[Run]:
    """Return the runs with the wanted one last: the one whose path is, or ends in, `wanted`.

    passed: what was said of attached runs that cannot go on. Raises InputError when none of the
    runs is meant, or more than one.
    """
    parts = Path(wanted).parts
    meant = [
        run
        for run in runs
        if run.folder.parts[-len(parts) :] == parts
        or Path(wanted) in (*run.folder.parents, run.folder / "last.pt")
    ]
    if len(meant) != 1:
        listed = "\n  ".join([*(str(run.folder) for run in meant or runs), *passed]) or "none"
        many = f"{len(meant)} attached runs are" if meant else "no attached run is"
        raise InputError(
            f"RESUME = {wanted!r}: {many} meant by that. Runs that can go on:\n  {listed}\nGive "
            'one of these paths, "" for the newest that is not finished, or "none" to begin anew.'
        )
    return [*(run for run in runs if run is not meant[0]), meant[0]]


def fault_of(run: Run) -> str:
    """Return why a run cannot be gone on with, "" if it can."""
    last = run.folder / "last.pt"
    try:
        if not run.config_path.is_file():
            return "it has no config.json"
        Config.load(run.config_path)
        run.newest()
    except InputError as error:
        return str(error).rstrip(".")
    if not last.is_file():
        return "it has no last.pt, so nothing was saved to go on from"
    if not last.stat().st_size:
        return "its last.pt is empty"
    # A checkpoint is a zip, whose directory stands at its end.
    return "" if zipfile.is_zipfile(last) else "its last.pt was cut short"


def placed(config: Config, data: str) -> Config:
    """Return the settings with places that are not here replaced by those that are.

    The images are looked for by the name of what was attached; `data` holds all that is attached.
    """
    gone = {
        name: "" for name in ("weights", "init_from") if not Path(getattr(config, name)).exists()
    }
    if config.dataset_path and not Path(config.dataset_path).exists():
        gone["dataset_path"] = _again(Path(config.dataset_path)) or data or config.dataset_path
    return config.replace(**gone)


def _again(path: Path) -> str:
    """Return where a folder of an attached data set is mounted now, "" if nowhere."""
    for source in sources():
        if source.name in path.parts:
            below = path.parts[path.parts.index(source.name) + 1 :]
            if (there := source.joinpath(*below)).is_dir():
                return str(there)
    return ""


def lost_images(run: Run, data: str) -> str:
    """Say how many images of those that a run began with are not in `data`, "" if all are."""
    split = run.load_json("split")
    known = [name for side in ("train", "validation") for name in _names(split.get(side))]
    if not (known and data):
        return ""
    try:
        pairs = [pair for each in find_datasets(Path(data)) for pair in each.pairs]
    except InputError:
        pairs = []
    here = {pair.image.stem for pair in pairs}
    lost = [name for name in known if Path(name).stem not in here]
    if not lost:
        return ""
    return (
        f"the run began with {len(known):,} images, of which {len(lost):,} are not attached "
        f"({few(lost)}). It goes on with the {len(known) - len(lost):,} that are. To keep all, "
        "attach the missing data set and begin this session again."
    )


def _names(side: object) -> list[str]:
    values = side.values() if isinstance(side, dict) else side if isinstance(side, list) else ()
    return [str(name) for name in values]


def how_to_go_on(run: Run) -> str:
    """Say what to write, or on Kaggle what to click, so that `run` goes on later.

    While it trains there is nothing to do; a paused one is asked to go on, not started again.
    """
    kernel, done = os.environ.get("CAMOXPERT_KERNEL", ""), len(run.records("epoch"))
    ended = f"{done} epoch{'s are' if done != 1 else ' is'} done"
    now = status(run)
    if now.trains:
        what = "press Resume in its panel" if now.name == "paused" else "there is nothing to do"
        doing = now.name if now.name in ("paused", "stopping") else "training now"
        return f"{run.folder} is {doing} (process {now.pid}), {ended}: {what}."
    title = kernel.rpartition("/")[2]
    if run.finished:
        elsewhere = f" To use it elsewhere, attach the output of {title}." if kernel else ""
        return f"{run.folder} is finished.{elsewhere}"
    state = f"{run.folder} is not finished, {ended}. To go on"
    if not kernel or (kernel == NOBODYS and "KAGGLE_KERNEL_RUN_TYPE" not in os.environ):
        return f"{state}: camoxpert resume {run.folder}"
    clicks = (
        f"{state} in the next session:\n"
        "  1. Wait until this version is saved. (In a session you sit in: Save Version, with "
        "Advanced > Save output.)\n"
        f"  2. In the editor: Input > Add Input > Your Work > {title} > +\n"
        "  3. Save Version > Save & Run All. The run is found and goes on, on any number of GPUs."
    )
    if kernel == NOBODYS:
        return clicks
    return (
        f"{clicks}\n"
        f'With the client, instead of 2 and 3: "kernel_sources": ["{kernel}"] in the '
        f"kernel-metadata.json of {title}, then push it again."
    )
