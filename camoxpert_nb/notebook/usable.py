"""Values that fit their limits and cannot be used here all the same: paths, names, GPUs."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from ..outside.paths import readable, writable_folder
from ..runs.process import status
from ..runs.run import Run
from ..settings.checks import flag_of, near
from ..settings.config import PATHS, Config
from .choice import visible_gpus

# How timm's files name what they hold. Asking timm itself would load PyTorch into the notebook.
_NETWORK = re.compile(r"^@register_model\b[^\n]*\n(?:#[^\n]*\n)*def (\w+)\(", re.MULTILINE)
_RENAMED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)^\}\)", re.MULTILINE | re.S)


def unusable(config: Config) -> dict[str, str]:
    """Return, by setting, a sentence on each value that a training here could not use."""
    checks: dict[str, Callable[[Config], None]] = {
        **{name: _check_path(name) for name in PATHS},
        "checkpoint_dir": _check_run,
        "backbone": _check_backbone,
        "gpus": _check_gpus,
    }
    found = {}
    for name, check in checks.items():
        try:
            check(config)
        except InputError as error:
            found[name] = str(error)
    return found


def _check_path(name: str) -> Callable[[Config], None]:
    kind = Config.__dataclass_fields__[name].metadata["path"]

    def check(config: Config) -> None:
        path = getattr(config, name)
        if not path:
            return
        if kind == "new folder":
            writable_folder(path, flag_of(name))
        else:
            readable(path, flag_of(name), kind)

    return check


def _check_run(config: Config) -> None:
    """Raise InputError for a folder that holds a run: a new one needs its own."""
    _check_path("checkpoint_dir")(config)
    folder = config.checkpoint_dir
    run = Run(folder) if folder else None
    if run is None or not (run.exists() or run.config_path.exists()):
        return
    now = status(run)
    state = f"is being trained by process {now.pid}" if now.pid else "holds a run already"
    raise InputError(
        f"--checkpoint-dir {folder} {state}, expected a new folder: name another one, or leave it "
        f"empty for runs/DATE-TIME. To go on with that run: camoxpert resume {folder}"
    )


def _check_backbone(config: Config) -> None:
    name = config.backbone.partition(".")[0]  # behind a dot timm names the weights
    known = networks()
    if not config.backbone.strip():
        raise InputError(
            "--backbone is empty, expected the name of a timm network, as edgenext_base. "
            "See them: camoxpert backbones"
        )
    if known and name not in known:
        raise InputError(
            f"--backbone is '{config.backbone}', but timm has no network of that name"
            f"{near(name, known)} See those that can be used: camoxpert backbones"
        )


def _check_gpus(config: Config) -> None:
    """Raise InputError for GPUs that are not here; where there is none, the CPU trains."""
    here = len(visible_gpus())
    if config.gpus == "all" or not here or config.device == "cpu":
        return
    missing = [part for part in config.gpus.split(",") if int(part) >= here]
    if missing:
        there = f"GPUs 0 to {here - 1} are" if here > 1 else "GPU 0 is"
        raise InputError(
            f"--gpus is '{config.gpus}', but {there} here. Name these, or give all to use each."
        )


@lru_cache(maxsize=1)
def networks() -> frozenset[str]:
    """Return the names of timm's networks, read off its files; none where they are not as known."""
    spec = importlib.util.find_spec("timm")  # finds it, does not load it
    names: set[str] = set()
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in Path(folder, "models").glob("*.py"):
            text = path.read_text(encoding="utf-8", errors="replace")
            names |= set(_NETWORK.findall(text))
            for block in _RENAMED.findall(text):
                names |= set(re.findall(r"^\s*['\"]([\w.]+)['\"]\s*:", block, re.MULTILINE))
    return frozenset(names)
