"""Which images `evaluate` scores, and how many of them trained the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..data.cache import cache_folder
from ..data.copies import looks
from ..data.counting import doubts_about
from ..data.identity import Split
from ..data.layouts import find_datasets
from ..data.pairs import Pair
from ..data.reading import AUTOMATIC, Reading
from ..data.selection import Selection, select
from ..data.spellings import is_plain
from ..errors import InputError, few
from ..runs.run import Run
from ..settings.config import Config

NEAR = "saved anew, mirrored, turned, or a frame of the same film"


class Chosen(NamedTuple):
    """A set of images to score: why these, and how many of them trained the network."""

    name: str
    pairs: list[Pair]
    note: str
    split: str
    trained: int


class _Known(NamedTuple):
    """The images of a folder that trained a run or that it held out; near: not byte for byte."""

    trained: set[Pair]
    held_out: set[Pair]
    near: set[Pair]


def choose_pairs(
    run: Run | Sequence[Run],
    dataset_path: Path,
    split: str = "auto",
    noncam: bool = False,
    reading: Reading | None = None,
) -> list[Chosen]:
    """Return each set to score; see `judge`. reading: how it is read, else `reading_for`'s.

    Of several runs an image counts as trained on where any of them did, and as held out where any
    did and none trained on it. Where that leaves none, "out-of-fold" holds all that any held out.
    """
    runs = [run] if isinstance(run, Run) else [*run]
    reading, how = (reading, "") if reading else _reading_for_all(runs, dataset_path)
    chosen = select(find_datasets(dataset_path, reading), noncam=noncam)
    own = [*chosen.train, *chosen.validation]
    pairs = [*own, *(pair for pairs in chosen.test.values() for pair in pairs)]
    each = [_known(one, pairs) for one in runs]
    known = _together(each)
    if split == "test" or (split == "auto" and chosen.test):
        side, kind = "test", "test"
        sets = [(name, list(pairs), "test split") for name, pairs in chosen.test.items()]
    elif split == "all" or (split == "auto" and not known.trained & set(own)):
        side, kind = "", "all"
        sets = [(_name_of(dataset_path), pairs, "all images of the folder")]
    else:
        side, kind = "training", "validation"
        kept = [pair for pair in own if pair in known.held_out]
        name = f"{_name_of(dataset_path)} validation"
        held = [pair for pair in own if any(pair in one.held_out for one in each)]
        if held and not kept and len(runs) > 1:
            return [_out_of_fold(f"{_name_of(dataset_path)} out-of-fold", held, how)]
        who, whose = ("this run", "its") if len(runs) == 1 else ("these runs", "their")
        chosen_by = f"{whose} best weights were chosen on them, which flatters those a little"
        sets = [(name, kept, f"the images {who} held out for validation ({chosen_by})")]
    if not any(pairs for _, pairs, _ in sets):
        raise InputError(
            f"{dataset_path}: nothing to score as '{split}' ({len(chosen.train)} training, "
            f"{len(chosen.validation)} validation and {sum(map(len, chosen.test.values()))} test "
            "images found, as its folders and lists say). Use another --split."
        )
    return [
        _with_warnings(name, pairs, note + _gone(chosen, side, name) + how, kind, known)
        for name, pairs, note in sets
        if pairs
    ]


def _gone(chosen: Selection, side: str, name: str) -> str:
    """Return clauses on what was left out of a set; of test sets each has its own.

    side: "test", "training", or "" for a set that holds all images. Sets of which nothing is left
    are named with the first.
    """
    if side != "test":
        gone = {why: len(names) for why, names in chosen.left_out.items() if side in why}
        return "".join(f"; left out: {count} {why}" for why, count in gone.items())
    own = chosen.empty_tests.get(name, 0)
    clauses = f"; left out: {own} NonCAM test image{'s' * (own > 1)}" * bool(own)
    if name == next(iter(chosen.test)):
        clauses += "".join(
            f"; not scored: {each}, which holds NonCAM images alone ({count})"
            for each, count in chosen.empty_tests.items()
            if each not in chosen.test
        )
    return clauses


def _name_of(folder: Path) -> str:
    """Return what a set is called: its folder, or the one above if it only says "Train"."""
    here = folder.resolve()
    names = [each.name for each in (here, *here.parents) if each.name]
    return next((name for name in names if not is_plain(name)), here.name)


def reading_for(run: Run, dataset_path: Path) -> tuple[Reading, str]:
    """Return how a run's images are read, for the data it was trained on; else by itself.

    Also a clause about it. It is the run's own data where the folder is, or where its images are.
    """
    own = Reading.of(Config.load(run.config_path))
    if own == AUTOMATIC:
        return own, ""
    said = f"; read with {own.in_words()}, as the run was trained"
    root = Path(run.load_json("summary").get("data", {}).get("root") or ".").resolve()
    here = Path(dataset_path).resolve()
    if here.is_relative_to(root) or root.is_relative_to(here):
        return own, said
    try:
        found = [pair for one in find_datasets(dataset_path, own) for pair in one.pairs]
        if _known(run, found).trained:
            return own, said
    except InputError:  # the folders it names are not here
        pass
    return AUTOMATIC, (
        f"; other data than the run's: its {own.in_words()} is not used here, give such flags to "
        "read these otherwise"
    )


def _known(run: Run, pairs: Sequence[Pair]) -> _Known:
    """Ask split.json which of these images trained the run or were held out, also as copies."""
    split = Split.load(run.load_json("split"))
    keys = dict(zip(pairs, split.keys(pairs), strict=True))
    trained = {pair for pair in pairs if keys[pair] in split.train}
    held = {pair for pair in pairs if keys[pair] in split.validation} - trained
    others = [pair for pair in pairs if pair not in trained | held]
    if not split.looks or not others:
        return _Known(trained, held, set())
    store = cache_folder(Config.load(run.config_path))
    seen = list(looks([pair.image for pair in others], store).values())
    near = {others[place] for place in split.near(seen, "train")}
    near_held = {others[place] for place in split.near(seen, "validation")} - near
    return _Known(trained | near, held | near_held, near)


def _together(each: Sequence[_Known]) -> _Known:
    trained = set[Pair]().union(*(one.trained for one in each))
    held = set[Pair]().union(*(one.held_out for one in each)) - trained
    return _Known(trained, held, set[Pair]().union(*(one.near for one in each)))


def _out_of_fold(name: str, pairs: list[Pair], how: str) -> Chosen:
    note = "each image is scored by the members that held it out, as all others trained on it"
    return _with_warnings(name, pairs, note + how, "out-of-fold", _Known(set(), set(), set()))


def holders(runs: Sequence[Run], pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
    """Return for each image the places of the runs that held it out."""
    each = [_known(run, pairs).held_out for run in runs]
    return [tuple(n for n, held in enumerate(each) if pair in held) for pair in pairs]


def _reading_for_all(runs: Sequence[Run], dataset_path: Path) -> tuple[Reading, str]:
    """Return `reading_for` of the runs; InputError where they would read the data differently."""
    found = {run: reading_for(run, dataset_path) for run in runs}
    first = found[runs[0]]
    for run, (reading, _) in found.items():
        if reading != first[0]:
            raise InputError(
                f"{runs[0].folder} and {run.folder} were trained on data that were read in "
                "different ways: say how these are to be read (--image-folder, --mask-object, ...)."
            )
    return first


def _with_warnings(name: str, pairs: list[Pair], note: str, kind: str, known: _Known) -> Chosen:
    """Return a set with what is to be known of its scores: training images, doubtful masks."""
    trained = [pair for pair in pairs if pair in known.trained]
    near = [pair for pair in trained if pair in known.near]
    if trained:
        note += f"; WARNING: {len(trained)} of these {len(pairs)} trained the network"
        note += f" ({few([pair.name for pair in trained])})"
        note += f", {len(near)} of them {NEAR}" if near else ""
    doubts = doubts_about(tuple(pairs))
    note += "".join(f"; NOTE: of the masks looked at, {doubt}" for doubt in doubts)
    return Chosen(name, pairs, note, kind, len(trained))
