"""How good a run is on which images: chosen so that no training image is scored unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .config import Config
from .devices import choose_precision, pick_devices
from .errors import InputError
from .evaluate import Scores, evaluate, predict, predict_folder
from .images import read_image, read_mask, resize_image, resize_mask
from .layouts import ImageSet, Pair, find_datasets, select
from .model import EXPERTS, CamoXpert
from .plots import save, show_experts, show_history, show_pairs, show_predictions
from .recipe import load_net
from .run import Run

PICTURES = 6

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Judged:
    """What was scored, why those images, and the scores."""

    name: str
    pairs: list[Pair]
    note: str
    scores: Scores


def judge(
    run: Run,
    dataset_path: Path,
    *,
    split: str = "auto",
    noncam: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[Judged]:
    """Score the run's best weights on each test set found under `dataset_path`.

    With "auto" a folder without a test split is scored on the images this run held out, if it
    trained there, and whole otherwise. Scores are at each mask's own size. Raises InputError when
    nothing is left to score.
    """
    Config.load(run.config_path)  # a folder that is no run says so before the data are walked
    chosen = choose_pairs(run, dataset_path, split, noncam)
    net, settings = _inference(run, device)
    return [
        Judged(name, pairs, note, evaluate(net, pairs, progress=progress, **settings))
        for name, pairs, note in chosen
    ]


def choose_pairs(
    run: Run, dataset_path: Path, split: str = "auto", noncam: bool = False
) -> list[tuple[str, list[Pair], str]]:
    """Return (name, pairs, note) for each set to score."""
    chosen = select(find_datasets(dataset_path), noncam=noncam)
    known = run.load_json("split")
    trained, held_out = set(known.get("train", [])), set(known.get("validation", []))
    if split == "test" or (split == "auto" and chosen.test):
        side = "test"
        sets = [(name, list(pairs), "test split") for name, pairs in chosen.test.items()]
    elif split == "all" or (split == "auto" and not _names(chosen.train) & trained):
        everything = [*chosen.train, *(pair for pairs in chosen.test.values() for pair in pairs)]
        side = ""
        sets = [(dataset_path.name, everything, "all images of the folder")]
    else:
        side = "training"
        kept = [pair for pair in chosen.train if pair.name in held_out]
        sets = [(dataset_path.name, kept, "the images this run held out for validation")]
    if not any(pairs for _, pairs, _ in sets):
        raise InputError(
            f"{dataset_path}: nothing to score as '{split}' ({len(chosen.train)} training and "
            f"{sum(map(len, chosen.test.values()))} test images found). Use another --split."
        )
    gone = {why: len(pairs) for why, pairs in chosen.left_out.items() if side in why}
    tail = "".join(f"; left out: {count} {why}" for why, count in gone.items())
    return [
        (name, pairs, note + tail + _warning(pairs, trained)) for name, pairs, note in sets if pairs
    ]


def predict_files(
    run: Run, source: Path, output: Path, *, device: str = "auto", progress: Progress | None = None
) -> int:
    """Write a map for each image of `source` (file or folder) and return how many."""
    net, settings = _inference(run, device)
    return predict_folder(net, source, output, progress=progress, **settings)


def draw_training(run: Run) -> list[Path]:
    """Draw the run's curves, its validation pictures and its experts into RUN/figures."""
    config, preview, summary = Config.load(run.config_path), run.load_preview(), _summary(run)
    scratch = ", from random weights" if summary["weights"].startswith("none") else ""
    title = (
        f"{config.backbone}{scratch}, {config.num_experts} experts, {config.img_size} px, "
        f"n = {summary['validation']} validation images"
    )
    figures = {"curves": show_history(run.records("epoch"), target=config.target_iou, title=title)}
    if preview:
        figures["validation"] = show_predictions(preview)
        figures["experts"] = show_experts(preview["gates"], tuple(EXPERTS)[: config.num_experts])
    return [save(figure, run.folder / "figures" / f"{n}.png") for n, figure in figures.items()]


def draw_test(run: Run, judged: Judged) -> Path:
    """Draw a few scored images, from the best to the worst, into RUN/figures."""
    config = Config.load(run.config_path)
    ranked = judged.scores.per_image.sort_values("iou", ascending=False)["name"]
    places = np.linspace(0, len(ranked) - 1, min(PICTURES, len(ranked))).round().astype(int)
    by_name = {pair.name: pair for pair in judged.pairs}
    pairs = [by_name[ranked.iloc[place]] for place in places]
    title = f"{judged.name}: {len(pairs)} of {len(ranked)} scored images, best to worst,"
    figure = show_predictions(_pictures(run, config, pairs), title=title)
    return save(figure, run.folder / "figures" / f"test-{judged.name}.png")


def draw_pairs(sets: Sequence[ImageSet], path: Path) -> Path:
    """Draw a few pairs from all over the sets, each mask's outline on its image."""
    pairs = [pair for each in sets for pair in (*each.train, *each.test)]
    places = np.linspace(0, len(pairs) - 1, min(2 * PICTURES, len(pairs))).astype(int)
    shown = [pairs[place] for place in places]
    return save(
        show_pairs(
            [read_image(pair.image) for pair in shown],
            [read_mask(pair.mask) for pair in shown],
            [pair.name for pair in shown],
        ),
        path,
    )


def _inference(run: Run, device: str) -> tuple[CamoXpert, dict[str, Any]]:
    """Return the run's best network, and how it predicts: size, device, batch and precision."""
    config, devices = Config.load(run.config_path), pick_devices(device)
    return load_net(run, "best", devices.main), {
        "size": config.img_size,
        "device": devices.main,
        "batch_size": config.batch_size,
        "dtype": choose_precision(devices, config.amp).dtype,
    }


def _pictures(run: Run, config: Config, pairs: list[Pair]) -> dict[str, Any]:
    size, net = config.img_size, load_net(run)
    maps = predict(net, pairs, size=size, device="cpu", batch_size=len(pairs))
    grey = [np.rint(item.probability * 255).astype(np.uint8) for item in maps]
    return {
        "names": [pair.name for pair in pairs],
        "image": np.stack([resize_image(read_image(pair.image), size) for pair in pairs]),
        "mask": np.stack([resize_mask(read_mask(pair.mask), size) for pair in pairs]),
        "probability": np.stack([resize_image(each, size) for each in grey]),
    }


def _summary(run: Run) -> dict[str, Any]:
    split = run.load_json("split")
    source = run.load_json("summary").get("weights_source", "")
    return {"weights": source, "validation": len(split.get("validation", []))}


def _names(pairs: tuple[Pair, ...]) -> set[str]:
    return {pair.name for pair in pairs}


def _warning(pairs: list[Pair], trained: set[str]) -> str:
    seen = sum(pair.name in trained for pair in pairs)
    return f"; WARNING: {seen} of these {len(pairs)} trained the network" if seen else ""
