"""What chosen settings will do, told before anything starts and without torch."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import Config, as_flags, differences, make_config
from .errors import InputError
from .layouts import ImageSet, find_datasets, is_noncam, select, split_validation
from .presets import suggest
from .run import Run
from .schedule import Plan
from .synthetic import make_synthetic

Floats = NDArray[np.float64]

CHOICE = Path("runs") / "next.json"  # the settings the next training takes
KAGGLE = Path("/kaggle/input")  # where Kaggle mounts data sets, old and new style
FOLLOWING = ("lr_batch", "stage2_lr_batch")  # settings that follow from others
POINTS = 240  # of a drawn learning rate: a curve as wide as a screen needs no more


@dataclass(frozen=True)
class Images:
    """How many images a training would use; `test` by set, `left_out` by reason.

    `noncam` of those that train and validate show no object. With `exact` False the images are
    still to be generated, and the split is known only roughly.
    """

    source: str
    train: int
    validation: int
    noncam: int
    test: Mapping[str, int]
    left_out: Mapping[str, int]
    exact: bool = True

    def rows(self) -> list[tuple[str, str]]:
        """Return names and sentences, a row each."""
        about = "" if self.exact else "about "
        cam = self.train + self.validation - self.noncam
        test = ", ".join(f"{name} {count:,}" for name, count in self.test.items())
        return [
            ("from", self.source),
            ("train on", f"{about}{self.train:,} images"),
            ("validate on", f"{about}{self.validation:,} held out of training"),
            ("of these", f"{cam:,} CAM (an object is there), {self.noncam:,} NonCAM (none is)"),
            ("test sets", test or "none; score on the held-out images"),
            *[("left out", f"{count:,} {why}") for why, count in self.left_out.items()],
        ]

    def __str__(self) -> str:
        return "\n".join(f"{name:<12} {text}" for name, text in self.rows())

    def _repr_html_(self) -> str:
        return table(self.rows())


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return rows of text as an HTML table."""
    lines = [("th", head)] * bool(head) + [("td", row) for row in rows]
    body = "".join(
        "<tr>"
        + "".join(f'<{tag} style="text-align:left">{escape(cell)}&emsp;</{tag}>' for cell in cells)
        + "</tr>"
        for tag, cells in lines
    )
    return f'<table style="line-height:1.5">{body}</table>'


def find_data(wanted: str = "", mount: Path = KAGGLE) -> str:
    """Return the data folder to use: `wanted`, else Kaggle's if image sets are mounted, else "".

    Raises InputError when `wanted` holds no image with its mask.
    """
    if wanted:
        _sets(wanted)
        return wanted
    try:
        return str(mount) if find_datasets(mount) else ""
    except InputError:  # not on Kaggle, or nothing attached that can train: images are generated
        return ""


def propose(dataset_path: str = "", devices: int | None = None) -> Config:
    """Return settings to begin with: for these images, on this machine.

    Without a data set that is a demo of half a minute. `devices` is found out when not given.
    """
    if not dataset_path:
        return make_config("demo", epochs=4, stage1_epochs=1)
    memory = _visible_gpus() if devices is None else [0.0] * devices
    preset, _reason = suggest(memory, own_images=True)
    return make_config(preset, dataset_path=dataset_path)


def chosen(path: Path | str = CHOICE, dataset_path: str = "") -> Config:
    """Return the settings saved in `path`, or a proposal while there are none.

    A `dataset_path` takes the place of the saved one.
    """
    if not Path(path).exists():
        return propose(find_data(dataset_path))
    config = Config.load(Path(path))
    return config.replace(dataset_path=find_data(dataset_path)) if dataset_path else config


def data_of(run: Run, wanted: str = "") -> str:
    """Return the data folder to look at with `run`: `wanted`, else the one it was trained on.

    Raises InputError when the run does not say yet where its images came from.
    """
    if wanted:
        return find_data(wanted)
    known = run.load_json("summary").get("data", {}).get("root")
    if not known:
        raise InputError(
            f"{run.folder} has no summary.json: nothing was trained there, or it is still going "
            "on. Wait until it ends, name another run, or say where the images are."
        )
    return str(known)


