"""The settings, once: a frozen table that makes flags, form, `config.json` and docs/settings.md.

Components never see a Config; they take plain arguments. Only builders, picker and command line
read it. A preset is a small set of differences from the defaults.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outside.reading import read_json
from .checks import NONE, check_limits, check_together, flag_of, flag_with, near, typed
from .presets import BATCH_SIZE, PRESETS
from .recipe import in_proportion

AUTO = "auto"  # the same of what the recipe can decide
FORMAT = 1  # of config.json; raised when an older kit could misread a newer file
EXPERTS = ("texture", "attention", "hybrid", "edge", "context", "frequency", "contrast")
MIXED = (8, 16)  # strides with a mixture: at 4 it costs most and gains nothing, at 32 too little
MANY = 1_000_000  # more than anybody means, of what is counted
GROUPS = ("data", "network", "schedule", "loss", "memory", "devices", "saving")

# What a run that goes on may change. A new run is needed for what its scores and weights hang on;
# what it began with has no effect any more; the rest is taken over.
ON_RESUME = {
    "a new run": "backbone num_experts top_k width deep_supervision img_size val_share fold noncam "
    "seed mask_object mask_invert mask_exif ignore_label",
    "no effect": "pretrained weights init_from skip_stage1 preset",
    "of the machine": "dataset_path image_folder mask_folder mask_suffix cache_dir checkpoint_dir "
    "num_workers device parallel gpus amp "
    "cuda_graph gradient_checkpointing save_minutes time_budget join_minutes log",
    "taken over": "augment epochs stage1_epochs lr stage2_lr lr_batch stage2_lr_batch scale_lr "
    "backbone_lr_factor weight_decay scheduler min_lr warmup_epochs t_mult progressive_unfreeze "
    "start_size use_ema ema_decay target_iou stop_at_target patience deep_weight uncertainty "
    "balance legacy_loss clip batch_size stage2_batch_size accumulation_steps keep keep_best",
}


def option(group: str, default: Any, help: str, **limits: Any) -> Any:
    """Return a dataclass field with its group, help sentence and limits.

    Limits: `low` and `high` (inclusive), `above` (exclusive), `choices`, `unit`. With `open` it may
    be None until `decide` gives it a value; its type says what it is from then on.
    """
    if limits.get("open"):
        help += "; auto: by the recipe"
    return field(default=default, metadata={"group": group, "help": help, **limits})


data, network, schedule, loss, memory, devices, saving = (partial(option, g) for g in GROUPS)


@dataclass(frozen=True)
class Config:
    """Every setting of a training run; names and meanings are those of the command line."""

    preset: str = data("", "the preset these settings started from")
    dataset_path: str = data(
        "", "folder that holds images and masks; empty: generated images", path="folder"
    )
    image_folder: str = data("", "folders of images below it (patterns, commas); empty: by name")
    mask_folder: str = data("", "folders of their masks, likewise")
    mask_suffix: str = data("", "what a mask's name has more than its image's, as _mask")
    mask_object: str = data(
        "auto", "mask values that are object: auto (above 128, or 1 of 0 and 1), nonzero, or 1,3"
    )
    mask_invert: bool = data(False, "objects are black in the masks, and the background white")
    mask_exif: str = data(
        "auto",
        "masks fit the photos as shown, or as stored before their EXIF turns them",
        choices=("auto", "shown", "stored"),
    )
    ignore_label: int = data(
        -1, "mask value of pixels that count nowhere; -1: none", low=-1, high=65535
    )
    img_size: int = data(320, "side of the square the network sees", low=32, high=8192, unit="px")
    noncam: bool = data(False, "train on COD10K's NonCAM images (empty masks) too")
    val_share: float = data(
        0.1, "share of the training images held out for validation", above=0.0, high=0.5
    )
    fold: str = data("", "which of so many parts of the images validates, as 2/5; empty: a share")
    augment: float = data(
        1.0, "strength of flips, crops, rotation and colour", low=0, high=1, open=True
    )
    cache_dir: str = data(
        "", "where decoded images are kept; empty: the user's cache folder", path="new folder"
    )
    num_workers: int = data(-1, "data loading processes; -1: from the CPU count", low=-1, high=1024)

    backbone: str = network("edgenext_base", "any timm backbone with four stages")
    num_experts: int = network(7, "experts in each mixture", low=1, high=len(EXPERTS))
    top_k: int = network(
        7, "experts that count in each cell of the image; 7: all", low=2, high=len(EXPERTS)
    )
    width: int = network(128, "channels of the decoder", low=16, high=8192)
    pretrained: bool = network(True, "start from ImageNet weights of the hub")
    weights: str = network("", "file with backbone weights, used instead of the hub", path="file")
    init_from: str = network(
        "", "checkpoint or run whose weights to start from (weights alone)", path="file or folder"
    )
    deep_supervision: bool = network(True, "loss on every level of the decoder")

    epochs: int = schedule(140, "epochs of both stages together", low=1, high=MANY)
    stage1_epochs: int = schedule(
        30, "epochs with the backbone frozen", low=0, high=MANY, open=True
    )
    lr: float = schedule(6.5e-4, "learning rate (of stage one)", above=0.0, high=1.0, open=True)
    stage2_lr: float | None = schedule(
        None,
        "learning rate of stage two; none: as in stage one, or as --lr by the recipe",
        above=0.0,
        high=1.0,
    )
    lr_batch: int = schedule(
        0, "effective batch that --lr is meant for; 0: the one it begins with", low=0, high=MANY
    )
    stage2_lr_batch: int = schedule(0, "the same for stage two", low=0, high=MANY)
    scale_lr: bool = schedule(
        False, "scale the learning rates when the effective batch is another one"
    )
    backbone_lr_factor: float = schedule(
        0.1, "backbone learning rate as a share of the decoder's", above=0.0, high=1.0, open=True
    )
    weight_decay: float = schedule(1e-4, "AdamW's weight decay", low=0.0, high=100.0)
    scheduler: str = schedule(
        "cosine",
        "fall of the learning rate in a stage: along a cosine, after a rise (onecycle), several "
        "times (cosine_restart), or not at all",
        choices=("cosine", "onecycle", "cosine_restart", "none"),
    )
    min_lr: float = schedule(
        1e-5, "lowest learning rate of the decoder, others in proportion", low=0.0
    )
    warmup_epochs: int = schedule(
        10,
        "linear warm-up of stage two (stage one: at most its first tenth)",
        low=0,
        high=MANY,
        open=True,
    )
    t_mult: int = schedule(2, "growth of the period of cosine_restart", low=1, high=1000)
    start_size: int = schedule(
        0, "images' side at first, growing in thirds; 0: img_size", unit="px"
    )
    progressive_unfreeze: bool = schedule(
        True, "open the backbone from its deepest block on, in thirds of stage two", open=True
    )
    skip_stage1: bool = schedule(False, "begin with stage two")
    use_ema: bool = schedule(True, "keep a moving average of the weights")
    ema_decay: float = schedule(0.999, "decay of that average", low=0.0, high=0.99999, open=True)
    target_iou: float = schedule(0.72, "IoU to reach on validation", low=0.0, high=1.0)
    stop_at_target: bool = schedule(False, "end when that IoU is reached")
    patience: int = schedule(
        0, "end after so many epochs of stage two with no better score; 0: never", low=0, high=MANY
    )

    deep_weight: float = loss(1.0, "weight of the deep heads' loss", low=0.0, high=1000.0)
    uncertainty: float = loss(
        0.0,
        "final weight of the uncertainty-aware loss, ramped up",
        low=0.0,
        high=1000.0,
        open=True,
    )
    balance: float = loss(0.1, "weight of the experts' balance", low=0.0, high=1000.0)
    legacy_loss: bool = loss(
        False, "structure loss without boundary weight, as in many published codes"
    )
    clip: float = loss(1.0, "largest gradient norm", above=0.0, high=1e6)

    batch_size: int = memory(BATCH_SIZE, "images per GPU (in stage one, if any)", low=1, high=MANY)
    stage2_batch_size: int | None = memory(
        None, "images per GPU in stage two; none: as in stage one", low=1, high=MANY
    )
    accumulation_steps: int = memory(1, "batches added up for one step", low=1, high=MANY)
    gradient_checkpointing: bool = memory(
        False, "recompute activations: less memory, about a third slower"
    )

    device: str = devices(
        "auto", "where to train; auto: on GPUs if there are any", choices=("auto", "cuda", "cpu")
    )
    parallel: str = devices(
        "auto",
        "several GPUs: one process each (ddp), one process for all (dp), or only one GPU (none)",
        choices=("auto", "none", "dp", "ddp"),
    )
    gpus: str = devices("all", "GPUs to use: all, or their numbers as 0,1")
    amp: bool = devices(True, "mixed precision where the GPU gains by it")
    cuda_graph: bool = devices(
        True, "on one GPU, capture the step as a CUDA graph: its launches then cost nothing"
    )
    join_minutes: float = devices(
        5.0, "longest wait for the other processes of a training", above=0.0, high=1e4, unit="min"
    )
    seed: int = devices(42, "every random choice follows from it", low=0, high=2**63 - 1)

    checkpoint_dir: str = saving("", "folder of the run; empty: runs/DATE-TIME", path="new folder")
    keep: str = saving(
        "best",
        "what best.pt holds: the last epoch unless one was better by more than chance, or the last",
        choices=("best", "last"),
    )
    keep_best: int = saving(
        0, "checkpoints of the best epochs that are kept beside best.pt; 0: none", low=0, high=1000
    )
    save_minutes: float = saving(
        5.0, "longest time between two saves", above=0.0, high=1e6, unit="min"
    )
    time_budget: float = saving(
        0.0, "stop, saved, after this time; 0: never", low=0.0, high=1e6, unit="min"
    )
    log: str = saving(
        "csv",
        "where the numbers go besides history.csv: tensorboard, wandb, or both with a comma",
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = typed(item, getattr(self, item.name), *plain_type(item))
            object.__setattr__(self, item.name, value)
            check_limits(item, value, self.preset, PRESETS.get(str(self.preset)))
        check_together(self)

    def replace(self, **changes: Any) -> Config:
        """Return a copy with these settings changed; InputError for an unknown or bad one."""
        _refuse_unknown(changes)
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return dataclasses.asdict(self)

    def save(self, path: Path) -> None:
        """Write `config.json`."""
        text = json.dumps({"format": FORMAT, **self.as_dict()}, indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Config:
        """Read `config.json`; missing settings take their defaults.

        Raises InputError when the file is missing, is not JSON, was written by a newer kit or
        holds a setting this kit does not know.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"{path}: no such settings file. Give the config.json of a run.")
        values = read_json(path, "a settings file", {"format": int})
        written = values.pop("format", 0)
        if written > FORMAT:
            raise InputError(
                f"{path}: written by a newer camoxpert_nb (format {written}; this kit reads up to "
                f"{FORMAT}). Update the kit, or start a new run with this one."
            )
        try:
            return cls().replace(**values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


PATHS = [item.name for item in dataclasses.fields(Config) if "path" in item.metadata]
OPEN = [item.name for item in dataclasses.fields(Config) if "open" in item.metadata]
SWITCHES = [item.name for item in dataclasses.fields(Config) if item.type == "bool"]


def make_config(preset: str = "balanced-2gpu", **changes: Any) -> Config:
    """Return a preset's settings with these changes; InputError for an unknown preset."""
    if preset not in PRESETS:
        raise InputError(
            f"no preset '{preset}'. Presets: {', '.join(PRESETS)}{near(preset, PRESETS)}"
        )
    return with_changes(Config(preset=preset, **PRESETS[preset]), changes)


def with_changes(base: Config, changes: Mapping[str, Any]) -> Config:
    """Return settings for a new run: `base` with these changes and what follows from them.

    Stage one and warm-up keep their share of the epochs unless they are given.
    """
    return base.replace(**in_proportion(base.as_dict(), with_rates(changes)))


def with_rates(changes: Mapping[str, Any], *, follows: bool = False) -> dict[str, Any]:
    """Return changes of which a new learning rate counts for the batch at hand, unless it is told.

    `follows`: stage two had the rate of stage one. Command line, form and resume follow this rule.
    """
    rates = [rate for rate in ("lr", "stage2_lr") if rate in changes]
    rates += ["stage2_lr"] * (follows and "lr" in changes)
    fresh = {f"{rate}_batch": 0 for rate in rates}
    return {**fresh, **changes}


def differences(config: Config, base: Config) -> dict[str, Any]:
    """Return the settings of `config` that differ from `base`; one place has many paths."""
    return {
        name: value
        for name, value in config.as_dict().items()
        if value != (was := getattr(base, name))
        and not (name in PATHS and value and was and Path(value).resolve() == Path(was).resolve())
    }


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """Return settings as the words of a command line that gives them."""
    words = []
    for name, value in values.items():
        if isinstance(value, bool):
            words.append(flag_of(name) if value else flag_of(f"no_{name}"))
        elif value is None and name in SWITCHES:
            words.append(flag_of(f"auto_{name}"))
        else:
            empty = value is None or (name in PATHS and not value)
            nothing = AUTO if name in OPEN else NONE
            words += flag_with(name, nothing if empty else str(value))
    return words


def plain_type(item: dataclasses.Field[Any]) -> tuple[type, bool]:
    """Return a setting's type without `None`, and whether it may be None."""
    hint = _hints()[item.name]
    if "open" in item.metadata:
        return hint, True
    if isinstance(hint, types.UnionType):
        return next(kind for kind in hint.__args__ if kind is not type(None)), True
    return hint, False


@lru_cache(maxsize=1)  # asked for each setting of each form
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(Config)


def _refuse_unknown(changes: Mapping[str, Any]) -> None:
    known = [item.name for item in dataclasses.fields(Config)]
    if unknown := [name for name in changes if name not in known]:
        hint = max((near(name, known) for name in unknown), key=len)
        raise InputError(
            f"unknown setting{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}{hint}"
        )
