"""The commands that train: here, in processes of this machine, or as one of torchrun's.

Heavy imports happen inside each command, so `--help` is instant.
"""

from __future__ import annotations

import argparse
import atexit
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import STOPPED, InputError, RankFailed
from ..outside.terminal import tell
from ..runs.process import begun, discard_untrained, new_folder
from ..runs.run import Run
from ..settings.checks import flag_of
from ..settings.config import Config, as_flags, make_config, with_changes
from ..settings.presets import suggest
from .evaluate import evaluate, evaluate_flags
from .flags import add_command, add_json, add_preset, add_settings, write_json
from .forecast import forecast, forecast_flags, refuse_mixed
from .parser import NEW_FOLDER, RUN_OR_FILE, Options, Parser

if TYPE_CHECKING:
    from ..machine.distributed import Ranks


# Settings that each machine may have for itself; all others are those of the first process.
OF_A_MACHINE = ("dataset_path", "cache_dir", "num_workers", "gpus", "device", "join_minutes")


@dataclass(frozen=True)
class Order:
    """What is to be done with which settings, and how it came to that."""

    config: Config
    resume: bool = False
    dry_run: bool = False
    fit_to_budget: bool = False
    json: str = ""
    source: str = ""  # the run folder that is gone on from
    began: float | None = None  # when the command was given, as time.time() tells it
    reason: str = ""


def add_commands(commands: Any) -> None:
    """Add train, resume, demo and, for our own processes, rank."""
    sub = add_command(commands, "train", train, _refuse_mixed)
    add_preset(sub)
    help = "run folder or its last.pt to go on from"
    sub.add_argument("--resume-from", type=RUN_OR_FILE, default="", help=help)
    _add_fit_to_budget(sub)
    _add_dry_run(sub)
    forecast_flags(sub)
    add_settings(sub)
    sub = add_command(commands, "resume", resume)
    sub.add_argument("run", type=RUN_OR_FILE, help="the run folder")
    _add_dry_run(sub)
    add_settings(sub, "What is not given stays as the run has it.")
    sub = add_command(commands, "demo", demo)
    sub.add_argument("folder", type=NEW_FOLDER, nargs="?", help="folder of the run")
    sub.add_argument(
        "--seed",
        type=int,
        default=argparse.SUPPRESS,
        help="every random choice follows from it (default 42)",
    )
    sub = commands.add_parser("rank")  # no help: it is not for people
    sub.set_defaults(command=rank)
    sub.add_argument("config")
    sub.add_argument("--resume", action="store_true")
    sub.add_argument("--began", type=float)
    sub.add_argument("--source", default="")
    _add_fit_to_budget(sub)
    _add_dry_run(sub)


def _add_fit_to_budget(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--fit-to-budget",
        action="store_true",
        help="train as many epochs as the time allows, instead of stopping and going on later",
    )


def _add_dry_run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dry-run", action="store_true", help="show what would be done, and end")
    add_json(sub, "the estimate of a dry run")


def train(options: Options) -> int:
    """Train a new run, or go on with another one's checkpoint."""
    if options["on"] or options["images"] is not None:
        return forecast(options, choose)
    del options["on"], options["images"]
    return _train(lambda: choose(options), options)


def _refuse_mixed(options: Options) -> None:
    refuse_mixed(options)
    if options["resume_from"] and options["fit_to_budget"]:
        raise InputError(
            "--fit-to-budget chooses the epochs of a new run, but --resume-from goes on with "
            "one whose epochs are set. Leave one of them out; --epochs changes a run's length."
        )


def resume(options: Options) -> int:
    """Go on with a run, exactly where it was saved."""
    source, what = Path(options.pop("run")), _what(options)
    return _train(lambda: _resumed(source, options, what), {**options, **what})


def rank(options: Options) -> int:
    """Be one of the processes of a training that `train` started."""
    order = Order(Config.load(Path(options.pop("config"))), **options)
    return _train(lambda: order, {})