def count_devices(config: Config) -> int:
    """Return how many devices would train here: GPUs that the driver lists and nobody hid, or 1."""
    if config.device == "cpu" or config.parallel == "none":
        return 1
    if config.gpus != "all":
        return len(config.gpus.split(","))
    return max(len(_visible_gpus()), 1)


def count_images(config: Config) -> Images:
    """Count what a training would use, by name and place; no image is opened.

    Raises InputError when the folder holds nothing that can train.
    """
    if not config.dataset_path:
        return _generated(config)
    sets = _sets(config.dataset_path)
    found = select(sets, noncam=config.noncam)
    train, validation = split_validation(found.train, config.val_share)
    lone = {
        "images without a mask": sum(len(each.images_without_mask) for each in sets),
        "masks without an image": sum(len(each.masks_without_image) for each in sets),
    }
    left_out = {why: len(pairs) for why, pairs in found.left_out.items()} | lone
    return Images(
        source=", ".join(f"{each.name} ({each.layout})" for each in sets),
        train=len(train),
        validation=len(validation),
        noncam=sum(is_noncam(pair) for pair in found.train),
        test={name: len(pairs) for name, pairs in found.test.items()},
        left_out={why: count for why, count in left_out.items() if count},
    )


def forget_images() -> None:
    """Look at the disk again at the next count: files may have changed."""
    _sets.cache_clear()


def rates(plan: Plan) -> tuple[Floats, dict[str, Floats]]:
    """Return epochs (from 0, with fractions) and the learning rates of head and backbone there."""
    steps = range(0, plan.steps, max(plan.steps // POINTS, 1))
    places = [(plan.at(step), step) for step in steps]
    epochs = [place.epoch + place.step_in_epoch / place.stage.steps for place, _ in places]
    return np.array(epochs), {
        "head": np.array([plan.lr(step, None) for step in steps]),
        "backbone": np.array([plan.lr(step, 1) for step in steps]),
    }


def command_line(config: Config) -> str:
    """Return the shell command that trains with these settings: what differs from the preset."""
    changes = differences(config, make_config(config.preset))
    # A rate that is given alone counts for the batch at hand: most often nothing is left to say.
    given = {name: value for name, value in changes.items() if name not in FOLLOWING}
    given |= differences(config, make_config(config.preset, **given))
    return shlex.join(["camoxpert", "train", "--preset", config.preset, *as_flags(given)])


def _generated(config: Config) -> Images:
    """Count as `make_synthetic` will, but for the split, which follows from each name's hash."""
    made: dict[str, Any] = make_synthetic.__kwdefaults__ or {}
    empty = {"training": int(made["train"] * made["noncam"])}
    empty["test"] = int(made["test"] * made["noncam"])
    out = {} if config.noncam else {f"NonCAM {split} images": n for split, n in empty.items()}
    used = made["train"] - (0 if config.noncam else empty["training"])
    validation = max(round(used * config.val_share), 1)
    return Images(
        source=f"generated camouflage of {config.img_size} px, made before the training",
        train=used - validation,
        validation=validation,
        noncam=empty["training"] if config.noncam else 0,
        test={"generated": made["test"] - (0 if config.noncam else empty["test"])},
        left_out=out,
        exact=False,
    )


@lru_cache(maxsize=4)
def _sets(root: str) -> tuple[ImageSet, ...]:
    return tuple(find_datasets(root))


def _visible_gpus() -> list[float]:
    """Return the GiB of each GPU that the driver lists and nobody hid."""
    listed, visible = _listed_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return listed
    return listed[: sum(bool(name) for name in visible.split(","))]


@lru_cache(maxsize=1)
def _listed_gpus() -> list[float]:
    try:
        asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [float(line) / 1024 for line in done.stdout.split()]
