"""Parts of a user's own: loss, augmentation, optimiser, and callbacks, in the usual training loop.

They are ordinary Python, so the step runs launch by launch, never as a captured graph. What they
raise is answered with their name and line; what they make of made-up images before the first step
is looked at in `own_checks`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, TrainingError
from ..outside.foreign import called, described, listed, name_of, named, with_article

BUILT_IN = "built-in"  # given for a part: the kit's own, in a run that had another one
PARTS = ("loss", "augment", "optimizer")
CALLBACKS = ("on_step", "on_epoch")
STOP = "stop"  # what a callback returns to end the training, saved

Record = dict[str, Any]


@dataclass(frozen=True)
class Own:
    """What the user gave; None: the kit's own part. `fit`'s docstring has the signatures."""

    loss: Any = None
    augment: Any = None
    optimizer: Any = None
    on_step: Any = None
    on_epoch: Any = None

    @property
    def names(self) -> dict[str, str]:
        """Return the name of each part that takes the place of one of the kit's."""
        given = {part: getattr(self, part) for part in PARTS}
        return {part: name_of(value) for part, value in given.items() if is_own(value)}

    @property
    def in_words(self) -> str:
        """Return the same as "loss=dice, optimizer=sgd", or ""."""
        return listed(self.names)

    def call(self, folder: Path | str) -> str:
        """Return the call that goes on with a run of these parts."""
        callbacks = {each: getattr(self, each) for each in CALLBACKS if getattr(self, each)}
        names = self.names | {each: name_of(value) for each, value in callbacks.items()}
        return call_of(folder, names)


def is_own(part: Any) -> bool:
    """Say whether that is a part of the user's, and not the kit's."""
    return part is not None and not (isinstance(part, str) and part == BUILT_IN)


def call_of(folder: Path | str, names: Mapping[str, str]) -> str:
    """Return the call that goes on with a run whose parts have these names."""
    parts = "".join(f", {part}={name}" for part, name in names.items())
    return f"fit({str(folder)!r}, resume=True{parts})"


def require_own(recorded: Mapping[str, str], own: Own, folder: Path | str) -> list[str]:
    """Return a line for each part that is another one than `recorded` in the run in `folder`.

    Raises InputError where a part is missing, or the optimiser is another one, whose moments would
    not fit.
    """
    given = own.names
    missing = {
        part: name
        for part, name in recorded.items()
        if part not in given and getattr(own, part, None) != BUILT_IN
    }
    if missing:
        raise InputError(
            f"{folder} was trained with parts of its user's own ({listed(recorded)}), and "
            f"{listed(missing)} is not given here. A command cannot give it: go on in Python, "
            f"where it is defined, with `{call_of(folder, recorded)}`. To go on with the kit's own "
            f"instead, say so there: {', '.join(f'{part}=' + repr(BUILT_IN) for part in missing)}."
        )
    was, now = recorded.get("optimizer"), given.get("optimizer")
    if was != now:
        raise InputError(
            f"{folder} was trained with {_optimizer(was)}, and {_optimizer(now)} is given: what it "
            "remembers of the steps before does not fit another one. Give the same, or begin a new "
            f"run from these weights: make_config(..., init_from={str(folder)!r})."
        )
    names = {part: (recorded.get(part), given.get(part)) for part in ("loss", "augment")}
    return [
        f"goes on with {_told(part, new)}, before {_told(part, old)}"
        for part, (old, new) in names.items()
        if old != new
    ]


def _told(part: str, name: str | None) -> str:
    return called(part, name) if name else f"{part} {BUILT_IN}"


def _optimizer(name: str | None) -> str:
    return f"the optimizer {name}" if name else "the kit's AdamW"


class OwnLoss(nn.Module):
    """The user's loss as the network's losses call it: a number for each image."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.takes_counted = "counted" in parameters_of(function)

    def forward(self, logits: Tensor, mask: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return (B,) float32 for `logits`, `mask` and `counted`, (B, 1, h, w) each.

        `counted` is 0 where pixels count nowhere, None where all do.
        """
        more = {}
        if self.takes_counted:
            more["counted"] = torch.ones_like(mask) if counted is None else counted
        with named("loss", self.function):
            value = self.function(logits.float(), mask, **more)
        return per_image(value, len(logits), called("loss", name_of(self.function)))


def signature_of(function: Any) -> inspect.Signature | None:
    """Return what a function or module takes; None where Python cannot tell (built-in ones)."""
    try:
        return inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return None


def parameters_of(function: Any) -> Mapping[str, inspect.Parameter]:
    """Return the arguments that a function or module takes; nothing where Python cannot tell."""
    signature = signature_of(function)
    return signature.parameters if signature else {}


def per_image(value: Any, count: int, name: str) -> Tensor:
    """Return a loss as (count,) float32: a scalar is everybody's. `name` is for messages."""
    if not isinstance(value, Tensor):
        shown = type(value).__name__
        raise InputError(
            f"{name} returned {with_article(shown)}, expected a tensor: one number, or one "
            "for each image. Compute it with torch alone: numpy and .item() lose the gradient."
        )
    if value.shape not in ((), (count,)):
        raise InputError(
            f"{name} returned a tensor of shape {tuple(value.shape)} for {count} images, "
            f"expected () or ({count},). Average over the pixels: `.mean((1, 2, 3))` of "
            "(B, 1, H, W), or `.mean()` of all."
        )
    return value.float().expand(count)


class Callbacks:
    """Calls the user's functions with each record; one that fails, or says so, ends the training.

    `stop` is called then: the training ends as if it were asked to, saved. `say` is told notes.
    """

    def __init__(self, own: Own, stop: Callable[[], None], say: Callable[[str], None]) -> None:
        self._own, self._stop, self._say = own, stop, say
        self._silent: set[str] = set()
        self.failure: tuple[str, Exception] | None = None  # what failed, as text, and how
        self.asked = ""  # which one asked to stop

    def report(self, record: Record) -> None:
        """Hand a record to the function for its kind, if there is one."""
        name = f"on_{record['kind']}"
        function = getattr(self._own, name) if name in CALLBACKS else None
        if function is None or self.failure:
            return
        try:
            answer = function(dict(record))
        except Exception as error:
            place = f"step {record['step']}, epoch {record['epoch']}"
            what = f"{called(name, name_of(function))} failed at {place}: {described(error)}"
            self.failure = what, error
            self._stop()
            return
        if isinstance(answer, str) and answer == STOP:
            self.asked = f"{called(name, name_of(function))} asked to stop"
            self._stop()
        elif isinstance(answer, bool | str) and answer and name not in self._silent:
            self._silent.add(name)
            self._say(
                f"{called(name, name_of(function))} returned {answer!r}, which does "
                f'nothing; "{STOP}" would end the training, saved'
            )

    def raise_failure(self, call: str) -> None:
        """Raise TrainingError if a function failed; `call` goes on with the run."""
        if self.failure:
            what, error = self.failure
            raise TrainingError(
                f"{what}. The run was saved after that step: mend it and go on with `{call}`."
            ) from error
