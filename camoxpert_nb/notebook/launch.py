"""Start a training from a notebook, or find the one that is going on."""

from __future__ import annotations

from ..outside.terminal import is_script
from ..runs.pace import ESTIMATE
from ..runs.process import going_on, other_settings, start
from ..settings.config import Config
from .dashboard import Dashboard
from .measure import measured
from .shown import unattended


def launch(config: Config, *, resume: bool = False, wait: bool | None = None) -> Dashboard:
    """Start the training of `config` in a new process and return its dashboard.

    The training outlives the cell, the browser and the kernel: `Dashboard(folder)` finds it again.
    An empty `checkpoint_dir` becomes runs/DATE-TIME. `resume` lets a run that lives in that folder
    go on from its last save, with the settings of `config`.

    `wait`: return at once (False), or when the training ended (True); the cell then shows one
    output that ends with curves, best value and a text summary, and an interrupt stops the
    training, saved. By default (None) it waits where nobody watches (`shown.unattended`) and in a
    script, whose next lines need the trained network.

    Where a training is going on in that folder already (in any of runs/ if none is named), no
    second one is started: its dashboard comes back, and says which settings differ.

    Raises InputError when the folder holds a run and `resume` is not set; TrainingError when it
    waited for a training that died.
    """
    busy = going_on(config)
    known = None if busy else measured(config)
    dashboard = Dashboard(busy or start(config, resume=resume))
    if busy and (other := other_settings(config, busy)):
        dashboard.tell(
            f"This training was going on already, with other settings than launch got: {other}. "
            "To train those too, end this one first, or name a folder for them: "
            "launch(config.replace(checkpoint_dir='runs/another'))."
        )
    if known:  # so that the time left knows what later stages cost
        dashboard.run.save_json(ESTIMATE, {"stages": known.get("stages", [])})
    if unattended() or is_script() if wait is None else wait:
        dashboard.wait()
    return dashboard
