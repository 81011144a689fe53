"""Runs and folders of any method's maps, judged on the same images, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..outside.paths import file_name
from .flags import taken_reading
from .parser import NEW_CSV, NEW_PICTURE, Options

if TYPE_CHECKING:
    import argparse

    from ..evaluation.judge import Judged
    from ..evaluation.predict import Views
    from ..evaluation.scores import Scores
    from ..runs.run import Run
    from ..training.console import Console

Lines = Mapping[str, "Scores"]  # by the name of a method, or of a set


def add_curves(sub: argparse.ArgumentParser) -> None:
    """Add files for the curves over the thresholds."""
    help = "file for precision, recall, F, E and IoU at each of 256 thresholds, as a table"
    sub.add_argument("--curves", type=NEW_CSV, default="", help=help)
    help = "file for the precision-recall, F and E curves as a picture"
    sub.add_argument("--picture", type=NEW_PICTURE, default="", help=help)


def told_apart(folders: Sequence[str]) -> tuple[list[Run], list[Path]]:
    """Return the runs among the folders, and those that hold maps instead."""
    from ..runs.run import Run

    runs = [Run(folder) for folder in dict.fromkeys(map(Path, folders))]
    others = [run.folder for run in runs if not run.config_path.exists()]
    maps = [folder for folder in others if _holds_pictures(folder)]
    if unknown := [str(folder) for folder in others if folder not in maps]:
        raise InputError(
            f"{unknown[0]} is no run folder (it has no config.json), and holds no maps either. "
            "Give run folders, or folders with a method's maps as pictures, named like the images."
        )
    if len(maps) == len(runs):
        raise InputError(
            "compare needs a run among the folders: it says which images are scored. To score maps "
            "alone: camoxpert evaluate --predictions DIR --ground-truth DIR."
        )
    return [run for run in runs if run.folder not in maps], maps


def _holds_pictures(folder: Path) -> bool:
    """Say whether pictures lie in a folder, or in one of its folders, as maps of several sets."""
    from ..data.layouts import SUFFIXES

    places = [folder, *(each for each in folder.iterdir() if each.is_dir())]
    return any(path.suffix.lower() in SUFFIXES for place in places for path in place.iterdir())


def judge_each(
    folders: Sequence[str], paths: Sequence[Path], console: Console, how: Mapping[str, Any]
) -> dict[str, list[Judged]]:
    """Return what each run, and each folder of maps, scores on the same sets, in order."""
    from ..evaluation.judge import judge, judge_maps

    runs, maps = told_apart(folders)
    shown = console.counting("scoring")
    found: dict[str, list[Judged]] = {
        str(run.folder): judge(run, paths, progress=shown, **how) for run in runs
    }
    like = next(iter(found.values()))
    found |= {str(each): judge_maps(each, like, progress=shown) for each in maps}
    return {name: found[name] for name in dict.fromkeys(map(str, map(Path, folders)))}


def score_folders(options: Options, console: Console) -> Scores:
    """Score a folder of maps on a folder of masks, and say the scores."""
    from ..data.reading import AUTOMATIC
    from ..evaluation.scoring import score_folder

    reading = taken_reading(options) or AUTOMATIC
    scores = score_folder(
        Path(options["predictions"]),
        Path(options["ground_truth"]),
        how=reading.how,
        progress=console.counting("scoring"),
    )
    console.say(f"{options['predictions']}\n{scores.summary()}")
    return scores


def title_of(runs: Sequence[Path], sets: Mapping[str, Scores]) -> str:
    """Return what a picture of these runs' curves is called: whose they are, and on which data."""
    if not runs:
        return "maps in a folder"
    names = ", ".join(run.resolve().name for run in runs)
    return f"{'mean of ' * (len(runs) > 1)}{names} on {', '.join(sets)}"


def write_curves(
    options: Options, console: Console, groups: Mapping[str, Lines], title: str = ""
) -> None:
    """Write each group's lines into --curves and --picture, where those were given.

    groups: by the set, whose lines are methods; under "" the lines are sets. A picture holds one
    group; of several, each has its own, with the set's name at the file's end. title: of the
    picture, where its group has no name.
    """
    from ..evaluation.scores import curve_table, write_csv

    if options["curves"]:
        tables = {
            (group, line) if group else line: curve_table(scores)
            for group, lines in groups.items()
            for line, scores in lines.items()
        }
        write_csv(tables, Path(options["curves"]))
        console.say(f"curves: {options['curves']}")
    if not options["picture"]:
        return
    from ..figures.canvas import try_to_draw  # matplotlib is slow to load

    picture = Path(options["picture"])
    for group, lines in groups.items():
        path = picture
        if len(groups) > 1:
            path = picture.with_stem(f"{picture.stem}-{file_name(group)}")
        if drawn := try_to_draw(
            partial(_draw, lines, group or title, path), console.say, str(path)
        ):
            console.say(f"curves drawn: {drawn}")


def own_data(runs: Sequence[Path]) -> str:
    """Return the folder of the data that these runs trained on; InputError for none, or several."""
    from ..evaluation.judge import data_of
    from ..runs.run import Run

    places = {data_of(Run(folder)): None for folder in runs}
    if len(places) > 1:
        raise InputError(
            f"These runs trained on several data sets ({', '.join(places)}): say on which they are "
            "scored, --dataset-path DIR."
        )
    (place,) = places
    if not Path(place).is_dir():
        raise InputError(
            f"{place}, the data that {runs[0]} trained on, is not here: say where images and masks "
            "are, --dataset-path DIR."
        )
    return place


def views_of(options: Options) -> Views:
    """Return test-time augmentation as `add_views` took it."""
    from ..evaluation.predict import Views

    return Views(options["flip"], tuple(options["scales"]))


def _draw(lines: Lines, name: str, path: Path) -> Path:
    from ..figures.canvas import save
    from ..figures.thresholds import show_curves

    return save(show_curves(lines, name), path)
