"""All measures of one image, ours against pysodmetrics, side by side in one run on one core.

    python benchmarks/bench_metrics.py [--size 1000 700] [--repeats 15] [--json FILE]

Both score the same 8-bit map of 1000 x 700 pixels: S, E, F, weighted F, MAE, IoU and Dice. The two
take turns, processor time is counted (a busy machine disturbs it less than the clock), and the
largest difference of any measure is printed beside the medians.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import py_sod_metrics as toolbox
from numpy.typing import NDArray

from camoxpert_nb.evaluation.metrics import MEASURES, measure
from camoxpert_nb.evaluation.scoring import score_folder

Array = NDArray[np.uint8]


def pairs(width: int, height: int) -> Iterator[tuple[str, Array, Array]]:
    """Yield (what, map, mask): maps with a soft edge and noise everywhere, and a clean one."""
    rng = np.random.default_rng(0)
    for what, count, radius in (
        ("one object", 1, 0.22),
        ("small object", 1, 0.04),
        ("huge object", 1, 0.6),
        ("60 blobs", 60, 0.04),
    ):
        mask = np.zeros((height, width), np.uint8)
        for _ in range(count):
            place = rng.uniform(0.3, 0.7, 2) if count == 1 else rng.uniform(0, 1, 2)
            center = int(place[0] * width), int(place[1] * height)
            axes = int(radius * width), int(radius * height)
            cv2.ellipse(mask, center, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        soft = cv2.GaussianBlur(mask * np.float32(230), (0, 0), 8)
        noisy = soft + rng.uniform(0, 20, mask.shape)
        yield what, np.rint(noisy.clip(0, 255)).astype(np.uint8), mask
        if what == "one object":
            yield f"{what}, clean map", np.rint(soft).astype(np.uint8), mask


def pysodmetrics(image: Array, mask: Array) -> dict[str, float]:
    """Return the same measures by pysodmetrics."""
    handlers = {
        "f": toolbox.FmeasureHandler(True, True),
        "iou": toolbox.IOUHandler(False, False, with_binary=True),
        "dice": toolbox.DICEHandler(False, False, with_binary=True),
    }
    steps = [toolbox.Smeasure(), toolbox.WeightedFmeasure(), toolbox.MAE(), toolbox.Emeasure()]
    steps.append(toolbox.FmeasureV2(handlers))
    for step in steps:
        step.step(image, mask * np.uint8(255))
    s, weighted, mae, e, rest = (step.get_results() for step in steps)
    values = {"iou": rest["iou"]["binary"], "dice": rest["dice"]["binary"], "mae": mae["mae"]}
    values |= {"s_measure": s["sm"], "weighted_f": weighted["wfm"]}
    values |= {"adaptive_e": e["em"]["adp"], "adaptive_f": rest["f"]["adaptive"]}
    for name, curve in (("e", e["em"]["curve"]), ("f", rest["f"]["dynamic"])):
        values |= {f"mean_{name}": curve.mean(), f"max_{name}": curve.max()}
    return values


def compare(image: Array, mask: Array, repeats: int) -> dict[str, float]:
    """Return the median milliseconds of both, their ratio and the largest difference."""
    ours, theirs = measure(image, mask).values, pysodmetrics(image, mask)  # also the warm-up
    spent: dict[Callable, list[float]] = {measure: [], pysodmetrics: []}
    for _ in range(repeats):
        for function, times in spent.items():
            start = time.process_time()
            function(image, mask)
            times.append((time.process_time() - start) * 1000)
    fast, slow = (statistics.median(times) for times in spent.values())
    difference = max(abs(float(ours[name] - theirs[name])) for name in MEASURES)
    return {"ours_ms": fast, "pysodmetrics_ms": slow, "ratio": slow / fast, "max_diff": difference}


def scaling(size: tuple[int, int], images: int = 100, turns: int = 3) -> float:
    """Return how many times as fast a folder is scored with a thread per core as with one.

    Wall time, the two in turns: it needs a machine with nothing else to do.
    """
    made = list(pairs(*size))
    with tempfile.TemporaryDirectory() as scratch:
        maps, masks = Path(scratch) / "maps", Path(scratch) / "masks"
        maps.mkdir()
        masks.mkdir()
        for number in range(images):
            _, image, mask = made[number % len(made)]
            cv2.imwrite(str(maps / f"{number}.png"), image)
            cv2.imwrite(str(masks / f"{number}.png"), mask * 255)
        spent: dict[int, list[float]] = {1: [], os.cpu_count() or 1: []}
        for _ in range(turns):
            for workers, times in spent.items():
                start = time.perf_counter()
                score_folder(maps, masks, workers=workers)
                times.append(time.perf_counter() - start)
    one, *many = (statistics.median(times) for times in spent.values())
    return one / many[0] if many else 1.0


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(1000, 700), metavar=("W", "H"))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(
        f"{'pair':<24}{'ours ms':>9}{'pysodmetrics ms':>17}{'ratio':>8}{'largest difference':>21}"
    )
    results = {}
    for what, image, mask in pairs(*options.size):
        row = results[what] = compare(image, mask, options.repeats)
        numbers = f"{row['ours_ms']:>9.1f}{row['pysodmetrics_ms']:>17.1f}{row['ratio']:>8.1f}"
        print(f"{what:<24}{numbers}{row['max_diff']:>21.1e}", flush=True)
    ratio = scaling(tuple(options.size))
    print(f"a folder, {os.cpu_count()} threads against one: {ratio:.2f} times as fast")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
