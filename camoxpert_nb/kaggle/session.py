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
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..data.layouts import ImageSet, find_datasets
from ..data.selection import input_root, select
from ..data.synthetic import make_synthetic
from ..errors import InputError
from ..outside.terminal import paged
from ..runs.latest import LATEST
from ..runs.place import enter_kit
from ..runs.process import other_settings
from ..runs.run import NEXT, RUNS, Run
from ..settings.config import NONE, Config
from ..training.budget import SESSION, minutes_left, spoken
from .earlier import look_for_runs, lost_images, placed, wanted_last
from .inputs import scratch, sources

LONGEST = 200  # characters of a folder's name; file systems take 255 bytes
NO_MASK = "no image has its mask"  # what `find_datasets` says then
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
    sets: list[ImageSet] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # of the lines, what must not be overlooked

    def warn(self, text: str) -> None:
        """Add a sentence that is to be seen before anything is trained, too."""
        self.lines.append(f"NOTE      {text}")
        self.notes.append(text)

    def __repr__(self) -> str:
        return paged("\n".join(self.lines))

    @property
    def goes_on(self) -> bool:
        """Say whether an earlier run was attached."""
        return self.run is not None

    def settings(self, config: Config, saved: Path | str = NEXT) -> Config:
        """Return `config`, or those of the attached run: it goes on, and ends at once if it can.

        Places that are elsewhere in this session are put right. What differs from `config` is said
        where that was chosen: where the file `saved` is there ("" for none). Detach the run to
        begin a new one.
        """
        if self.run is None:
            return config
        own = placed(Config.load(self.run.config_path), self.data)
        same = config.replace(dataset_path=own.dataset_path, cache_dir=own.cache_dir)
        other = ""
        if str(saved) and Path(saved).exists():
            other = other_settings(same, self.run, here="chosen in 02")
        text = (
            f"the attached run keeps its own settings: {other}. To train what was chosen, detach "
            "the run and begin a new one."
        )
        if other and text not in self.notes:
            self.warn(text)
        return own.replace(checkpoint_dir=str(self.run.folder))


def begin(resume: str = "", *, settings: bool = True) -> Session:
    """Look at the inputs, bring what this notebook needs, and say what was found.

    resume: which of the attached runs, or of those in runs/ here, goes on, by its folder or the end
    of its path; "" for the newest attached that is not finished, "none" for none. settings: bring
    those that another notebook saved. Raises InputError for a run that is not there. Where there
    are no inputs, as on a laptop, only the current folder may become another one.
    """
    root, session = input_root(), Session()
    if not root.is_dir():
        session.lines += filter(None, [enter_kit()])
        session.lines.append(f"not on Kaggle ({root} is not there): everything is looked for here")
        if resume.strip().lower() not in ("", NONE):
            session.warn(f"RESUME = {resume!r} names an attached run, and nothing can be attached.")
        return session
    hand_over()
    if (left := minutes_left()) < math.inf:
        session.lines.append(f"time      this session ends in {spoken(left)}")
    os.environ.setdefault("CAMOXPERT_CACHE", str(scratch() / "cache"))
    session.lines.append(f"scratch   {scratch()} (decoded images; not saved)")
    session.data = _link_data(session)
    weights = ", ".join(path.name for path in _weights())
    session.lines.append(f"weights   {weights or NO_WEIGHTS}")
    if settings:
        _bring_settings(session)
    _bring_run(session, resume)
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


