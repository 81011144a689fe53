"""Start a training from a notebook: in a process of its own, with a dashboard in front of it."""

from __future__ import annotations

from .config import Config
from .dashboard import Dashboard, unattended
from .process import start


def launch(config: Config, *, resume: bool = False, wait: bool | None = None) -> Dashboard:
    """Start the training of `config` in a new process and return its dashboard.

    The training outlives the cell, the browser and the kernel: `Dashboard(folder)` finds it again.
    An empty `checkpoint_dir` becomes runs/DATE-TIME. `resume` lets a run that lives in that folder
    go on from its last save, with the settings of `config`.

    `wait`: return at once (False), or when the training ended (True); the cell then shows one
    output that ends with curves, best value and a text summary, and an interrupt stops the
    training, saved. By default (None) it waits where nobody watches (`dashboard.unattended`).

    Raises InputError when another process trains in that folder (in any of runs/ if none is named),
    or when it holds a run and `resume` is not set; TrainingError when it waited for a training that
    died.
    """
    dashboard = Dashboard(start(config, resume=resume))
    if unattended() if wait is None else wait:
        dashboard.wait()
    return dashboard
