"""How a training looks in a terminal, and in the run's log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shlex import quote
from typing import IO, Any

from ..outside.spelling import counted, duration
from ..outside.terminal import GAP, Part, columns, fitted, moves, tell
from ..runs.history import behind
from ..runs.pace import Pace, clock
from ..runs.whole import in_place
from ..settings.config import Config

UNKNOWN = "-:--:--"  # as long as a time, so that nothing moves when it is known


class Console:
    """Print records: a moving line per step where someone watches, one line per epoch elsewhere.

    Everything but the moving line also goes to `log`, the run's log.txt.
    """

    def __init__(self, experts: tuple[str, ...], stream: IO[str] | None = None) -> None:
        self.experts = experts
        self.stream = stream or sys.stdout
        self.log: Path | None = None
        self._moving = moves(self.stream)
        self.pace = Pace()  # with the plan's stages once they are known
        self._drawn = 0.0
        self._gist = ""

    def say(self, text: str) -> None:
        """Print lines for good, folded where somebody watches, and log them as they are."""
        tell(text, self.stream)
        if self.log:
            with in_place(self.log).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text + "\n")

    def counting(self, what: str) -> Callable[[int, int], None]:
        """Return what shows how far this is: scoring, predicting, ..."""
        return partial(self.progress, what=what)

    def progress(self, done: int, total: int, what: str = "preparing images") -> None:
        """Show how far a preparation is, or what else is counted."""
        if self._moving and self._due(done == total):
            self._draw(Part(what, 2), _bar(done, total), Part(f"{done}/{total}", 3))

    def report(self, record: dict[str, Any]) -> None:
        """Show a record of the training."""
        kind = record["kind"]
        self.pace.hear({**record, "time": time.monotonic()})
        if kind == "step":
            self._step(record)
        elif kind == "validating" and self._moving:
            self._draw(
                Part(self._epoch(record), 2), Part(f"validating {record['images']} images", 1)
            )
        elif kind == "epoch":
            self.say(epoch_line(record, self._widest()))
            if record["gates"]:  # none where every step was skipped
                self.say(experts_line(record["gates"], self.experts))
            self._judge_speed(record["verdict"])
        elif kind == "note":
            self.say(record["message"])

    def _step(self, record: dict[str, Any]) -> None:
        if not (self._moving and self._due()):
            return
        done, total, left = record["step"], record["steps"], self.pace.seconds_left()
        known = UNKNOWN if left is None else clock(left)
        self._draw(
            Part(self._epoch(record), 7),
            Part(f"stage {record['stage']}", 2, short=record["stage"]),
            _bar(done, total),
            Part(f"step {done}/{total}", 4, short=f"{done}/{total}"),
            Part(f"loss {record['loss']:.3f}", 5),
            Part(f"{record['images_per_second']:.0f} img/s", 3),
            Part(f"{known} left", 6, short=known),
        )

    def _epoch(self, record: dict[str, Any]) -> str:
        """Say which epoch a record is of, and of how many."""
        epochs = sum(stage["epochs"] for stage in self.pace.stages)
        return f"epoch {record['epoch']}" + (f"/{epochs}" if epochs else "")

    def _widest(self) -> int:
        """Return how long the names of this training's stages are."""
        return max((len(stage["name"]) for stage in self.pace.stages), default=0)

    def _judge_speed(self, verdict: str) -> None:
        """Say what bounds the speed, when it is something else than before."""
        gist = verdict.split("(")[0]
        if gist != self._gist:
            self.say(f"          {verdict}")
        self._gist = gist

    def _due(self, last: bool = False) -> bool:
        now = time.monotonic()
        if now - self._drawn < 0.2 and not last:
            return False
        self._drawn = now
        return True

    def _draw(self, *parts: Part) -> None:
        """Draw the moving line in one row: a longer one would wrap, and each would stay."""
        self.stream.write("\r\x1b[K" + fitted(parts, columns(self.stream) - 1))
        self.stream.flush()


