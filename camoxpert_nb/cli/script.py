"""`fit` for scripts and notebooks: the training of `camoxpert train`, with parts of one's own."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..outside.terminal import kernel_shell
from ..runs.run import Run
from ..settings.config import EXPERTS, Config

if TYPE_CHECKING:
    from ..training.console import Console

GUARD = "__main__"  # what a script names that can be imported without training


def fit(
    config: Config | Run | Path | str,
    *,
    loss: Any = None,
    augment: Any = None,
    optimizer: Any = None,
    on_step: Callable[[dict[str, Any]], Any] | None = None,
    on_epoch: Callable[[dict[str, Any]], Any] | None = None,
    resume: bool = False,
    quiet: bool = False,
    **how: Any,
) -> Run:
    """Train as `config` says, in this process, and return the run; a run or its folder goes on.

    The numbers are those of `camoxpert train` with the same settings. Ctrl-C (in a notebook: the
    stop button) ends the step, saves and returns; with `resume` the run goes on, exactly. Under
    torchrun the script is one of several processes. `quiet` shows nothing.

    loss(logits, masks): the loss to minimise in the place of the kit's, whose uncertainty term
    weighs nothing then unless `config` gives it a weight; the experts' balance stays. logits
    (B, 1, H, W) float32, any number; masks (B, 1, H, W) float32, 0...1. Returns a tensor, (B,) or
    a mean over the images, (). With deep supervision it is called for each coarser head too, with
    smaller maps and soft masks; it also gives the validation loss. A third argument `counted`,
    like the masks, is 0 where a pixel counts nowhere.

    augment(images, masks, generator): in the place of the kit's. images (B, 3, H, W) float32,
    0...1; masks (B, 1, H, W) of 0 and 1 (with an ignored label a second channel, 1 where pixels
    count nowhere), on the training's device. Returns both, in the same shapes. What is drawn from
    `generator` is the same when a run goes on.

    optimizer(groups): returns a torch.optim.Optimizer of `groups`, a list of dicts with "params",
    "lr", "weight_decay" and "block" (None: head, 1: the backbone's deepest block, ...). The
    schedule sets each group's rate before each step.

    on_step(record), on_epoch(record): called with a copy of each record, as history.jsonl has it;
    one that returns "stop" ends the training, saved. Under torchrun in the first process.

    A step with parts of one's own is not captured as a CUDA graph. `how` is `training.fit.fit`'s:
    net, report, announce, progress, ranks, began.
    Raises InputError for what cannot work, before the first step; TrainingError when training
    breaks, with what is saved and how to go on.
    """
    from ..kaggle.session import hand_over
    from ..machine.distributed import joined
    from ..training.own import Own
    from ..training.own_checks import check_callables

    own = Own(loss, augment, optimizer, on_step, on_epoch)
    check_callables(own)
    settings, resume = _settings(config, resume)
    hand_over()
    asked = settings.num_workers
    settings, reason = _alone(settings)
    if settings.num_workers != asked:
        how["loading"] = "in this process, as a NOTE below says"
    how = {"began": time.time(), **how}
    console = _console(quiet or "report" in how)
    if "ranks" in how:
        return _train(settings, how.pop("ranks"), console, reason, own, resume=resume, **how)
    with joined(settings.join_minutes, cpu=settings.device == "cpu") as ranks:
        agreed = ranks.from_first(lambda: settings)
        return _train(agreed, ranks, console, reason, own, resume=resume, **how)


def _train(config: Config, ranks: Any, console: Console, reason: str, own: Any, **how: Any) -> Run:
    from .train_here import train_here

    parts = {"reason": reason, "console": console, "own": own, "in_python": True}
    return train_here(config, ranks, **parts, **how)


def _settings(config: Config | Run | Path | str, resume: bool) -> tuple[Config, bool]:
    """Return the settings to train with, and whether a run goes on."""
    if isinstance(config, Config):
        return config, resume
    if isinstance(config, dict):
        raise InputError(
            "fit got a dict, expected settings: make_config(dataset_path=...), or "
            "make_config(**values)."
        )
    if not isinstance(config, Run | Path | str):
        raise InputError(
            f"fit got {config!r}, expected settings (make_config(...)) or a run to go on with "
            "(a Run or its folder)."
        )
    from ..training.resume import resumed_config

    source = config.folder if isinstance(config, Run) else Path(config)
    found = resumed_config(source, {})
    if not resume:
        raise InputError(
            f"{source} is a run. To go on with it: fit({str(source)!r}, resume=True). To train "
            "anew with its settings: fit(Config.load(run.config_path).replace(checkpoint_dir=''))."
        )
    return found, True


def _alone(config: Config) -> tuple[Config, str]:
    """Return settings that this process can train with, and what is to be said of that."""
    from ..machine.devices import processes_to_start
    from ..machine.distributed import expected

    said = []
    if not expected():
        processes = processes_to_start(config.device, config.parallel, config.gpus)
        command = f"torchrun --standalone --nproc-per-node {processes} SCRIPT.py"
        if config.parallel == "ddp":
            raise InputError(
                f"parallel='ddp' needs {processes} processes, and fit trains in this one, as "
                f"functions of yours cannot be sent to others. Start the script with `{command}`, "
                "or leave parallel out; in a notebook, launch(config) starts processes."
            )
        if processes:
            said.append(
                f"{processes} GPUs share each batch in this process (DataParallel). Faster, with "
                f"a process for each: `{command}`; from a notebook launch(config)"
            )
    if config.num_workers and not _can_be_imported():
        config = config.replace(num_workers=0)
        said.append(
            "images are loaded in this process: a script that trains as it is imported cannot have "
            'loading processes. Put its lines under `if __name__ == "__main__":` to have them'
        )
    return config, "\n".join(f"NOTE: {sentence}." for sentence in said)


def _can_be_imported() -> bool:
    """Say whether loading processes can start here: Python imports the main script in each."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if not path or not str(path).endswith(".py") or "ipykernel" in str(path):
        return True
    try:
        return GUARD in Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True


def _console(quiet: bool) -> Console:
    """Return what shows the training here: a terminal's lines, one output of a cell, or nothing."""
    from ..training.console import Console

    if quiet:
        return Console((), stream=io.StringIO())
    if kernel_shell() is not None:
        from .cell import CellConsole

        return CellConsole(EXPERTS)
    return Console(EXPERTS)
