"""What lies ready in a Kaggle session, brought where the notebooks look for it.

Inputs are read-only, each notebook begins in an empty folder, and mounts come in two styles:

    /kaggle/input/SLUG                    a data set or a notebook's output, old style
    /kaggle/input/datasets/OWNER/SLUG     a data set, new style
    /kaggle/input/notebooks/OWNER/SLUG    a notebook's output, new style

After `begin` the current folder looks as if the notebook before had run here: its settings in
runs/next.json, its newest run in runs/. CAMOXPERT_INPUT names another root than /kaggle/input.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .clock import clock, minutes_left
from .config import Config
from .errors import InputError
from .layouts import ImageSet, find_datasets, select
from .run import Run
from .synthetic import make_synthetic

GROUPS = ("competitions", "datasets", "models", "notebooks")  # folders of the new style
WEIGHTS = (".bin", ".pt", ".pth", ".safetensors")
SETTINGS = Path("runs") / "next.json"
GB = 1e9


@dataclass
class Session:
    """What was found: a folder of all image sets, an earlier run, and sentences about it all."""

    data: str = ""
    run: Run | None = None
    lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def settings(self, config: Config) -> Config:
        """Return `config`, or those of the attached run: it goes on, and ends at once if it can.

        Places that are elsewhere in this session are put right. Detach the run to begin a new one.
        """
        if self.run is None:
            return config
        own = Config.load(self.run.config_path)
        return _replaced(own, self.data).replace(checkpoint_dir=str(self.run.folder))


def begin() -> Session:
    """Look at the inputs, bring what this notebook needs, and say what was found.

    Nothing is done where there are no inputs, as on a laptop.
    """
    root, session = input_root(), Session()
    if not root.is_dir():
        session.lines.append(f"not on Kaggle ({root} is not there): everything is looked for here")
        return session
    if (left := minutes_left()) < math.inf:
        os.environ.setdefault("CAMOXPERT_DEADLINE", str(time.time() + 60 * left))  # for children
        session.lines.append(f"time      {clock(left)} h of this session are left")
    os.environ.setdefault("CAMOXPERT_CACHE", str(scratch() / "cache"))
    session.lines.append(f"scratch   {scratch()} (decoded images; not saved)")
    session.data = _link_data(session.lines)
    weights = ", ".join(path.name for path in _weights())
    session.lines.append(f"weights   {weights or NO_WEIGHTS}")
    _bring_settings(session)
    _bring_run(session)
    return session


def input_root() -> Path:
    """Return the folder that inputs are mounted in."""
    return Path(os.environ.get("CAMOXPERT_INPUT", "/kaggle/input"))


def scratch() -> Path:
    """Return a folder for what need not be kept."""
    beside = input_root().parent  # /kaggle, on Kaggle
    base = beside / "temp" if os.access(beside, os.W_OK) else Path(tempfile.gettempdir())
    return base / "camoxpert"


def sources() -> list[Path]:
    """Return the folder of each thing that is attached, mounted in the old or the new style."""
    root = input_root()
    mounted = [path for path in root.glob("*") if path.is_dir() and path.name not in GROUPS]
    return sorted(mounted + [path for name in GROUPS for path in root.glob(f"{name}/*/*/")])


def find_weights(backbone: str) -> str:
    """Return an attached file whose path names the backbone, or "".

    Of several, the one whose path says least besides: edgenext_small is not edgenext_small_rw.
    """
    fitting = [path for path in _weights() if _plain(backbone) in _plain(str(path))]
    return str(min(fitting, key=lambda path: (len(path.name), len(str(path))), default=""))


def find_runs() -> list[Run]:
    """Return the attached runs that can be gone on with, the newest last.

    Copies that were cut short are left out, and so is runs/latest, another one's name.
    """
    places = ("last.pt", "*/last.pt", "runs/*/last.pt", "*/runs/*/last.pt")
    found = {path.parent for source in sources() for place in places for path in source.glob(place)}
    whole = [
        Run(folder)
        for folder in found
        if folder.name != "latest"
        and Run(folder).exists()
        and zipfile.is_zipfile(folder / "last.pt")  # its directory stands at the end of the file
    ]
    return sorted(whole, key=lambda run: (run.records() or [{"time": 0}])[-1]["time"])


def finished(run: Run) -> bool:
    """Say whether the run came to its last epoch."""
    return (run.records() or [{}])[-1].get("kind") == "end"


def how_to_go_on(run: Run, notebook: str) -> str:
    """Say what to click, or to write, so that the next session goes on with `run`.

    `notebook` is "owner/slug" of the one that trained.
    """
    title, done = notebook.rpartition("/")[2], len(run.records("epoch"))
    if finished(run):
        return f"{run.folder} is finished. To use it elsewhere, attach the output of {title}."
    return (
        f"{run.folder} is not finished, {done} epochs are done. To go on in the next session:\n"
        "  1. Wait until this version is saved. (In a session you sit in: Save Version, with "
        "Advanced > Save output.)\n"
        f"  2. In the editor: Input > Add Input > Your Work > {title} > +\n"
        "  3. Save Version > Save & Run All. The run is found and goes on, on any number of GPUs.\n"
        f'With the client, instead of 2 and 3: "kernel_sources": ["{notebook}"] in the '
        f"kernel-metadata.json of {title}, then push it again."
    )


def disk_forecast(images: int, size: int, parameters: int, cache: Path, run: Path) -> str:
    """Say how much disk a training needs, and where.

    The cache holds four bytes a pixel (red, green, blue, mask) of `images` at `size` pixels.
    last.pt holds weights, average and two Adam moments, four bytes each, and is there twice while
    it is written; best.pt the weights. Raises InputError when there is no room.
    """
    wanted = (
        ("images", cache, images * 4 * size**2 / GB),
        ("checkpoints", run, (2 * 4 + 1) * 4 * parameters / GB),
    )
    parts = []
    for what, folder, need in wanted:
        there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
        free = shutil.disk_usage(there).free / GB
        if need > free:
            raise InputError(
                f"{what} need {need:.1f} GB in {folder}, which has {free:.1f} GB free. Free some, "
                "or choose other places with --cache-dir and --checkpoint-dir."
            )
        parts.append(f"{what} {need:.1f} GB in {folder} ({free:.0f} GB free)")
    return ", ".join(parts)


NO_WEIGHTS = (
    "none attached. Without internet a pretrained backbone then starts from scratch: attach a data "
    "set with its file, named as timm names it (edgenext_base.safetensors), or switch internet on"
)


def _link_data(lines: list[str]) -> str:
    """Put all attached image sets into one folder, as links; return it, or "" if there is none.

    The outputs of notebooks are no data sets, whatever images they hold. Of two sets with the same
    images one is enough; names that are only numbers tell nothing.
    """
    links, seen, sets = dict[str, Path](), set[str](), list[ImageSet]()
    for source in sources():
        found = _image_sets(source)
        pairs = [pair for each in found for pair in (*each.train, *each.test)]
        names = {pair.name for pair in pairs if not pair.name.isdigit()}
        if not pairs:
            continue
        if len(names & seen) > len(pairs) / 2:
            lines.append(f"left out  {source}: its images are attached already")
            continue
        again = source.name in links
        links[f"{source.parent.name}-{source.name}" if again else source.name] = source
        seen |= names
        sets += found
    folder = scratch() / "data"
    shutil.rmtree(folder, ignore_errors=True)
    for name, source in links.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(source, target_is_directory=True)
    lines += [f"data      {line}" for line in _about(sets)]
    return str(folder) if sets else ""


def _image_sets(source: Path) -> list[ImageSet]:
    if (source / "runs").is_dir():  # the output of one of our notebooks
        return []
    try:
        return find_datasets(source)
    except InputError:  # a kit, weights, something else
        return []


def _about(sets: list[ImageSet]) -> Iterator[str]:
    if not sets:
        yield "none attached: camouflage is generated. For a real training: Input > Add Input"
    for each in sets:
        kept = select([each])
        out = sum(map(len, kept.left_out.values()))
        tested = sum(map(len, kept.test.values()))
        noncam = f", {out:,} NonCAM left out" if out else ""
        yield f"{each.name}: {len(kept.train):,} to train, {tested:,} to test{noncam} ({each.root})"
    if len(sets) > 1:
        yield f"together: {len(select(sets).train):,} to train"


def _weights() -> list[Path]:
    """Return the attached files of weights, but those of runs."""
    found = [path for source in sources() for path in source.rglob("*") if path.suffix in WEIGHTS]
    return sorted(path for path in found if not (path.parent / "history.jsonl").exists())


def _bring_settings(session: Session) -> None:
    """Copy the settings that another notebook saved, unless there are some here."""
    saved = [path for source in sources() for path in source.glob(str(SETTINGS))]
    if saved and not SETTINGS.exists():
        newest = max(saved, key=lambda path: path.stat().st_mtime)
        SETTINGS.parent.mkdir(exist_ok=True)
        _replaced(Config.load(newest), session.data).save(SETTINGS)
        session.lines.append(f"settings  {newest}")


def _bring_run(session: Session) -> None:
    """Copy the newest attached run to runs/, where it can be written, and let runs/latest name it.

    One that is here already was brought, or went on, in this session.
    """
    for source in find_runs()[-1:]:
        run = session.run = Run(Path("runs") / source.folder.name)
        if not run.exists():
            source.copy_to(run.folder)
            link = run.folder.parent / "latest"
            with contextlib.suppress(OSError):
                link.unlink(missing_ok=True)
                link.symlink_to(run.folder.name, target_is_directory=True)
        config = Config.load(run.config_path)
        if not (session.data or config.dataset_path):  # its images were generated: as then, again
            folder = Path(os.environ["CAMOXPERT_CACHE"]) / f"generated-{config.img_size}px"
            session.data = str(make_synthetic(folder, size=config.img_size))
        state = "finished; detach it to train a new one" if finished(run) else "it goes on"
        epochs = len(run.records("epoch"))
        session.lines.append(f"run       {source.folder}: {epochs} epochs done, {state}")


def _replaced(config: Config, data: str) -> Config:
    """Return the settings with places that are not here replaced by those that are."""
    here = {"dataset_path": data or config.dataset_path, "weights": "", "init_from": ""}
    gone = [name for name in here if not Path(getattr(config, name)).exists()]
    return config.replace(**{name: here[name] for name in gone})


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
