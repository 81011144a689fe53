"""The command line: `camoxpert train|resume|evaluate|predict|data|demo`.

The flags of `train` are made from the settings table. Heavy imports happen inside each command, so
`--help` is instant. Exit codes: 0 the work was done, 1 it broke, 2 unusable input, 130 it was
stopped before its end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .config import GROUPS, PRESETS, Config, flag_of, make_config, plain_type
from .errors import InputError, TrainingError
from .version import __version__

INTERRUPTED = 130  # as shells report Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        return command(options)
    except InputError as error:
        print(f"camoxpert: {error}", file=sys.stderr)
        return 2
    except TrainingError as error:
        print(f"camoxpert: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("camoxpert: interrupted", file=sys.stderr)
        return INTERRUPTED


def train(options: dict[str, Any]) -> int:
    """Train a new run, or go on with another one's checkpoint."""
    dry_run, source = options.pop("dry_run"), options.pop("resume_from")
    preset, file = options.pop("preset"), options.pop("config")
    if source:
        return _resume(Path(source), options, dry_run)
    reason = ""
    if file:
        config = Config.load(Path(file)).replace(**options)
    else:
        if preset == "auto":
            from .banner import auto_preset

            preset, reason = auto_preset(options.get("dataset_path", ""))
        config = make_config(preset, **options)
    return _fit(config, dry_run=dry_run, reason=reason)


def resume(options: dict[str, Any]) -> int:
    """Go on with a run, exactly where it was saved."""
    return _resume(Path(options.pop("run")), options, options.pop("dry_run"))


def evaluate(options: dict[str, Any]) -> int:
    """Score a run on a data set, or a folder of maps on a folder of masks."""
    from .console import Console

    console = Console(())
    if options["predictions"] or options["ground_truth"]:
        results = [_score_folders(options, console)]
    else:
        results = _score_run(options, console)
    if options["json"]:
        path = Path(options["json"])
        path.parent.mkdir(parents=True, exist_ok=True)
        values = results[0] if len(results) == 1 else {"sets": results}
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        console.say(f"written to {path}")
    return 0


def predict(options: dict[str, Any]) -> int:
    """Write a map for each image."""
    from .console import Console
    from .judge import predict_files
    from .run import Run

    console = Console(())
    output = Path(options["output"])
    count = predict_files(
        Run(options["run"]),
        Path(options["input"]),
        output,
        device=options["device"],
        progress=console.progress,
    )
    console.say(f"{count} maps written to {output} (8-bit grey: 0 background, 255 object)")
    return 0


def data(options: dict[str, Any]) -> int:
    """Look through a data set and report what is in it; exit code 1 if it cannot be used so."""
    from .audit import audit, report
    from .console import Console
    from .layouts import find_datasets

    console = Console(())
    sets = find_datasets(Path(options["folder"]))
    found = audit(sets, progress=console.progress)
    console.say(report(found))
    if options["picture"]:
        from .judge import draw_pairs

        console.say(f"drawn: {draw_pairs(sets, Path(options['picture']))}")
    if options["json"]:
        Path(options["json"]).write_text(json.dumps(found.as_dict(), indent=1), encoding="utf-8")
    return 1 if found.count("stop") else 0


def demo(options: dict[str, Any]) -> int:
    """Train the demo preset on generated images, score it and draw the results."""
    from .recipe import build_data

    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = options.pop("folder") or str(Path("runs") / f"demo-{stamp}")
    config = make_config("demo", checkpoint_dir=folder, **options)
    code = _fit(config)
    if code:
        return code
    path = str(build_data(config).root)
    scores = str(Path(folder) / "evaluation.json")
    score = {"run": folder, "dataset_path": path, "split": "test", "json": scores}
    evaluate({"predictions": "", "ground_truth": "", "noncam": False, "device": "auto", **score})
    print(
        f"\nOpen the pictures in {folder}/figures. Next: train on your own images with\n"
        "  camoxpert train --dataset-path DIR        (first look at them: camoxpert data DIR)\n"
        "or find objects in any picture with\n"
        f"  camoxpert predict --run {folder} --input PICTURE --output maps"
    )
    return 0


def _resume(source: Path, options: dict[str, Any], dry_run: bool) -> int:
    from .resume import resumed_config, take_over

    config = resumed_config(source, options)
    if not dry_run:
        take_over(source, config)
    return _fit(config, dry_run=dry_run, resume=True)


def _fit(config: Config, *, dry_run: bool = False, resume: bool = False, reason: str = "") -> int:
    from .banner import banner, forecast
    from .console import Console
    from .fit import fit
    from .judge import draw_training
    from .model import EXPERTS
    from .recipe import Training, prepare

    console = Console(tuple(EXPERTS))
    why = [f"preset {config.preset} chosen for this machine: {reason}"] if reason else []
    if dry_run:
        training = prepare(config, console.progress)
        console.say("\n".join([banner(training), *why, forecast(training)]))
        return 0

    def announce(training: Training) -> None:
        console.log = Path(training.config.checkpoint_dir) / "log.txt"
        console.say("\n".join([banner(training), *why, ""]))

    run = fit(
        config,
        resume=resume,
        report=console.report,
        announce=announce,
        progress=console.progress,
    )
    summary = run.load_json("summary")
    console.say(_ending(summary, str(run.folder)))
    for path in draw_training(run) if run.records("epoch") else []:
        console.say(f"  {path}")
    return 0 if summary["finished"] else INTERRUPTED


