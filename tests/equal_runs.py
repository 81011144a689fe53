"""Two runs are one where nothing but the clock tells them apart."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch

from camoxpert_nb.runs.run import Run
from camoxpert_nb.training.epoch import TIMES

CLOCK = {"time", "seconds", "images_per_second", "data_wait_percent", "data_wait", "verdict"}
CLOCK |= {"time_percent", "graph_percent", "replayed", *TIMES}


def stop_after(steps: int) -> Any:
    """Return a reporter that asks the run to stop after so many steps."""
    seen = 0

    def report(record: dict[str, Any]) -> None:
        nonlocal seen
        if record["kind"] == "step":
            seen += 1
            if seen == steps:
                os.kill(os.getpid(), signal.SIGINT)

    return report


def without_clock(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key not in CLOCK}
        for record in records
        if record["kind"] in ("step", "epoch")
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k not in CLOCK)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def assert_equal_runs(a: Run, b: Run) -> None:
    assert without_clock(a.records()) == without_clock(b.records())
    first, second = a.load("last"), b.load("last")
    for state in (first, second):
        for key in ("seconds", "config"):
            del state[key]
    assert same(first, second)
    assert same(a.load("best")["net"], b.load("best")["net"])
