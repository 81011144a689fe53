"""The command that looks for a learning rate to begin with; it begins no run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outside.paths import replaceable
from ..runs.run import RUNS
from .flags import add_command, add_json, add_preset, add_settings, write_json
from .parser import NEW_PICTURE, Options
from .train import choose


def add_commands(commands: Any) -> None:
    """Add lr-find."""
    sub = add_command(commands, "lr-find", lr_find)
    sub.add_argument("--from", dest="low", type=float, default=1e-6, help="the first step's rate")
    sub.add_argument("--to", dest="high", type=float, default=1.0, help="the last step's rate")
    sub.add_argument("--steps", type=int, default=100, help="steps at the most")
    help = f"PNG, PDF or SVG file for the loss over the rate; default {RUNS}/lr-find.png"
    sub.add_argument("--picture", type=NEW_PICTURE, default="", help=help)
    add_json(sub, "rates, losses and the proposal")
    add_preset(sub)
    add_settings(sub)


def lr_find(options: Options) -> int:
    """Let the learning rate rise over some steps of a training, and propose one to begin with."""
    from ..figures.canvas import save, try_to_draw
    from ..figures.rates import show_rates
    from ..kaggle.session import hand_over
    from ..machine.devices import processes_to_start
    from ..training.console import Console
    from ..training.prepare import Loaders, prepare
    from ..training.rates import find_rate

    if "WORLD_SIZE" in os.environ:
        raise InputError("lr-find is one process, with all GPUs of it: call it without torchrun.")
    hand_over()
    file = options.pop("json")
    how = {name: options.pop(name) for name in ("low", "high", "steps")}
    picture = options.pop("picture") or str(replaceable(RUNS / "lr-find.png", "", "a picture"))
    order, console = choose(options), Console(())
    config = order.config
    if processes_to_start(config.device, config.parallel, config.gpus):
        config = config.replace(parallel="dp")  # the same step, in one process
    training = prepare(config, console.progress)
    loaders = Loaders(training, console.progress)
    with contextlib.closing(loaders.feed):
        found = find_rate(training, loaders, report=console.counting("steps"), **how)
    console.say("\n".join(filter(None, [order.reason, found.sentence()])))
    values = found.to_json()
    write_json(file, values)
    drawn = {name: values[name] for name in ("rates", "losses", "smoothed", "proposal", "usual")}
    title = f"lr-find: {config.backbone}, {config.img_size} px, {found.effective} images a step"
    path = try_to_draw(
        lambda: save(show_rates(**drawn, title=title), Path(picture)), console.say, picture
    )
    if path:
        console.say(f"  {path}")
    return 0