def demo(options: Options) -> int:
    """Train the demo preset on generated images, score it and draw the results."""
    named = options.pop("folder")
    config = make_config("demo", **options)
    folder = named or str(new_folder("demo-"))
    config = config.replace(checkpoint_dir=folder)
    with begun(Path(folder), new=not named):
        code = _train(lambda: Order(config), {})
    if code:
        return code
    images = Run(folder).load_json("summary")["data"]["root"]
    files = ["--json", f"{folder}/evaluation.json", "--csv", f"{folder}/evaluation.csv"]
    words = ["--run", folder, "--dataset-path", images, "--split", "test", *files, "--report"]
    parser = Parser()
    evaluate_flags(parser)
    code = evaluate(vars(parser.parse_args(words)))
    tell(
        f"\nOpen {folder}/report.html. Next: train on your own images with\n"
        "  camoxpert train --dataset-path DIR        (first look at them: camoxpert data DIR)\n"
        "or find objects in any picture with\n"
        f"  camoxpert predict --run {folder} --input PICTURE --output maps"
    )
    return code


def choose(options: Options, memory: Sequence[float] | None = None) -> Order:
    """Return what `train`'s flags ask for, here or on GPUs with so many GiB of `memory` each."""
    what = _what(options)
    preset, file = options.pop("preset"), options.pop("config")
    if source := options.pop("resume_from", ""):
        return _resumed(Path(source), options, what)
    if file:
        return Order(with_changes(Config.load(Path(file)), options), **what)
    if preset not in ("", "auto"):
        return Order(make_config(preset, **options), **what)
    own = bool(preset or options.get("dataset_path") or memory)
    if memory is None:
        from ..training.banner import auto_preset

        found = auto_preset(options.get("device", ""), own_images=own, given=options)
    else:
        found = suggest(memory, own_images=own, given=options)
    config = make_config(found.preset, **{**found.changes, **options})
    return Order(config, reason=f"preset {found.preset} chosen: {found.reason}", **what)


def _what(options: Options) -> dict[str, Any]:
    """Take what is to be done out of the options; settings stay."""
    flags = {name: options.pop(name, False) for name in ("dry_run", "fit_to_budget")}
    return flags | {"json": options.pop("json", "")}


def _resumed(source: Path, options: Options, what: dict[str, Any]) -> Order:
    from ..training.resume import resumed_config, take_over

    config = resumed_config(source, options)
    folder = source if source.is_dir() else source.parent
    if not what["dry_run"]:
        take_over(source, config)
    elif source.is_file():  # which may be another state than the run's
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        take_over(source, config.replace(checkpoint_dir=str(folder)))
    return Order(config, resume=True, source=str(folder), **what)


def _train(decide: Callable[[], Order], options: Options) -> int:
    """Train what `decide` says: here, in new processes, or as one that torchrun started.

    Of several processes the first decides; each keeps what of its own `options` is its machine's.
    """
    from ..kaggle.session import hand_over
    from ..machine.devices import processes_to_start
    from ..machine.distributed import expected, joined

    hand_over()
    began, given = time.time(), dict(options)
    minutes = given.get("join_minutes", Config.join_minutes)
    with joined(minutes, cpu=given.get("device") == "cpu") as ranks:
        order = ranks.from_first(decide)
        order = _of_this_machine(order, given, ranks)
        order = replace(order, began=order.began or began)
        config = order.config
        if not expected():
            processes = processes_to_start(config.device, config.parallel, config.gpus)
            if processes:
                return _start(order, processes)
        if order.fit_to_budget:
            own = {name: getattr(config, name) for name in OF_A_MACHINE}
            order = replace(order, config=_fitted(order, ranks).replace(**own))
        return _show(order, ranks) if order.dry_run else _fit(order, ranks)


