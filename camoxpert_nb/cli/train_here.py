"""A training in this process, told to whoever watches: what it is, each epoch, how it ended."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import STOPPED
from ..runs.pace import Pace
from ..runs.run import Run
from ..settings.config import EXPERTS, Config
from ..training.console import Console, ending, finished_already

if TYPE_CHECKING:
    from ..machine.distributed import Ranks
    from ..training.own import Own
    from ..training.prepare import Training

HABIT = (
    "The run is saved. torchrun calls each exit code but 0 FAILED, also the "
    f"{STOPPED} of a stop: what it says now is its habit, and no error."
)


def train_here(
    config: Config,
    ranks: Ranks,
    *,
    reason: str = "",
    console: Console | None = None,
    own: Own | None = None,
    in_python: bool = False,
    loading: str = "",
    **how: Any,
) -> Run:
    """Train as `fit` does with `own` and `how`, tell it on `console`, draw its figures; return it.

    `reason` is told beside what will be trained. `in_python`: the ways on are calls with `own`, and
    not commands. `loading`: why there are so many loading processes, where that is known here.
    """
    from ..machine.distributed import by_torchrun
    from ..training.banner import banner
    from ..training.fit import fit

    if not ranks.first:
        console = Console((), stream=io.StringIO())
    shown = console or Console(EXPERTS)

    over = False

    def announce(training: Training) -> None:
        nonlocal over
        if ranks.first:
            shown.log = Path(training.config.checkpoint_dir) / "log.txt"
        training.workers_reason = loading or training.workers_reason
        shown.pace = Pace(training.plan.in_rows())
        over = training.state.epoch >= training.plan.epochs
        if over:
            return shown.say(finished_already(training.config, in_python=in_python))
        shown.say("\n".join([banner(training), reason]).rstrip() + "\n")

    how = {"report": shown.report, "announce": announce, "progress": shown.progress, **how}
    run = fit(config, ranks=ranks, own=own, **how)
    summary = ranks.from_first(lambda: run.load_json("summary"))
    calls = _calls(own, run) if in_python and own else {}
    shown.say(ending(summary, str(run.folder), trained=not over, **calls))
    # Whoever interrupts a cell waits for it: figures can be drawn when the training is done.
    if (summary["finished"] or not in_python) and ranks.first and run.records("epoch"):
        from ..figures.results import draw_training

        draw_training(run, shown.say)
    if by_torchrun() and not summary["finished"]:
        shown.say(HABIT)
    return run


def _calls(own: Own, run: Run) -> dict[str, str]:
    """Return what to type next in Python, as `ending` takes it."""
    return {"judge": "judge(run, DIR)", "resume": own.call(run.folder)}