def epoch_line(record: dict[str, Any], widest: int = 0) -> str:
    """Return one epoch's record as a line, its stage padded to `widest`, what matters first."""
    average = "" if record["iou_ema"] is None else f" (EMA {record['iou_ema']:.3f})"
    loss = "none" if record["loss"] is None else f"{record['loss']:.3f}"
    parts = [
        f"epoch {record['epoch']:>3}",
        f"stage {record['stage']:<{widest}}",
        f"loss {loss}",
        f"IoU {record['iou']:.3f}{average}{' kept' if record['best'] else '     '}",
        f"{record['seconds']:.0f} s",
        f"{record['images_per_second']:.0f} img/s",
        f"data-wait {record['data_wait_percent']:.0f} %",
        f"lr {record['lr']['head']:.1e}/{record['lr']['backbone']:.1e}",
    ]
    if record["skipped_steps"]:
        parts.append(f"{record['skipped_steps']} steps skipped")
    return GAP.join(parts)


def experts_line(gates: list[list[float]], experts: tuple[str, ...]) -> str:
    """Return each expert's share, in per cent, as a mean over stages."""
    shares = [100 * sum(column) / len(gates) for column in zip(*gates, strict=True)]
    named = zip(experts, shares, strict=False)
    return "          experts %  " + "  ".join(f"{name} {share:.0f}" for name, share in named)


def _bar(done: int, total: int) -> Part:
    """Return a bar that a narrow terminal gets shorter, or not at all."""
    share = min(max(done / max(total, 1), 0.0), 1.0)
    long, short = (
        "[" + "#" * int(width * share) + "." * (width - int(width * share)) + "]"
        for width in (20, 6)
    )
    return Part(long, 1, short)


def finished_already(config: Config, *, in_python: bool) -> str:
    """Return what is said in the place of a banner where all epochs are trained, and the way on."""
    folder, epochs = config.checkpoint_dir, config.epochs
    command = f"camoxpert resume {folder} --epochs N"
    call = f"fit(Config.load({folder + '/config.json'!r}).replace(epochs=N), resume=True)"
    return (
        f"{folder} is finished already: all its epochs, {epochs}, are trained, and nothing is "
        f"trained now. To go on, give more of them, N above {epochs}:\n"
        f"  {call if in_python else command}"
    )


def ending(
    summary: dict[str, Any],
    folder: str,
    *,
    trained: bool = True,
    judge: str = "",
    resume: str = "",
) -> str:
    """Return what a training came to, and what to type next: a command, or these calls.

    trained: whether it has just been trained; else it was finished before. judge: a call in which
    DIR stands for the data; those are the run's own where they have a test split.
    """
    best = summary["best"]
    reached = summary["target_reached_at_epoch"]
    now = "" if trained else " before"
    epochs = counted(summary["epochs"], "epoch")
    lines = [f"\n{duration(summary['seconds'])} of training in {epochs}{now}."]
    if best:
        highest = best.get("highest", best)
        far = behind(best["epoch"], best["iou"], highest["epoch"], highest["iou"])
        lines.append(
            f"best validation IoU {best['iou']:.3f} at epoch {best['epoch']} ({best['weights']} "
            f"weights{far}); target {summary['target_iou']:g} "
            + (f"reached at epoch {reached}" if reached else "not reached")
        )
    if summary.get("ended_early"):
        lines.append(f"ended early: {summary['ended_early']}")
    if summary["finished"]:
        data = summary.get("data", {})
        own = str(data.get("root") or "") if data.get("test") else ""
        where = "its data's test split" if own else "DIR, a folder of other images and masks"
        lines.append(f"best weights: {folder}/best.pt. Score them on {where}:")
        command = f"camoxpert evaluate --run {quote(folder)} --dataset-path {quote(own or 'DIR')}"
        call = judge.replace("DIR", repr(own)) if own else judge
        lines.append(f"  {call or command}")
    else:
        lines.append("Stopped as asked; everything is saved. Go on with:")
        lines.append(f"  {resume or f'camoxpert resume {quote(folder)}'}")
    return "\n".join(lines)