def _link_data(session: Session) -> str:
    """Return a folder that holds all attached image sets, "" if there is none.

    One is taken as it is; several become links in a folder called after them, so that whatever is
    named after its data bears the names of what was attached. The outputs of notebooks are no data
    sets, whatever images they hold. Of two sets with the same images one is enough; names that are
    only numbers tell nothing.
    """
    links, attached, lines = dict[str, Path](), set[str](), session.lines
    session.sets = []
    for source in sources():
        found = _image_sets(source, session)
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
        session.sets += found
    lines += [f"data      {line}" for line in _about(session.sets)]
    if len(links) <= 1:
        return "".join(map(str, links.values()))
    more = [f"{len(links) - 3} more"] * (len(links) > 3)
    folder = scratch() / "data" / "+".join([*list(links)[:3], *more])[:LONGEST]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, source in links.items():
        (folder / name).symlink_to(source, target_is_directory=True)
    return str(folder)


def _image_sets(source: Path, session: Session) -> list[ImageSet]:
    """Return the image sets of one input; what holds images and no masks is told."""
    if (source / "runs").is_dir():  # the output of one of our notebooks
        return []
    try:
        return find_datasets(source)
    except InputError as error:
        if NO_MASK in str(error) and not any(source.rglob("history.jsonl")):
            session.warn(f"nothing of {source} is used. {error}")
        return []  # a kit, weights, something else


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
    saved = sorted(
        (path for source in sources() for path in source.glob(str(NEXT))),
        key=lambda path: path.stat().st_mtime,
    )
    if NEXT.exists():
        return
    for path in reversed(saved):
        try:
            config = Config.load(path)
        except InputError as error:
            session.warn(f"settings are attached that cannot be used: {error}")
            continue
        RUNS.mkdir(exist_ok=True)
        here = placed(config, session.data)
        here.save(NEXT)
        others = ", ".join(str(each) for each in saved if each != path)
        session.lines.append(f"settings  {path}" + f" (the newest; also: {others})" * bool(others))
        if config.dataset_path != here.dataset_path:
            session.warn(
                f"the settings were saved with the images in {config.dataset_path}, which is not "
                f"here: {here.dataset_path or 'none'} is taken. Attach that data set to train it."
            )
        return


def _bring_run(session: Session, wanted: str = "") -> None:
    """Copy the attached run that is to go on to runs/, where it can be written.

    runs/latest then names it. One that is here already was brought, or went on, in this session.
    What is attached and not taken is named, with the reason.
    """
    runs, passed = look_for_runs()
    if wanted.strip().lower() == NONE:
        session.lines += [f"run       {each.folder}: passed over, none is wanted" for each in runs]
        return
    if wanted.strip():
        runs = wanted_last([*runs, *_begun_here(runs)], wanted.strip(), passed)
    for source in runs[-1:]:
        _take(session, source)
    for other in runs[:-1]:
        why = "it is finished" if other.finished and not runs[-1].finished else "it is older"
        why = "another one was named" if wanted.strip() else why
        session.lines.append(f"run       {other.folder}: passed over, {why}")
    for text in passed:
        session.warn(text)


def _begun_here(attached: list[Run]) -> list[Run]:
    """Return the runs that began in this session: they lie in runs/ and nowhere else."""
    names = {each.folder.name for each in attached} | {LATEST}
    found = [Run(path.parent) for path in sorted(RUNS.glob("*/last.pt"))]
    return [run for run in found if run.folder.name not in names and run.exists()]


def _take(session: Session, source: Run) -> None:
    """Copy an attached run to runs/, unless it is there, and say how far it is."""
    run = session.run = Run(RUNS / source.folder.name)
    if not run.exists():
        source.copy_to(run.folder)
        run.point_latest()
    config = Config.load(run.config_path)
    if not (session.data or config.dataset_path):  # its images were generated: as then, again
        folder = Path(os.environ["CAMOXPERT_CACHE"]) / f"generated-{config.img_size}px"
        session.data = str(make_synthetic(folder, size=config.img_size))
    state = "finished; detach it to train a new one" if run.finished else "it goes on"
    epochs = len(run.records("epoch"))
    session.lines.append(f"run       {source.folder}: {epochs} epochs done, {state}")
    if lost := lost_images(run, placed(config, session.data).dataset_path):
        session.warn(lost)
