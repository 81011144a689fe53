"""All measures of one image, and of a folder, ours against pysodmetrics, side by side in one run.

    python benchmarks/bench_metrics.py [--size 1000 700] [--repeats 7] [--images 250] [--turns 3]

One map: both score the same 8-bit map of 1000 x 700 pixels on one core: S, E, F, weighted F, MAE,
IoU and Dice. The two take turns, processor time is counted (a busy machine disturbs it less than
the clock), and the largest difference of any measure is printed beside the medians.

A folder: `camoxpert evaluate` and the bare loop of `pysodmetrics_loop.py` as commands, the start of
Python and the reading of PNG files included, by the clock: on a busy machine the command, which
uses all cores, gets a smaller part of them than it says. So the processor time stands beside it.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pysodmetrics_loop as loop
from numpy.typing import NDArray

from camoxpert_nb.evaluation.metrics import OF_THE_FIELD, measure

Array = NDArray[np.uint8]


def masks(width: int, height: int) -> Iterator[tuple[str, Array]]:
    """Yield kinds of objects."""
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
        yield what, mask
    mask = np.zeros((height, width), np.uint8)
    for start, end in rng.uniform(0.1, 0.9, (25, 2, 2)) * (width, height):
        cv2.line(mask, start.astype(int).tolist(), end.astype(int).tolist(), 1, 3)
    yield "thin objects", mask
    yield "no object", np.zeros_like(mask)


def pairs(width: int, height: int) -> Iterator[tuple[str, Array, Array]]:
    """Yield (what, map, mask): every kind of map for every kind of object."""
    rng = np.random.default_rng(0)
    for what, mask in masks(width, height):
        soft = cv2.GaussianBlur(mask * np.float32(230), (0, 0), 8)
        moved = cv2.copyMakeBorder(mask, 5, 0, 5, 0, cv2.BORDER_CONSTANT)[:-5, :-5]
        sharp = 255 / (1 + np.exp(-(soft - 115) / 4))
        for kind, values in (
            ("soft, noise everywhere", soft + rng.uniform(0, 20, mask.shape)),
            ("soft", soft),
            ("nearly binary", sharp),
            ("binary, moved", moved * 255.0),
            ("noise alone", rng.uniform(0, 255, mask.shape)),
            ("zeros", np.zeros(mask.shape)),
        ):
            yield f"{what}: {kind}", np.rint(values.clip(0, 255)).astype(np.uint8), mask


def pysodmetrics(image: Array, mask: Array) -> dict[str, float]:
    """Return the same measures by pysodmetrics."""
    taken = loop.steps()
    for step in taken:
        step.step(image, mask * np.uint8(255))
    return loop.results(taken)


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
    difference = max(abs(float(ours[name] - theirs[name])) for name in OF_THE_FIELD)
    return {"ours_ms": fast, "pysodmetrics_ms": slow, "ratio": slow / fast, "max_diff": difference}


def compare_folders(size: tuple[int, int], images: int, turns: int) -> dict[str, float]:
    """Return the median seconds of both commands on a folder of all kinds of maps, and ratios."""
    made = [pair for pair in pairs(*size) if pair[2].any()]  # the kit averages empty masks apart
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("maps", "masks")]
        for folder in folders:
            folder.mkdir()
        for number in range(images):
            _, image, mask = made[number % len(made)]
            for folder, layer in zip(folders, (image, mask * 255), strict=True):
                cv2.imwrite(str(folder / f"{number:04}.png"), layer)
        places = [str(folder) for folder in folders]
        written = Path(scratch) / "scores.json"
        ours = ["-m", "camoxpert_nb", "evaluate", "--predictions", places[0]]
        ours += ["--ground-truth", places[1], "--json", str(written)]
        taken = [(_run(ours), _run([loop.__file__, *places])) for _ in range(turns)]
        found = json.loads(written.read_text())["mean"]
    columns = np.median([[*a[:2], *b[:2]] for a, b in taken], axis=0)
    expected = json.loads(taken[0][1][2])
    names = ("ours_s", "ours_cpu_s", "pysodmetrics_s", "pysodmetrics_cpu_s")
    result = dict(zip(names, map(float, columns), strict=True))
    result["ratio"] = result["pysodmetrics_s"] / result["ours_s"]
    result["cpu_ratio"] = result["pysodmetrics_cpu_s"] / result["ours_cpu_s"]
    return result | {"max_diff": max(abs(found[name] - expected[name]) for name in OF_THE_FIELD)}


def _run(command: list[str]) -> tuple[float, float, str]:
    """Run Python; return the seconds by the clock and of the processor, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, processor, done.stdout


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(1000, 700), metavar=("W", "H"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--images", type=int, default=250, help="in the folder; 0: no folder")
    parser.add_argument("--turns", type=int, default=3, help="of the two commands on the folder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(
        f"{'object: map':<38}{'ours ms':>9}{'pysodmetrics ms':>17}{'ratio':>8}"
        f"{'largest difference':>21}"
    )
    results = {}
    for what, image, mask in pairs(*options.size):
        row = results[what] = compare(image, mask, options.repeats)
        numbers = f"{row['ours_ms']:>9.1f}{row['pysodmetrics_ms']:>17.1f}{row['ratio']:>8.1f}"
        print(f"{what:<38}{numbers}{row['max_diff']:>16.1e}", flush=True)
    if options.images:
        row = compare_folders(tuple(options.size), options.images, options.turns)
        results[f"folder of {options.images}"] = row
        print(
            f"a folder of {options.images}, as commands: {row['ours_s']:.1f} s against "
            f"{row['pysodmetrics_s']:.1f} s, {row['ratio']:.1f} times as fast; processor time "
            f"{row['ours_cpu_s']:.1f} s against {row['pysodmetrics_cpu_s']:.1f} s, "
            f"{row['cpu_ratio']:.1f}; largest difference of a mean {row['max_diff']:.1e}"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
