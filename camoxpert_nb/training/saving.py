"""Checkpoints written while the training goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch

from .. import __version__
from ..machine.devices import Devices
from ..runs.best_epochs import is_among_the_best, keep_epoch
from ..runs.run import Onlooker, Run
from ..settings.config import Config


class Saver:
    """Writes a run's checkpoints in the order in which they are handed over.

    With `beside` a thread does it, from a copy in RAM, so that a GPU need not wait for the disk.
    What goes wrong there is raised by the next `save` of that name, or by `finish`.
    """

    def __init__(self, run: Run, *, beside: bool) -> None:
        self.run = run
        self._thread = ThreadPoolExecutor(1, "saving") if beside else None
        self._writing: dict[str, Future[None]] = {}

    def save(
        self,
        name: str,
        state: dict[str, Any],
        written: Callable[[], None] = lambda: None,
        write: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Write checkpoint `name`, by `write` or Run.save; call `written` when it is there."""
        write = write or partial(self.run.save, name)
        if name in self._writing:
            self._writing.pop(name).result()
        if self._thread is None:
            _write(write, state, written)
        else:
            self._writing[name] = self._thread.submit(_write, write, copied(state), written)

    def writes(self, name: str) -> bool:
        """Say whether this checkpoint is being written, or about to be."""
        return name in self._writing and not self._writing[name].done()

    def finish(self) -> None:
        """Wait until all is written; raise what went wrong."""
        while self._writing:
            self._writing.popitem()[1].result()

    def close(self) -> None:
        """Wait until all is written, whatever came of it."""
        if self._thread:
            self._thread.shutdown()

    def keep(self, count: int, epoch: int, iou: float, state: dict[str, Any]) -> None:
        """Keep an epoch's checkpoint if it is one of the `count` best; nothing where that is 0."""
        if count and not isinstance(self.run, Onlooker):
            found = self.run, count, epoch, iou
            if is_among_the_best(*found):
                self.save("best epochs", state, write=partial(keep_epoch, *found))


def _write(
    write: Callable[[dict[str, Any]], None], state: dict[str, Any], written: Callable[[], None]
) -> None:
    write(state)
    written()


def saves_beside(run: Run, devices: Devices) -> bool:
    """Say whether a thread writes: where a GPU trains meanwhile, and this process writes at all."""
    return bool(devices.ids) and not isinstance(run, Onlooker)


def copied(value: Any) -> Any:
    """Return dicts and lists with copies of their tensors in RAM, as they are now."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    return [copied(each) for each in value] if isinstance(value, list) else value


def made_by(config: Config) -> dict[str, Any]:
    """Return what a checkpoint says of how it was made."""
    return {"config": config.as_dict(), "version": __version__}
