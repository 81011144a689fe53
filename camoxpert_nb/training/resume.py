"""Going on with a run: where it was, with what it had, here or in another folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..data.identity import Split
from ..errors import InputError
from ..runs.checkpoint import bare_keys, load_checkpoint
from ..runs.run import Run
from ..settings.config import ON_RESUME, Config, differences, flag_of, with_rates
from .prepare import Training
from .schedule import Origin, build_plan

# Settings that shape the learning rate over time; the rate itself is not among them.
SHAPE = {"epochs", "stage1_epochs", "scheduler", "warmup_epochs", "t_mult", "min_lr"}
SHAPE |= {"progressive_unfreeze"}


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
    return config.replace(**{**with_rates(changes), "checkpoint_dir": _target(folder, changes)})


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


def restore(training: Training, run: Run, known: Split) -> None:
    """Take up the run's last checkpoint: state, history up to it, and the schedule from there.

    `known` is the split it was made with. What changed since is added to `training.changes`, a
    line each. Raises InputError where it
    needs a new run.
    """
    checkpoint = training.ranks.from_first(lambda: run.load("last"))
    source = str(run.folder / "last.pt")
    was, config, state = Config().replace(**checkpoint["config"]), training.config, training.state
    changes = [*training.data.changes, *compare_settings(was, config, source)]
    for key in ("net", "ema"):
        checkpoint[key] = checkpoint[key] and bare_keys(checkpoint[key])
    try:
        state.load_state_dict(checkpoint)
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(
            f"{source} does not fit this network or kit ({str(error).splitlines()[0]}). Use the "
            "kit version named in its summary, or take its weights alone with --init-from."
        ) from error
    training.changes = [*changes, *_compare_images(training, known)]
    run.cut_history(state.epoch, state.step)
    if SHAPE & set(differences(config, was)):
        state.origin = _origin(training, was)
    images, devices = training.plan.images, training.plan.devices
    training.plan = build_plan(config, images, devices, state.origin)


def _compare_images(training: Training, known: Split) -> list[str]:
    """Begin an epoch anew whose images changed, and the best where other images are scored."""
    state, data, changes = training.state, training.data, list[str]()
    if not known:
        return changes
    changed = [
        set(known.keys(pairs)) != set(side)
        for pairs, side in ((data.train, known.train), (data.validation, known.validation))
    ]
    if changed[0] and state.seen:
        state.seen, state.sums, state.shares = 0, {}, None
        changes.append(f"epoch {state.epoch + 1} begins anew, as its images changed")
    if changed[1] and state.best and state.epoch < training.plan.epochs:
        state.best = {}
        changes.append(
            "the best epoch is looked for anew, as other images validate: scores over other "
            "images cannot be compared"
        )
    return changes


def compare_settings(was: Config, now: Config, source: str) -> list[str]:
    """Return a line for each setting that changed since `source` was saved.

    Raises InputError for settings that need a new run.
    """
    changed = differences(now, was)
    lines = {}
    for kind, names in ON_RESUME.items():
        listed = [
            f"{flag_of(name)} {_shown(getattr(was, name))} -> {_shown(value)}"
            for name, value in changed.items()
            if name in names.split()
        ]
        if listed and kind == "a new run":
            raise InputError(
                f"{source} was trained with other settings ({', '.join(listed)}). A run goes on "
                "with the network and the images it began with, or its scores would not be true. "
                "Leave these flags out, or start a new run from its weights: --init-from."
            )
        lines[kind] = listed
    goes_on = [f"goes on with {line}" for line in lines["taken over"] + lines["of the machine"]]
    ignored = lines["no effect"]
    return [*goes_on, *(f"{line} has no effect: the run began long ago" for line in ignored)]


def _shown(value: Any) -> str:
    return (
        "none" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)
    )


def _origin(training: Training, was: Config) -> Origin:
    """Return where the run leaves its old schedule; its rate falls on from there."""
    state, plan = training.state, training.plan
    # Times and factors do not hang on batches, which may not even fit any more.
    single = was.replace(batch_size=1, stage2_batch_size=1, accumulation_steps=1)
    before = build_plan(single, plan.images, 1, state.origin)
    now = min(plan.time(state.epoch, state.seen), before.epochs)
    opened = before.stage_at(now).open_blocks if state.epoch or state.seen else 0
    return Origin(plan.time(state.epoch, state.seen), before.factor(now), opened)


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
