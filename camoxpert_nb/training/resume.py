"""Going on with a run: where it was, with what it had, here or in another folder."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from ..data.cache import Progress
from ..data.identity import Split
from ..errors import InputError, few
from ..machine.distributed import Ranks
from ..network.build import check_version
from ..runs.best_epochs import drop_epochs_after
from ..runs.checkpoint import bare_keys, load_checkpoint, settings_of
from ..runs.history import ENDS
from ..runs.process import new_folder
from ..runs.run import Onlooker, Run
from ..settings.config import Config, differences, with_rates
from ..settings.recipe import in_proportion
from .changes import compare_settings, fallen, without_uncertainty
from .early import refuse_over
from .own import Own, is_own, require_own
from .prepare import Training, prepare, versions
from .schedule import SAMPLES, Origin, Plan, build_plan

# Settings that shape the learning rate over time; the rate itself is not among them.
SHAPE = {"epochs", "stage1_epochs", "scheduler", "warmup_epochs", "t_mult", "min_lr"}
SHAPE |= {"progressive_unfreeze"}


def resumed_config(source: Path, changes: dict[str, Any]) -> Config:
    """Return the settings to go on with: the run's own, and `changes` where they differ.

    `source` is a run folder, its last.pt, or another checkpoint, which goes on in a folder of its
    own. Without a changed `checkpoint_dir` the run goes on in place. Raises InputError when there
    is nothing to resume.
    """
    if not source.exists() or (source.is_dir() and not Run(source).exists()):
        raise InputError(
            f"{source}: no run to go on from. Give the folder of a run (it holds config.json and "
            "last.pt) or its last.pt. To take only weights, use --init-from."
        )
    if folder := _run_of(source):
        config = Config.load(Run(folder).config_path)
    else:
        config = settings_of(_whole(source), source)
        folder = Path(changes.get("checkpoint_dir") or source.with_name(source.stem))
    taken = with_rates(changes, follows=not config.stage2_lr)
    if (config.stage1_epochs or 0) > taken.get("epochs", config.epochs):  # it cannot be kept
        taken = in_proportion(config.as_dict(), taken)
    now = config.replace(**{**taken, "checkpoint_dir": _target(folder, changes)})
    if Run(folder).has("last"):
        compare_settings(config, now, str(source))  # what needs a new run is said at once
    return now


def _run_of(source: Path) -> Path | None:
    """Return the folder of the run that goes on as it is; None for a checkpoint that stands alone.

    Only last.pt is where a run stands: another file beside it is another state.
    """
    if source.is_dir():
        return source
    whole = source.name == "last.pt" and Run(source.parent).exists()
    return source.parent if whole else None


def take_over(source: Path, config: Config) -> None:
    """Copy a run to `config.checkpoint_dir`, unless it goes on in place.

    Nothing of the source changes, so it may be read-only. Raises InputError when another run
    lives there already.
    """
    folder, target = _run_of(source), Path(config.checkpoint_dir)
    if folder and target.resolve() == folder.resolve():
        return
    if Run(target).exists():
        raise InputError(
            f"going on from {source} would overwrite the run in {target}. Choose another "
            f"--checkpoint-dir, or go on with that one: `camoxpert resume {target}`."
        )
    target.mkdir(parents=True, exist_ok=True)
    if folder:
        Run(folder).copy_to(target)
        return
    for name in ("split.json", "history.jsonl"):  # of its run: what trained, and what was scored
        if (source.parent / name).exists():
            shutil.copyfile(source.parent / name, target / name)
    shutil.copyfile(source, target / "last.pt")


def folder_for(config: Config, resume: bool) -> Path:
    """Return the folder of a run that begins or goes on; InputError if another one lives there."""
    folder = Path(config.checkpoint_dir or new_folder())
    if Run(folder).exists() and not resume:
        raise InputError(
            f"{folder} already holds a run. Go on with `camoxpert resume {folder}`, or "
            "choose another --checkpoint-dir."
        )
    return folder


def begin(training: Training, run: Run, known: Split | None) -> None:
    """Take up the last checkpoint, if there is one to go on from, and write down what starts."""
    run.clear()
    if known is not None:
        restore(training, run, known)
    else:
        run.cut_history(0, 0)  # of a run that died before it was first saved
    run.save_json("split", training.data.split.after(known or Split({}, {})))
    run.save_config(training.config)
    if (names := training.state.own.names) or run.load_json("own"):
        run.save_json("own", names)
    if left := run.point_latest():
        training.changes = [*training.changes, left]
    devices = list(training.device_lines)
    started: dict[str, Any] = {"step": training.state.step, "epoch": training.state.epoch}
    started["stages"] = training.plan.in_rows()
    run.log("start", **started, versions=versions(), devices=devices, changes=training.changes)


def as_saved(
    config: Config, source: str, ranks: Ranks, progress: Progress | None = None
) -> Training:
    """Return the training as the run in `source` would go on, or a new one; nothing is written."""
    run = Onlooker(source)
    training, known = prepare_for(run, config, bool(source), ranks, progress)
    if known is not None:
        restore(training, run, known)
    return training


def prepare_for(
    run: Run,
    config: Config,
    resume: bool,
    ranks: Ranks,
    progress: Progress | None = None,
    net: nn.Module | None = None,
    own: Own | None = None,
) -> tuple[Training, Split | None]:
    """Prepare a training of `run`, and return the split to `restore` it with, None if it is new.

    It goes on if that is asked for (`resume`) and there is a checkpoint. `net` and `own` are
    prepare's. Raises InputError where the run's parts of its user's own are not given.
    """
    going_on = ranks.from_first(lambda: resume and _can_go_on(run))
    if resume and not going_on:  # it died before it was first saved
        require_own(ranks.from_first(lambda: run.load_json("own")), own or Own(), run.folder)
    known = Split.load(ranks.from_first(lambda: _split_of(run) if going_on else {}))
    training = prepare(config, progress, net, ranks=ranks, empty=going_on, known=known, own=own)
    return training, known if going_on else None


def _can_go_on(run: Run) -> bool:
    """Say whether there is a state to go on from; InputError where there was one and it is gone.

    A run that died before it was first saved begins anew.
    """
    if run.has("last"):
        return True
    records = run.records()
    ended = [each for each in records if each["kind"] in ENDS or each.get("epoch", 0) > 1]
    if ended or (run.has("best") and not records):
        done = len(run.records("epoch"))
        raise InputError(
            f"{run.folder} has no last.pt any more, so this run ({done} epochs are done) cannot go "
            f"on where it was. {_way_on(run)}"
        )
    return False


def _split_of(run: Run) -> dict[str, Any]:
    """Return what a run's split.json holds; InputError where it is gone: then nobody knows.

    A checkpoint that stands alone, without the history of its run, has none.
    """
    if run.history_path.exists() and not (run.folder / "split.json").exists():
        raise InputError(
            f"{run.folder} has no split.json any more: which images trained it and which it held "
            "out is not known, and its scores would not be true. Put the file back, or begin a "
            f"new run from its weights: `camoxpert train --init-from {run.folder / 'last.pt'}`."
        )
    return run.load_json("split")


def _way_on(run: Run) -> str:
    best = f" --init-from {run.folder / 'best.pt'}" if run.has("best") else ""
    return (
        f"Put last.pt back, or begin a new run{' from its best weights' if best else ''}: "
        f"`camoxpert train --config {run.config_path}{best} --checkpoint-dir NEW`."
    )


def _last(run: Run) -> dict[str, Any]:
    """Return the run's last checkpoint; InputError says how to go on without."""
    try:
        return run.load("last")
    except InputError as error:
        raise InputError(f"{error} {_way_on(run)}") from error


