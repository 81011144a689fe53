"""Going on with a run: where it was, with what it had, here or in another folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runs.run import Run, bare_keys, load_checkpoint
from ..settings.config import Config, differences
from .prepare import Training

NETWORK = ("backbone", "num_experts", "top_k", "width", "deep_supervision")


def resumed_config(source: Path, changes: dict[str, Any]) -> Config:
    """Return the settings to go on with: the run's own, and `changes` where they differ.

    `source` is a run folder, or a checkpoint file that may stand alone. Without a changed
    `checkpoint_dir` the run goes on in place. Raises InputError when there is nothing to resume.
    """
    folder = source if source.is_dir() else source.parent
    if not source.exists() or (source.is_dir() and not Run(source).exists()):
        raise InputError(
            f"{source}: no run to go on from. Give the folder of a run (it holds config.json and "
            "last.pt) or its last.pt. To take only weights, use --init-from."
        )
    if Run(folder).exists():
        config = Config.load(Run(folder).config_path)
    else:
        config = Config().replace(**_whole(source)["config"])
        folder = Path(changes.get("checkpoint_dir") or folder / source.stem)
    return config.replace(**{**changes, "checkpoint_dir": _target(folder, changes)})


def take_over(source: Path, config: Config) -> None:
    """Copy a run to `config.checkpoint_dir`, unless it goes on in place.

    Nothing of the source changes, so it may be read-only. Raises InputError when another run
    lives there already.
    """
    folder, target = source if source.is_dir() else source.parent, Path(config.checkpoint_dir)
    if target.resolve() == folder.resolve():
        return
    if Run(target).exists():
        raise InputError(
            f"going on from {source} would overwrite the run in {target}. Choose another "
            f"--checkpoint-dir, or go on with that one: `camoxpert resume {target}`."
        )
    target.mkdir(parents=True, exist_ok=True)
    if not Run(folder).exists():
        shutil.copyfile(source, target / "last.pt")
        return
    Run(folder).copy_to(target)


def restore(training: Training, run: Run) -> None:
    """Take up the run's last checkpoint: state, place in the plan, history up to it.

    Raises InputError when it belongs to another network.
    """
    checkpoint = training.ranks.from_first(lambda: run.load("last"))
    source = str(run.folder / "last.pt")
    _check_same_network(training.config, checkpoint, source)
    for key in ("net", "ema"):
        checkpoint[key] = checkpoint[key] and bare_keys(checkpoint[key])
    try:
        training.state.load_state_dict(checkpoint)
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(
            f"{source} does not fit this network or kit ({str(error).splitlines()[0]}). Use the "
            "kit version named in its summary, or take its weights alone with --init-from."
        ) from error
    run.cut_history(checkpoint["step"])
    plan, epoch = training.plan, checkpoint["epoch"]
    per_step = training.images_per_step(plan.at(plan.step_of(epoch, 0, 1)).stage)
    training.state.step = plan.step_of(epoch, checkpoint["samples"], per_step)


def _check_same_network(config: Config, checkpoint: dict[str, Any], source: str) -> None:
    was = Config().replace(**checkpoint["config"])
    changed = [name for name in differences(config, was) if name in NETWORK]
    if changed:
        listed = ", ".join(f"{n} {getattr(was, n)} -> {getattr(config, n)}" for n in changed)
        raise InputError(
            f"{source} was trained as another network ({listed}). A run goes on with the network "
            "it began with; to start a new run from its weights use --init-from."
        )


def _whole(source: Path) -> dict[str, Any]:
    checkpoint = load_checkpoint(source)
    if "optimizer" not in checkpoint or "config" not in checkpoint:
        raise InputError(
            f"{source} holds weights only, without optimiser and settings, so a run cannot go on "
            f"from it. Start a new one from its weights: --init-from {source}."
        )
    return checkpoint


def _target(folder: Path, changes: dict[str, Any]) -> str:
    # Resolved, because runs/latest is a link that will point elsewhere one day.
    return str(
        changes.get("checkpoint_dir") or (folder.resolve() if folder.is_symlink() else folder)
    )
