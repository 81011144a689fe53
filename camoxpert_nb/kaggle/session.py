"""What lies ready in a Kaggle session, brought where the notebooks look for it.

Inputs are read-only, each notebook begins in an empty folder, and mounts come in two styles:

    /kaggle/input/SLUG                    a data set or a notebook's output, old style
    /kaggle/input/datasets/OWNER/SLUG     a data set, new style
    /kaggle/input/notebooks/OWNER/SLUG    a notebook's output, new style

After `begin` the current folder looks as if the notebook before had run here: its settings in
runs/next.json, its newest run in runs/. CAMOXPERT_INPUT names another root than /kaggle/input.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..data.layouts import ImageSet, find_datasets
from ..data.selection import input_root, select
from ..data.synthetic import make_synthetic
from ..errors import InputError
from ..runs.place import enter_kit
from ..runs.run import NEXT, RUNS, Run
from ..settings.config import Config
from ..training.budget import SESSION, clock, minutes_left

GROUPS = ("competitions", "datasets", "models", "notebooks")  # folders of the new style
WEIGHTS = (".bin", ".pt", ".pth", ".safetensors")
NO_WEIGHTS = (
    "none attached. Without internet a pretrained backbone then starts from scratch: attach a data "
    "set with its file, named as timm names it (edgenext_base.safetensors), or switch internet on"
)


@dataclass
class Session:
    """What was found: a folder of all image sets, an earlier run, and sentences about it all."""

    data: str = ""
    run: Run | None = None
    lines: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    @property
    def goes_on(self) -> bool:
        """Say whether an earlier run was attached."""
        return self.run is not None

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

    Where there are no inputs, as on a laptop, only the current folder may become another one.
    """
    root, session = input_root(), Session()
    if not root.is_dir():
        session.lines += filter(None, [enter_kit()])
        session.lines.append(f"not on Kaggle ({root} is not there): everything is looked for here")
        return session
    hand_over()
    if (left := minutes_left()) < math.inf:
        session.lines.append(f"time      {clock(left)} h of this session are left")
    os.environ.setdefault("CAMOXPERT_CACHE", str(scratch() / "cache"))
    session.lines.append(f"scratch   {scratch()} (decoded images; not saved)")
    session.data = _link_data(session.lines)
    weights = ", ".join(path.name for path in _weights())
    session.lines.append(f"weights   {weights or NO_WEIGHTS}")
    _bring_settings(session)
    _bring_run(session)
    return session


def hand_over() -> None:
    """Tell trainings, in environment variables, when the session ends and what weights there are.

    What is set already stays. Nothing is set where there are no inputs and no session ends.
    """
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        os.environ.setdefault("CAMOXPERT_DEADLINE", str(session_start() + 60 * SESSION))
    if weights := _weights():
        os.environ.setdefault("CAMOXPERT_WEIGHTS", os.pathsep.join(map(str, weights)))


def session_start(proc: Path = Path("/proc")) -> float:
    """Return when this machine's first process started, as a Unix time; now, if that is unknown.

    In a container, as Kaggle's, that is the start of the session.
    """
    try:
        boot = next(x for x in (proc / "stat").read_text().splitlines() if x.startswith("btime"))
        ticks = (proc / "1" / "stat").read_text().rpartition(")")[2].split()[19]
        start = float(boot.split()[1]) + float(ticks) / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration, ValueError, IndexError):
        return time.time()
    # Older than any session: the numbers are those of the machine, not of the container.
    return start if time.time() - start < SESSION * 60 else time.time()


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
    return sorted(whole, key=lambda run: run.newest().get("time", 0))


def finished(run: Run) -> bool:
    """Say whether the run came to its last epoch."""
    return run.newest().get("kind") == "end"


def how_to_go_on(run: Run) -> str:
    """Say what to write, or on Kaggle what to click, so that `run` goes on later."""
    kernel, done = os.environ.get("CAMOXPERT_KERNEL", ""), len(run.records("epoch"))
    title = kernel.rpartition("/")[2]
    if finished(run):
        elsewhere = f" To use it elsewhere, attach the output of {title}." if kernel else ""
        return f"{run.folder} is finished.{elsewhere}"
    state = f"{run.folder} is not finished, {done} epochs are done. To go on"
    if not kernel:
        return f"{state}: camoxpert resume {run.folder}"
    return (
        f"{state} in the next session:\n"
        "  1. Wait until this version is saved. (In a session you sit in: Save Version, with "
        "Advanced > Save output.)\n"
        f"  2. In the editor: Input > Add Input > Your Work > {title} > +\n"
        "  3. Save Version > Save & Run All. The run is found and goes on, on any number of GPUs.\n"
        f'With the client, instead of 2 and 3: "kernel_sources": ["{kernel}"] in the '
        f"kernel-metadata.json of {title}, then push it again."
    )


def _link_data(lines: list[str]) -> str:
    """Put all attached image sets into one folder, as links; return it, or "" if there is none.

    The outputs of notebooks are no data sets, whatever images they hold. Of two sets with the same
    images one is enough; names that are only numbers tell nothing.
    """
    links, attached, sets = dict[str, Path](), set[str](), list[ImageSet]()
    for source in sources():
        found = _image_sets(source)
        pairs = [pair for each in found for pair in each.pairs]
        names = {pair.name for pair in pairs if not pair.name.isdigit()}
        if not pairs:
            continue
        if len(names & attached) > len(pairs) / 2:
            lines.append(f"left out  {source}: its images are attached already")
            continue
        again = source.name in links
        links[f"{source.parent.name}-{source.name}" if again else source.name] = source
        attached |= names
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
        held = f", {len(kept.validation):,} to validate" * bool(kept.validation)
        about = f"{len(kept.train):,} to train{held}, {tested:,} to test{noncam}"
        yield f"{each.name}: {about} ({each.root})"
    if len(sets) > 1:
        yield f"together: {len(select(sets).train):,} to train"


def _weights() -> list[Path]:
    """Return the attached files of weights, but those of runs."""
    found = [path for source in sources() for path in source.rglob("*") if path.suffix in WEIGHTS]
    return sorted(path for path in found if not (path.parent / "history.jsonl").exists())


def _bring_settings(session: Session) -> None:
    """Copy the settings that another notebook saved, unless there are some here."""
    saved = [path for source in sources() for path in source.glob(str(NEXT))]
    if saved and not NEXT.exists():
        newest = max(saved, key=lambda path: path.stat().st_mtime)
        RUNS.mkdir(exist_ok=True)
        _replaced(Config.load(newest), session.data).save(NEXT)
        session.lines.append(f"settings  {newest}")


def _bring_run(session: Session) -> None:
    """Copy the newest attached run to runs/, where it can be written, and let runs/latest name it.

    One that is here already was brought, or went on, in this session.
    """
    for source in find_runs()[-1:]:
        run = session.run = Run(RUNS / source.folder.name)
        if not run.exists():
            source.copy_to(run.folder)
            run.point_latest()
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