def _ending(summary: dict[str, Any], folder: str) -> str:
    best, minutes = summary["best"], summary["seconds"] / 60
    reached = summary["target_reached_at_epoch"]
    lines = [f"\n{minutes:.1f} minutes of training in {summary['epochs']} epochs."]
    if best:
        lines.append(
            f"best validation IoU {best['iou']:.3f} at epoch {best['epoch']} ({best['weights']} "
            f"weights); target {summary['target_iou']:g} "
            + (f"reached at epoch {reached}" if reached else "not reached")
        )
    if summary["finished"]:
        lines.append(f"best weights: {folder}/best.pt. Score them on a test set:")
        lines.append(f"  camoxpert evaluate --run {folder} --dataset-path DIR")
    else:
        lines.append("Stopped as asked; everything is saved. Go on with:")
        lines.append(f"  camoxpert resume {folder}")
    return "\n".join(lines)


def _score_run(options: dict[str, Any], console: Any) -> list[dict[str, Any]]:
    from .judge import draw_test, judge
    from .run import Run

    if not options["run"] or not options["dataset_path"]:
        raise InputError(
            "evaluate needs --run RUN --dataset-path DIR, or --predictions DIR --ground-truth DIR."
        )
    run = Run(options["run"])
    results = []
    judged = judge(
        run,
        Path(options["dataset_path"]),
        split=options["split"],
        noncam=options["noncam"],
        device=options["device"],
        progress=console.progress,
    )
    for each in judged:
        console.say(f"{each.name}: {each.note}\n{each.scores.summary()}")
        console.say(f"  {draw_test(run, each)}")
        results.append({"name": each.name, "note": each.note, **each.scores.to_json()})
    return results


def _score_folders(options: dict[str, Any], console: Any) -> dict[str, Any]:
    from .evaluate import score_folder

    if not options["predictions"] or not options["ground_truth"]:
        raise InputError("--predictions DIR and --ground-truth DIR belong together: give both.")
    scores = score_folder(
        Path(options["predictions"]), Path(options["ground_truth"]), progress=console.progress
    )
    console.say(f"{options['predictions']}\n{scores.summary()}")
    return scores.to_json()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camoxpert",
        description="Train, judge and use networks that find camouflaged animals and people.",
    )
    parser.add_argument("--version", action="version", version=f"camoxpert_nb {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sub = _command(commands, "train", train)
    sub.add_argument("--preset", default="auto", help=f"auto, {', '.join(PRESETS)}")
    sub.add_argument("--config", default="", help="a run's config.json instead of a preset")
    sub.add_argument("--resume-from", default="", help="run folder or its last.pt to go on from")
    _add_settings(sub)
    sub = _command(commands, "resume", resume)
    sub.add_argument("run", help="the run folder")
    _add_settings(sub)
    _add_evaluate(_command(commands, "evaluate", evaluate))
    sub = _command(commands, "predict", predict)
    sub.add_argument("--run", required=True, help="run folder whose best weights are used")
    sub.add_argument("--input", required=True, help="an image or a folder of images")
    sub.add_argument("--output", required=True, help="folder for the maps")
    _add_device(sub)
    sub = _command(commands, "data", data)
    sub.add_argument("folder", help="data set, or a folder that holds several")
    sub.add_argument("--json", default="", help="file for the findings")
    sub.add_argument("--picture", default="", help="PNG file for a sample of images and masks")
    sub = _command(commands, "demo", demo)
    sub.add_argument("folder", nargs="?", default="", help="folder of the run")
    sub.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="default 42")
    return parser


def _add_evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--run", default="", help="run folder whose best weights are scored")
    sub.add_argument("--dataset-path", default="", help="folder with the images and masks")
    sub.add_argument(
        "--split",
        default="auto",
        choices=("auto", "test", "validation", "all"),
        help="which images; auto: the test split, or what the run held out",
    )
    sub.add_argument("--noncam", action="store_true", help="score COD10K's NonCAM images too")
    sub.add_argument("--predictions", default="", help="folder of 8-bit maps, instead of a run")
    sub.add_argument("--ground-truth", default="", help="folder of the masks of those maps")
    sub.add_argument("--json", default="", help="file for the scores, per image and in the mean")
    _add_device(sub)


def _command(commands: Any, name: str, function: Any) -> argparse.ArgumentParser:
    sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
    sub.set_defaults(command=function)
    return sub


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; what is not given stays absent, so presets show through."""
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and end")
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for item in dataclasses.fields(Config):
        if item.name == "preset":
            continue
        kind, _ = plain_type(item)
        shape: dict[str, Any] = {"help": item.metadata["help"], "default": argparse.SUPPRESS}
        if kind is bool:
            shape["action"] = argparse.BooleanOptionalAction
        else:
            shape["type"] = kind
            shape["metavar"] = {int: "N", float: "X", str: "TEXT"}[kind]
        groups[item.metadata["group"]].add_argument(flag_of(item.name), dest=item.name, **shape)
