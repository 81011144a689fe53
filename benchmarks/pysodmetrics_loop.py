"""The bare loop that scores a folder with pysodmetrics: what `bench_metrics.py` compares with.

    python benchmarks/pysodmetrics_loop.py MAPS MASKS

It reads each map and mask as OpenCV does, computes the measures of `camoxpert evaluate`, and prints
their means as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import py_sod_metrics as toolbox


def steps() -> list[Any]:
    """Return what computes S, weighted F, MAE, E, and then F, IoU and Dice."""
    handlers = {
        "f": toolbox.FmeasureHandler(True, True),
        "iou": toolbox.IOUHandler(False, False, with_binary=True),
        "dice": toolbox.DICEHandler(False, False, with_binary=True),
    }
    plain = [toolbox.Smeasure(), toolbox.WeightedFmeasure(), toolbox.MAE(), toolbox.Emeasure()]
    return [*plain, toolbox.FmeasureV2(handlers)]


def results(taken: list[Any]) -> dict[str, float]:
    """Return the means of all images that the steps were given, named as in the kit."""
    s, weighted, mae, e, rest = (step.get_results() for step in taken)
    values = {"iou": rest["iou"]["binary"], "dice": rest["dice"]["binary"], "mae": mae["mae"]}
    values |= {"s_measure": s["sm"], "weighted_f": weighted["wfm"]}
    values |= {"adaptive_e": e["em"]["adp"], "adaptive_f": rest["f"]["adaptive"]}
    for name, curve in (("e", e["em"]["curve"]), ("f", rest["f"]["dynamic"])):
        values |= {f"mean_{name}": curve.mean(), f"max_{name}": curve.max()}
    return {name: float(value) for name, value in values.items()}


def main(maps: Path, masks: Path) -> None:
    """Score the folder."""
    taken = steps()
    for path in sorted(maps.iterdir()):
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        mask = cv2.imread(str(masks / path.name), cv2.IMREAD_GRAYSCALE)
        for step in taken:
            step.step(image, mask)
    print(json.dumps(results(taken)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
