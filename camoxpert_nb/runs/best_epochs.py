"""Checkpoints of the best epochs, beside best.pt: RUN/best-epoch012-iou0.8123.pt.

Their names say all that is known of them, so nothing else has to be kept in step with them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from .run import Run

_FILE = re.compile(r"best-epoch(\d+)-iou(\d+\.\d{4})\.pt")
_ASKED = re.compile(r"(?:best-)?(?:epoch ?)?0*(\d+)(?:-iou[\d.]+)?(?:\.pt)?")


class BestEpoch(NamedTuple):
    """A checkpoint that is kept: its validation IoU, to four places, and its epoch."""

    iou: float
    epoch: int

    @property
    def name(self) -> str:
        """The checkpoint's name, without .pt."""
        return f"best-epoch{self.epoch:03}-iou{self.iou:.4f}"


def best_epochs(folder: Path) -> list[BestEpoch]:
    """Return those that are in a run's folder, the best first; of equals the later one."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = [match for match in map(_FILE.fullmatch, names) if match]
    return sorted((BestEpoch(float(each[2]), int(each[1])) for each in found), reverse=True)


def is_among_the_best(run: Run, count: int, epoch: int, iou: float) -> bool:
    """Say whether an epoch is one of the `count` best, among those that are kept.

    One without a score (NaN) never is.
    """
    if not 0 <= iou <= 1:
        return False
    this = _rounded(epoch, iou)
    others = [each for each in best_epochs(run.folder) if each.epoch != epoch]
    return sum(each > this for each in others) < count


def keep_epoch(run: Run, count: int, epoch: int, iou: float, state: dict[str, Any]) -> None:
    """Write an epoch's checkpoint if it is one of the `count` best, in the place of the worst.

    What has to go is removed when the new one is whole on the disk, just before it gets its name:
    there are never more than `count`, and a process that is killed leaves whole files only.
    """
    if not is_among_the_best(run, count, epoch, iou):
        return
    this, there = _rounded(epoch, iou), best_epochs(run.folder)
    others = [each for each in there if each.epoch != epoch]
    gone = [each for each in there if each.epoch == epoch and each != this]
    run.save(this.name, state, instead_of=[each.name for each in [*gone, *others[count - 1 :]]])


def drop_epochs_after(run: Run, epoch: int, count: int) -> None:
    """Remove what a killed process wrote after its last save, and what is more than `count`.

    count: 0 keeps those that are there.
    """
    there = [each for each in best_epochs(run.folder) if each.epoch <= epoch]
    kept = there[:count] if count else there
    names = {f"{each.name}.pt" for each in kept}
    for path in run.folder.glob("best-epoch*.pt*"):
        if path.name not in names and _FILE.fullmatch(path.name.removesuffix(".part")):
            path.unlink()


def checkpoint_name(folder: Path, which: str) -> str:
    """Return the name of the checkpoint that `which` asks for: best, last, or an epoch kept.

    An epoch is told by its number or by its file's name. Raises InputError where it is not kept.
    """
    if which in ("best", "last"):
        return which
    asked = _ASKED.fullmatch(which)
    there = best_epochs(folder)
    for each in there:
        if asked and each.epoch == int(asked[1]):
            return each.name
    *others, last = map(str, sorted(each.epoch for each in there)) if there else ("",)
    listed = f"epochs {', '.join(others)} and {last}" if others else f"epoch {last}"
    have = f"It keeps {listed}" if there else "It keeps none (train with --keep-best 3)"
    raise InputError(
        f"{folder} has no checkpoint '{which}'. {have}: --which takes best, last, or the number of "
        "an epoch that is kept."
    )


def _rounded(epoch: int, iou: float) -> BestEpoch:
    return BestEpoch(round(iou, 4), epoch)
