"""A network as `camoxpert export` writes it against itself: parity, size, CPU speed.

    python benchmarks/bench_export.py [--run RUN | --backbone edgenext_base --size 320]

Both take turns in one process, so a busy machine slows both alike; trust the ratio. Without a
run the weights are random, which changes neither speed nor size.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from camoxpert_nb.network.build import load_net
from camoxpert_nb.network.export import eager, export, images_per_second, load_exported
from camoxpert_nb.network.model import CamoXpert
from camoxpert_nb.runs.run import Run


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="", help="run folder; its validation images are real ones")
    parser.add_argument("--backbone", default="edgenext_base")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Export, then time the file against the network."""
    options, images = parse(), None
    torch.set_num_threads(options.threads)
    if options.run:
        net, images = load_net(Run(options.run)), Run(options.run).load_preview()["image"]
        options.size = images.shape[1]
    else:
        net = CamoXpert(options.backbone)
    predictors = {"eager": eager(net)}
    with tempfile.TemporaryDirectory() as folder:
        done = export(net, Path(folder) / "net", size=options.size, images=images)
        print(done.summary())
        predictors["ONNX"] = load_exported(done.path)
        speed = images_per_second(
            predictors, options.size, batch=options.batch, turns=options.turns
        )
    print(f"images per second, batch {options.batch}, {options.threads} thread(s):")
    for name, value in speed.items():
        print(f"  {name:12} {value:7.2f}  {value / speed['eager']:.2f} x eager")


if __name__ == "__main__":
    main()
