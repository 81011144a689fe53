"""The commands that judge and use what was trained, and look at data.

Heavy imports happen inside each command, so `--help` is instant.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .console import Console
    from .evaluate import Views


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


def compare(options: dict[str, Any]) -> int:
    """Score runs on the same images and say which differences are more than chance."""
    from .compare import ablation, performance_table
    from .compare import compare as compare_tables
    from .config import Config
    from .console import Console
    from .judge import judge
    from .run import Run

    if len(options["runs"]) < 2 or not options["dataset_path"]:
        raise InputError("compare needs two or more run folders and --dataset-path DIR.")
    console, runs = Console(()), [Run(folder) for folder in options["runs"]]
    paths = [Path(path) for path in options["dataset_path"]]
    how = {name: options[name] for name in ("split", "noncam", "device")}
    judged = [judge(run, paths, progress=console.progress, **how) for run in runs]
    for sets in zip(*judged, strict=True):
        tables = {
            str(run.folder): one.scores.per_image for run, one in zip(runs, sets, strict=True)
        }
        console.say(f"{sets[0].name}\n{compare_tables(tables).summary()}\n")
    console.say(performance_table(runs).set_index("run").T.to_string())
    names = [str(run.folder) for run in runs]
    settings = {
        name: Config.load(run.config_path).as_dict() for name, run in zip(names, runs, strict=True)
    }
    best = {
        name: run.load_json("summary").get("best", {}).get("iou")
        for name, run in zip(names, runs, strict=True)
    }
    console.say("\nbest validation IoU, runs that differ in nothing but their seed together")
    console.say(ablation(settings, best).to_string(index=False))
    return 0


def predict(options: dict[str, Any]) -> int:
    """Write a map for each image, and the object found drawn on it if asked to."""
    from .console import Console
    from .judge import predict_files
    from .pictures import write_overlays
    from .run import Run

    console, output = Console(()), Path(options["output"])
    count = predict_files(
        Run(options["run"]),
        Path(options["input"]),
        output,
        device=options["device"],
        views=_views(options),
        progress=console.progress,
    )
    console.say(f"{count} maps written to {output} (8-bit grey: 0 background, 255 object)")
    if options["overlay"]:
        drawn = write_overlays(Path(options["input"]), output)
        console.say(f"{drawn} overlays written to {output / 'overlays'}")
    return 0


def export(options: dict[str, Any]) -> int:
    """Write the network as one file that runs without this package, and test the file."""
    from .config import Config
    from .console import Console
    from .export import eager, images_per_second, load_exported
    from .export import export as write
    from .recipe import load_net
    from .run import Run

    run = Run(options["run"])
    net, size = load_net(run), Config.load(run.config_path).img_size
    path = Path(options["output"] or run.folder / "model")
    images = run.load_preview().get("image")
    written = write(net, path, size=size, format=options["format"], images=images)
    Console(()).say(written.summary())
    ways = {"PyTorch": eager(net), written.format: load_exported(written.path)}
    speeds = images_per_second(ways, size)
    said = ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items())
    Console(()).say(f"  images/s on this CPU, one at a time: {said}")
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


def _score_run(options: dict[str, Any], console: Console) -> list[dict[str, Any]]:
    from .judge import draw_test, judge
    from .report import write_report
    from .run import Run
    from .scores import write_csv

    if not options["run"] or not options["dataset_path"]:
        raise InputError(
            "evaluate needs --run RUN --dataset-path DIR, or --predictions DIR --ground-truth DIR."
        )
    run = Run(options["run"])
    judged = judge(
        run,
        [Path(path) for path in options["dataset_path"]],
        split=options["split"],
        noncam=options["noncam"],
        device=options["device"],
        views=_views(options),
        threshold=options["validation_threshold"],
        progress=console.progress,
    )
    for each in judged:
        console.say(f"{each.summary()}\n  {draw_test(run, each)}")
    if options["csv"]:
        write_csv({each.name: each.scores for each in judged}, Path(options["csv"]))
        console.say(f"each image's scores: {options['csv']}")
    if options["report"]:
        console.say(f"report: {write_report(run, judged)}")
    return [each.to_json() for each in judged]


def _views(options: dict[str, Any]) -> Views:
    from .evaluate import Views

    return Views(options["flip"], tuple(options["scales"]))


def _score_folders(options: dict[str, Any], console: Console) -> dict[str, Any]:
    from .evaluate import score_folder

    if not options["predictions"] or not options["ground_truth"]:
        raise InputError("--predictions DIR and --ground-truth DIR belong together: give both.")
    scores = score_folder(
        Path(options["predictions"]), Path(options["ground_truth"]), progress=console.progress
    )
    console.say(f"{options['predictions']}\n{scores.summary()}")
    return scores.to_json()
