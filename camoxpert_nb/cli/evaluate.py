"""The commands that judge and use what was trained, and look at data.

Heavy imports happen inside each command, so `--help` is instant.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..outside.paths import writable_file, writable_folder
from ..runs.repeat import members_of
from ..settings.checks import flag_of
from .flags import (
    add_command,
    add_device,
    add_images,
    add_json,
    add_reading,
    add_views,
    add_which,
    taken_reading,
    write_json,
)
from .methods import (
    add_curves,
    judge_each,
    own_data,
    score_folders,
    title_of,
    told_apart,
    views_of,
    write_curves,
)
from .parser import (
    EITHER,
    FOLDER,
    NEW_CSV,
    NEW_FOLDER,
    NEW_ONNX,
    NEW_PICTURE,
    RUN,
    RUNS,
    RUNS_OR_MAPS,
    Options,
)
from .predict import export, predict

if TYPE_CHECKING:
    from ..evaluation.judge import Judged
    from ..evaluation.scores import Scores
    from ..training.console import Console


def add_commands(commands: Any) -> None:
    """Add evaluate, compare, predict, export and data."""
    evaluate_flags(add_command(commands, "evaluate", evaluate, _refuse_lone))
    sub = add_command(commands, "compare", compare)
    help = "run folders, those of repeat, or of any method's maps; others are held to the first"
    sub.add_argument("runs", type=RUNS_OR_MAPS, nargs="+", help=help)
    add_images(sub)
    add_reading(sub)
    add_curves(sub)
    sub = add_command(commands, "predict", predict)
    _add_run(sub, required=True)
    sub.add_argument("--input", type=EITHER, required=True, help="an image or a folder of images")
    sub.add_argument("--output", type=NEW_FOLDER, required=True, help="folder for the maps")
    sub.add_argument("--overlay", action="store_true", help="also draw each map on its image")
    add_views(sub)
    add_device(sub)
    add_which(sub)
    sub = add_command(commands, "export", export)
    sub.add_argument("run", type=RUN, help="run folder whose best weights are exported")
    sub.add_argument("--format", default="onnx", choices=("onnx",), help="kind of file")
    sub.add_argument("--output", type=NEW_ONNX, default="", help="file; default: RUN/model.onnx")
    add_which(sub)
    sub = add_command(commands, "data", data)
    sub.add_argument("folder", type=FOLDER, help="data set, or a folder that holds several")
    add_json(sub, "the findings")
    help = "PNG file for a sample of images and masks"
    sub.add_argument("--picture", type=NEW_PICTURE, default="", help=help)
    sub.add_argument("--all", action="store_true", help="name every file of each finding")
    add_reading(sub, "")


def _add_run(sub: argparse.ArgumentParser, **how: Any) -> None:
    help = "run folder whose best weights are used; several, or that of repeat: their maps' mean"
    sub.add_argument("--run", type=RUNS, nargs="+", default=[], metavar="RUN", help=help, **how)


def evaluate_flags(sub: argparse.ArgumentParser) -> None:
    """Add the flags of evaluate."""
    _add_run(sub)
    add_images(sub)
    help = "folder of 8-bit maps, instead of a run"
    sub.add_argument("--predictions", type=FOLDER, default="", help=help)
    help = "folder of the masks of those maps"
    sub.add_argument("--ground-truth", type=FOLDER, default="", help=help)
    add_reading(sub)
    add_views(sub)
    add_which(sub)
    sub.add_argument(
        "--validation-threshold",
        action="store_true",
        help="also score at the threshold that is best on the run's validation images",
    )
    add_json(sub, "the scores, per image and in the mean")
    help = "file for the scores of each image, as a table"
    sub.add_argument("--csv", type=NEW_CSV, default="", help=help)
    add_curves(sub)
    sub.add_argument(
        "--report", action="store_true", help="write RUN/report.html, kept in RUN/reports too"
    )


def _refuse_lone(options: Options) -> None:
    """Raise InputError where a half of what is to be scored is missing, or both are given."""
    maps = [options["predictions"], options["ground_truth"]]
    if any(maps) and not all(maps):
        raise InputError("--predictions DIR and --ground-truth DIR belong together: give both.")
    if not any(maps) and not options["run"]:
        raise InputError(
            "evaluate needs --run RUN (and --dataset-path DIR for other data than the run's own), "
            "or --predictions DIR --ground-truth DIR."
        )
    unused = ("run", "dataset_path", "report", "validation_threshold")
    given = [flag_of(name) for name in unused if options[name]]
    if any(maps) and given:
        raise InputError(
            f"--predictions scores maps that are there, so {', '.join(given)} would do nothing: "
            "leave it out."
        )


def evaluate(options: Options) -> int:
    """Score a run on a data set, or a folder of maps on a folder of masks."""
    from ..training.console import Console

    console = Console(())
    if options["predictions"] or options["ground_truth"]:
        scores = score_folders(options, console)
        sets = {Path(options["predictions"]).resolve().name: scores}
        _write_scores(options, console, [scores.to_json()], sets)
        return 0
    runs = members_of(options["run"])
    if not options["dataset_path"]:
        options["dataset_path"] = [own := own_data(runs)]
        console.say(f"no --dataset-path was given: scored on the data of the run, {own}")
    if len(runs) > 1:
        _score_together(runs, options, console)
    else:
        _score_run(runs[0], options, console)
    return 0


def compare(options: Options) -> int:
    """Score runs on the same images and say which differences are more than chance."""
    from ..evaluation.compare import ablation, ablation_text, aligned, performance_table
    from ..evaluation.compare import compare as compare_tables
    from ..settings.config import Config
    from ..training.console import Console

    options["runs"] = members_of(options["runs"])
    if len(options["runs"]) < 2 or not options["dataset_path"]:
        raise InputError(
            "compare needs two or more run folders (or folders of maps) and --dataset-path DIR."
        )
    console, (runs, _) = Console(()), told_apart(options["runs"])
    paths = [Path(path) for path in options["dataset_path"]]
    how = {name: options[name] for name in ("split", "noncam", "device")}
    how["reading"] = taken_reading(options)
    judged = judge_each(options["runs"], paths, console, how)
    by_set = [dict(zip(judged, sets, strict=True)) for sets in zip(*judged.values(), strict=True)]
    for ones in by_set:
        tables = {name: one.scores.per_image for name, one in ones.items()}
        trained = {name: one.trained for name, one in ones.items()}
        notes = [f"{name}: {one.note}" for name, one in ones.items()]
        found = compare_tables(tables, trained).summary()
        console.say("\n".join([_name_of(ones), *notes, found, ""]))
    console.say(aligned(performance_table(runs).set_index("run").T))
    names = [str(run.folder) for run in runs]
    settings = {
        name: Config.load(run.config_path).as_dict() for name, run in zip(names, runs, strict=True)
    }
    best = {
        name: run.load_json("summary").get("best", {}).get("iou")
        for name, run in zip(names, runs, strict=True)
    }
    groups = ablation(settings, best)
    if (groups["runs"] > 1).any():  # else every row would be one run, with no spread
        console.say("\nbest validation IoU; runs that differ in seed or fold alone share a row")
        console.say(ablation_text(groups))
    lines = {_name_of(ones): {name: one.scores for name, one in ones.items()} for ones in by_set}
    write_curves(options, console, lines)
    return 0


def _name_of(ones: Mapping[str, Judged]) -> str:
    """Return the name of a set by what was judged on it."""
    return next(iter(ones.values())).name


def data(options: Options) -> int:
    """Look through a data set and report what is in it; exit code 1 if it cannot be used so."""
    from ..data.audit import SHOWN, audit, report
    from ..data.cache import cache_folder
    from ..data.layouts import look_through
    from ..data.reading import AUTOMATIC
    from ..settings.config import Config
    from ..training.console import Console

    console = Console(())
    there = look_through(Path(options["folder"]), taken_reading(options) or AUTOMATIC)
    found = audit(there, progress=console.counting("reading images"), store=cache_folder(Config()))
    console.say(report(found, None if options["all"] else SHOWN))
    write_json(options["json"], found.as_dict())
    if options["picture"]:
        from ..figures.canvas import try_to_draw
        from ..figures.results import draw_pairs

        picture = Path(options["picture"])
        drawn = try_to_draw(lambda: draw_pairs(there.sets, picture), console.say, str(picture))
        if drawn:
            console.say(f"drawn: {drawn}")
    return 1 if found.count("stop") else 0


def _score_run(folder: Path, options: Options, console: Console) -> None:
    """Score, print and write the scores; pictures come last, as nothing hangs on them."""
    from ..evaluation.judge import judge
    from ..figures.report import kept_as, write_report
    from ..figures.results import draw_tests
    from ..runs.run import Run

    run = Run(folder)
    if options["report"]:
        writable_file(run.folder / "report.html", "--report writes")
        writable_folder(run.folder / "reports", "--report keeps reports in")
    judged = judge(
        run,
        [Path(path) for path in options["dataset_path"]],
        split=options["split"],
        noncam=options["noncam"],
        reading=taken_reading(options),
        device=options["device"],
        which=options["which"],
        views=views_of(options),
        threshold=options["validation_threshold"],
        progress=console.counting("scoring"),
    )
    for each in judged:
        console.say(each.summary())
    sets = {each.name: each.scores for each in judged}
    _write_scores(options, console, [each.to_json() for each in judged], sets)
    draw_tests(run, judged, console.say)
    if options["report"]:
        newest = write_report(run, judged, say=console.say)
        console.say(f"report: {newest} (kept as {kept_as(run, judged)[0]})")


def _score_together(runs: Sequence[Path], options: Options, console: Console) -> None:
    """Score the mean of several runs' maps, and each of them beside it."""
    from ..evaluation.ensemble import judge_together
    from ..runs.run import Run

    if alone := [flag_of(x) for x in ("report", "validation_threshold") if options[x]]:
        raise InputError(
            f"{', '.join(alone)} is about one run, and {len(runs)} are given: leave it out, or "
            "give one --run."
        )
    how = {name: options[name] for name in ("split", "noncam", "device", "which")}
    judged = judge_together(
        [Run(folder) for folder in runs],
        [Path(path) for path in options["dataset_path"]],
        reading=taken_reading(options),
        views=views_of(options),
        progress=console.counting("scoring"),
        **how,
    )
    for each in judged:
        console.say(each.summary())
    sets = {each.name: each.scores for each in judged}
    _write_scores(options, console, [each.to_json() for each in judged], sets)


def _write_scores(
    options: Options, console: Console, results: list[dict[str, Any]], sets: Mapping[str, Scores]
) -> None:
    """Write the scores of all sets to the files that were asked for; the picture comes last."""
    from ..evaluation.scores import write_csv

    write_json(options["json"], results[0] if len(results) == 1 else {"sets": results})
    if options["json"]:
        console.say(f"written to {options['json']}")
    if options["csv"]:
        write_csv({name: each.per_image for name, each in sets.items()}, Path(options["csv"]))
        console.say(f"each image's scores: {options['csv']}")
    write_curves(options, console, {"": sets}, title_of(members_of(options["run"]), sets))