def _of_this_machine(order: Order, given: Options, ranks: Ranks) -> Order:
    """Return the first process's order with this machine's places and devices.

    What else this process was given and the first was not has no effect, which the reason says.
    """
    if ranks.world == 1:
        return order
    own = {name: given[name] for name in OF_A_MACHINE if name in given and not ranks.first}
    held = {**order.config.as_dict(), "dry_run": order.dry_run}
    held["fit_to_budget"] = order.fit_to_budget
    asked = {name: value for name, value in given.items() if name in held and value != "auto"}
    lines = [
        f"{ranks.name(ranks.rank)} was given {_flag(name, value)}; the first process's "
        f"{_shown(held[name])} holds"
        for name, value in asked.items()
        if name not in OF_A_MACHINE and value != held[name] and (name != "preset" or value)
    ]
    told = ranks.gather([] if ranks.local_rank else lines)
    reason = "\n".join(filter(None, [order.reason, *(line for each in told for line in each)]))
    return replace(order, config=order.config.replace(**own), reason=reason)


def _flag(name: str, value: Any) -> str:
    return f"{flag_of(name)} {value}" if not isinstance(value, bool) else as_flags({name: value})[0]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in (None, "") else str(value)


def _fitted(order: Order, ranks: Ranks) -> Config:
    from ..training.estimate import fitted
    from ..training.prepare import prepare

    training = prepare(order.config, ranks=ranks, empty=True)
    chosen = fitted(training, order.began or time.time())  # each process times its own steps
    return ranks.from_first(lambda: chosen)


def _show(order: Order, ranks: Ranks) -> int:
    """Say what would be done; the steps that are measured are those that would be taken."""
    from ..training.banner import banner
    from ..training.console import Console
    from ..training.estimate import dry_run_text, estimate
    from ..training.resume import as_saved

    console = Console(()) if ranks.first else Console((), stream=io.StringIO())
    training = as_saved(order.config, order.source, ranks, console.progress)
    described = banner(training)  # before the steps, which spoil the training
    estimated = estimate(training)
    text = dry_run_text(training, estimated)
    console.say("\n".join(filter(None, [described, order.reason, text])))
    if ranks.first:
        write_json(order.json, estimated)
    return 0


def _start(order: Order, processes: int) -> int:
    """Train in processes of this machine, one for each GPU."""
    named = order.config.checkpoint_dir
    new = not (named and Path(named).exists())
    folder = named or str(new_folder())
    if order.reason:
        tell(order.reason)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "config.json"
        order.config.replace(checkpoint_dir=folder).save(file)
        arguments = ["camoxpert_nb", "rank", str(file), *_flags(order)]
        with begun(Path(folder), new=new):
            code = _started(arguments, processes, Run(folder))
    if new and (code or order.dry_run):
        discard_untrained(Path(folder))
    return code


def _started(arguments: list[str], processes: int, run: Run) -> int:
    """Return the exit code of these processes; RankFailed where they have not said why."""
    from ..machine.distributed import start_ranks

    try:
        start_ranks(arguments, processes)
    except RankFailed as error:
        if error.silent:
            return error.exit_code
        raise _note(error, run) from error
    return 0


def _flags(order: Order) -> list[str]:
    flags = [flag_of(name) for name in ("resume", "dry_run", "fit_to_budget") if vars(order)[name]]
    flags += ["--began", str(order.began), "--source", order.source]
    return [*flags, *(["--json", order.json] if order.json else [])]


def _note(error: RankFailed, run: Run) -> RankFailed:
    """Leave the reason in the run, if it began, and return it with the way on.

    One that did not begin is told with what a process left as its cause, if it could.
    """
    if not run.exists():
        cause = run.load_json("failure").get("message", "")
        message = f"{cause} ({error})" if cause else str(error)
        return RankFailed(message, error.exit_code, silent=False)
    message = f"{error} Go on from the last save with `camoxpert resume {run.folder}`."
    run.save_json("failure", {"kind": "RankFailed", "message": message})
    return RankFailed(message, error.exit_code, silent=False)


def _fit(order: Order, ranks: Ranks) -> int:
    from .train_here import train_here

    how: dict[str, Any] = {"resume": order.resume, "began": order.began}
    run = train_here(order.config, ranks, reason=order.reason, **how)
    finished: bool = ranks.from_first(lambda: run.load_json("summary")["finished"])
    return 0 if finished else STOPPED
