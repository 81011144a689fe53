"""A process of a training that writes down each of its steps, and stops where it is told.

test_distributed_orders.py has the kit's own launcher start these, in place of `python -m
camoxpert_nb`; a training of one process runs `watch_steps` alone.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def watch_steps() -> None:
    """Write each step's images, rate and open blocks to STEPS, and obey STOP_AT: "kind number"."""
    from camoxpert_nb.runs.run import Run
    from camoxpert_nb.training import epoch

    file = Path(os.environ["STEPS"] + os.environ.get("RANK", "0"))
    kind, number = os.environ["STOP_AT"].split()
    queue, log = epoch.queue_step, Run.log

    def noted_step(state: Any, batches: list[Any], *rest: Any) -> Any:
        queued = queue(state, batches, *rest)
        row = {
            "epoch": state.epoch,
            "seen": state.seen,
            "images": [index for batch in batches for index in batch["index"].tolist()],
            "lr": next(float(g["lr"]) for g in state.optimizer.param_groups if g["block"] is None),
            "opened": state.opened,
            "world": state.ranks.world,
        }
        with file.open("a") as opened:
            opened.write(json.dumps(row) + "\n")
        return queued

    def stopping_log(run: Run, name: str, **values: Any) -> Any:
        record = log(run, name, **values)
        if name == kind and values[name] == int(number):
            run.request("stop")
        return record

    epoch.queue_step = noted_step
    Run.log = stopping_log  # type: ignore[method-assign]


if __name__ == "__main__":
    watch_steps()
    from camoxpert_nb.cli.main import main

    sys.exit(main(sys.argv[1:]))