def restore(training: Training, run: Run, known: Split) -> None:
    """Take up the run's last checkpoint: state, history up to it, and the schedule from there.

    `known` is the split it was made with. What changed since is added to `training.changes`, a
    line each. Raises InputError where it needs a new run.
    """
    checkpoint = training.ranks.from_first(lambda: _last(run))
    has_best = training.ranks.from_first(lambda: run.has("best"))
    source = str(run.folder / "last.pt")
    was, config = settings_of(checkpoint, run.folder / "last.pt"), training.config
    state, before = training.state, checkpoint.get("own", {})
    others = require_own(before, state.own, run.folder)
    if is_own(state.own.loss) and "loss" not in before:
        training.config = config = without_uncertainty(was, config)
    changes = [*others, *training.data.changes, *compare_settings(was, config, source)]
    try:
        for key in ("net", "ema"):
            checkpoint[key] = checkpoint[key] and bare_keys(checkpoint[key])
        check_version(checkpoint["net"], source)
        state.load_state_dict(checkpoint)
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{source} does not fit this network or kit ({str(error).splitlines()[0]}). Use the "
            "kit version named in its summary, or take its weights alone with --init-from."
        ) from error
    changes += [*_settle_stages(training, was), *_compare_images(training, known)]
    comparable = bool(checkpoint["best"]) == bool(state.best)
    if state.best and not has_best:
        state.best = {}
        changes.append("the best epoch is looked for anew, as best.pt is not here")
    refuse_over(training.config, _plan(training, training.config, state.origin), state)
    run.cut_history(state.epoch, state.step)
    if training.ranks.first:
        drop_epochs_after(run, state.epoch if comparable else 0, training.config.keep_best)
    if SHAPE & set(differences(training.config, was)):
        state.origin = _origin(training, was)
    training.plan = _plan(training, training.config, state.origin)
    settings = was, training.config
    training.changes = [*changes, *fallen(training.plan, (state.epoch, state.seen), *settings)]


