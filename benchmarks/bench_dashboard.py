"""What does an open dashboard cost the training that it watches?

A real training runs in its own process, and a real notebook kernel shows its dashboard. Printed are
the CPU seconds that the kernel uses meanwhile per second of wall time, and the time of one redraw
of everything. The aim is under 1 % of the machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from camoxpert_nb.notebook.dashboard import Dashboard
from camoxpert_nb.notebook.launch import launch
from camoxpert_nb.settings.config import make_config


def measure(preset: str, seconds: float) -> None:
    """Train with a dashboard in front for so many seconds and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        places = {"checkpoint_dir": f"{folder}/run", "cache_dir": f"{folder}/cache"}
        dashboard = launch(make_config(preset, **places), wait=False)
        dashboard._ipython_display_()
        while not (dashboard.run.history_path.exists() or dashboard.status.ended):
            time.sleep(0.5)
        cpu, wall = time.process_time(), time.perf_counter()
        while time.perf_counter() - wall < seconds and not dashboard.status.ended:
            time.sleep(0.5)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(dashboard)
        dashboard.stop()
        dashboard.wait()
        redraw = min(redraw_seconds(Path(folder) / "run") for _ in range(10))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{cpu:.2f} CPU seconds in {wall:.0f} s: {cpu / wall:.2%} of one core,")
    print(f"{cpu / wall / (cores or 1):.2%} of the {cores} cores (aim: under 1 %)")
    print(f"reading and drawing everything anew: {1e3 * redraw:.0f} ms")


def redraw_seconds(folder: Path) -> float:
    """Return what opening a dashboard takes: all records read, all curves and images drawn."""
    started = time.perf_counter()
    Dashboard(folder)
    return time.perf_counter() - started


def main() -> None:
    """Read the options and measure, inside a notebook's kernel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    os.environ["CAMOXPERT_BATCH"] = "0"  # widgets, as in front of a reader
    cell = nbformat.v4.new_code_cell(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import bench_dashboard\nbench_dashboard.measure({options.preset!r}, {options.seconds})"
    )
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, timeout=int(options.seconds) + 300).execute()
    for output in cell.outputs:
        if output.output_type == "stream":
            print(output.text, end="")


if __name__ == "__main__":
    main()
