"""Does a training cost what `--dry-run` said it would? In seconds, and in memory.

For each case a dry run and then the training itself, with the same settings, each in processes of
its own. Prints estimate, truth and their ratio: seconds of an epoch by stage (from the end of one
to the end of the next), seconds of the whole run, and the peak memory of a process. 1.0 is right.
Measure on a quiet machine: whatever else runs between the two is part of the ratio.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from camoxpert_nb.data.synthetic import make_synthetic
from camoxpert_nb.runs.run import Run

GIB = 2**30
EPOCHS = ["--epochs", "4", "--stage1-epochs", "2", "--device", "cpu"]
DEMO = ["--preset", "demo", "--num-workers", "0"]
PHOTOS = ["--preset", "single-gpu", "--backbone", "tf_efficientnet_lite0", "--no-pretrained"]
PHOTOS += ["--img-size", "256", "--batch-size", "8", "--accumulation-steps", "2"]


def cases(generated: Path, photos: Path | None) -> Iterator[tuple[str, list[str]]]:
    """Yield a name and the flags of each training."""
    demo = [*DEMO, *EPOCHS, "--dataset-path", str(generated)]
    yield "demo, generated images", demo
    if photos:
        yield "efficientnet, photos of 256 px", [*PHOTOS, *EPOCHS, "--dataset-path", str(photos)]
    yield "demo, 2 processes", [*demo, "--parallel", "ddp"]


def run(words: list[str]) -> int:
    """Run `camoxpert train WORDS`; return the most memory that one of its processes took."""
    command = [sys.executable, "-m", "camoxpert_nb", "train", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=one_thread(words))
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max([peak[0], *peaks(process.pid)])

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        sys.exit(f"{' '.join(command)} ended with code {code}")
    return peak[0]


def one_thread(words: list[str]) -> dict[str, str]:
    """Return the environment: processes that share the cores get one thread each."""
    return {**os.environ, **({"OMP_NUM_THREADS": "1"} if "ddp" in words else {})}


def peaks(pid: int) -> list[int]:
    """Return the highest memory, in bytes, that a process and each of its children ever held."""
    found = []
    try:
        family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []
    for member in family:
        try:
            status = Path(f"/proc/{member}/status").read_text()
        except OSError:  # it has ended
            continue
        found += [1024 * int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line]
    return found


def real(folder: Path) -> tuple[dict[str, float], float]:
    """Return the seconds of an epoch by stage, and those from the run's start to its end.

    The first epoch counts in the whole run alone: images are decoded before it.
    """
    records = [r for r in Run(folder).records() if r["kind"] in ("start", "epoch", "end")]
    seconds: dict[str, list[float]] = {}
    for before, record in itertools.pairwise(records):
        if record["kind"] == before["kind"] == "epoch":
            seconds.setdefault(record["stage"], []).append(record["time"] - before["time"])
    middles = {stage: statistics.median(each) for stage, each in seconds.items()}
    return middles, records[-1]["time"] - records[0]["time"]


def compare(name: str, flags: list[str], root: Path) -> None:
    """Estimate a training, take it, and print both."""
    folder, file = root / f"run-{len(list(root.iterdir()))}", root / "estimate.json"
    words = [*flags, "--checkpoint-dir", str(folder), "--cache-dir", str(folder) + "-cache"]
    run([*words, "--dry-run", "--json", str(file)])
    estimated: dict[str, Any] = json.loads(file.read_text())
    peak = run(words)
    epochs, whole = real(folder)
    print(f"{name:<40}{'estimate':>10}{'truth':>10}{'ratio':>8}")
    for row in estimated["stages"]:
        show(f"  epoch of '{row['name']}', s", row["seconds_per_epoch"], epochs[row["name"]])
    show("  whole run, s", estimated["seconds"], whole)
    show("  memory of a process, GiB", most_memory(estimated), peak / GIB)


def most_memory(estimated: dict[str, Any]) -> float:
    """Return the GiB of the stage that needs most."""
    return max(row["gib_per_device"] for row in estimated["stages"])


def show(what: str, estimate: float, truth: float) -> None:
    """Print a line."""
    print(f"{what:<40}{estimate:>10.2f}{truth:>10.2f}{estimate / truth:>8.2f}", flush=True)


def main() -> None:
    """Go through the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="data set of photos, for the second case")
    parser.add_argument("--images", type=int, default=240, help="generated ones")
    parser.add_argument("--only", default="", help="the cases whose names hold this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        generated = make_synthetic(root / "data", train=options.images, test=1, size=96)
        for case, flags in cases(generated, options.photos):
            if options.only in case:
                compare(case, flags, root)


if __name__ == "__main__":
    main()