def _settle_stages(training: Training, was: Config) -> list[str]:
    """Keep what is over as it was; InputError for fewer epochs than are done."""
    state, config = training.state, training.config
    done = state.epoch + bool(state.seen)  # a begun epoch is ended
    if config.epochs < done:
        raise InputError(
            f"--epochs {config.epochs}, but this run is in epoch {done} already: give at least "
            f"{done}, or look at it as it is with `camoxpert evaluate`."
        )
    over = (state.epoch, state.seen) > (was.stage1_epochs, 0)
    length = was.stage1_epochs if over else max(config.stage1_epochs, min(done, was.stage1_epochs))
    if length == config.stage1_epochs:
        return []
    line = f"--stage1-epochs {config.stage1_epochs}: stage one "
    line += "is over" if over else f"lasts until the end of epoch {length}"
    training.config = config.replace(stage1_epochs=length)
    return [f"{line}, so it counts {length}"]


def _plan(training: Training, config: Config, origin: Origin | None) -> Plan:
    return build_plan(config, training.plan.images, training.plan.devices, origin)


def _compare_images(training: Training, known: Split) -> list[str]:
    """Begin an epoch anew whose images changed, and the best where other images are scored."""
    state, data, changes = training.state, training.data, list[str]()
    if not known:
        return changes
    now, changed = data.split, []
    for what, pairs, paths, side in (
        ("training", data.train, now.train, known.train),
        ("validation", data.validation, now.validation, known.validation),
    ):
        edited = [
            path
            for key, path in paths.items()
            if known.masks.get(key, now.masks[key]) != now.masks[key]
        ]
        if edited:
            changes.append(f"{len(edited)} {what} images have other masks now: {few(edited)}")
        changed.append(bool(edited) or set(known.keys(pairs)) != set(side) - known.gone)
    if changed[0] and state.seen:
        state.seen, state.sums = 0, {}
        if state.shares is not None:
            state.shares.zero_()
        changes.append(f"epoch {state.epoch + 1} begins anew, as its images changed")
    if changed[1] and state.best and state.epoch < training.plan.epochs:
        state.best = {}
        changes.append(
            "the best epoch is looked for anew, as other images validate: scores over other "
            "images cannot be compared, and epochs kept by --keep-best go"
        )
    return changes


def _origin(training: Training, was: Config) -> Origin | None:
    """Return where the run leaves its old schedule; its rate goes on from there.

    It leaves it nowhere where the new one is the same from now on, or its next part has not begun.
    """
    state = training.state
    # Times and factors do not hang on batches, which may not even fit any more.
    single: dict[str, Any] = {"batch_size": 1, "stage2_batch_size": 1, "accumulation_steps": 1}
    before = _plan(training, was.replace(**single), state.origin)
    after = _plan(training, training.config.replace(**single), state.origin)
    now = training.plan.time(state.epoch, state.seen)
    first = after.first_epoch_of_part(after.stage_at(now).part)
    if (state.epoch, state.seen) == (first, 0) or _same_from(now, before, after):
        return state.origin
    then = min(now, before.epochs)
    return Origin(now, before.factor(then), before.stage_at(then).open_blocks, before.rises(then))


def _same_from(now: float, before: Plan, after: Plan) -> bool:
    """Say whether two schedules are one from now on."""
    times = [now + (after.epochs - now) * share / SAMPLES for share in range(SAMPLES)]
    return before.epochs == after.epochs and all(
        before.stage_at(time).open_blocks == after.stage_at(time).open_blocks
        and math.isclose(before.factor(time), after.factor(time), abs_tol=1e-9)
        for time in times
    )


def _whole(source: Path) -> dict[str, Any]:
    checkpoint = load_checkpoint(source)
    if "optimizer" not in checkpoint or "config" not in checkpoint:
        run = source.parent
        last = f", or go on with `camoxpert resume {run}`" if Run(run).has("last") else ""
        raise InputError(
            f"{source} holds weights only, without optimiser and settings, so a run cannot go on "
            f"from it. Start a new one from its weights: --init-from {source}{last}."
        )
    return checkpoint


def _target(folder: Path, changes: dict[str, Any]) -> str:
    # Resolved, because runs/latest is a link that will point elsewhere one day.
    return str(
        changes.get("checkpoint_dir") or (folder.resolve() if folder.is_symlink() else folder)
    )
