"""An optimiser of the user's own: made from the groups, and tried on copies before it trains."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import InputError
from ..outside.foreign import OwnFailed, before_training, called, name_of, named
from .own import parameters_of


def build_optimizer(
    function: Any, groups: Sequence[dict[str, Any]], lr: float, weight_decay: float
) -> Optimizer:
    """Return the user's optimiser of `groups`, tried before; InputError where it cannot train.

    groups are `state.parameter_groups`, to which `lr` is added: the schedule's, as `weight_decay`.
    """
    with_rates = [{**group, "lr": lr} for group in groups]
    with before_training("parameters, some without a gradient as frozen ones are"):
        _try_optimizer(function, with_rates)
        return _made(function, with_rates, lr, weight_decay)


def _made(
    function: Any, groups: Sequence[dict[str, Any]], lr: float, weight_decay: float
) -> Optimizer:
    name = called("optimizer", name_of(function))
    with named("optimizer", function):
        optimizer = function([dict(group) for group in groups])
    if not isinstance(optimizer, Optimizer):
        found = type(optimizer).__name__
        raise InputError(
            f"{name} returned {found}, expected a torch.optim.Optimizer: "
            "`return torch.optim.SGD(groups, momentum=0.9)`."
        )
    wanted = {id(p): group["block"] for group in groups for p in group["params"]}
    held = [
        (id(p), group.get("block", "")) for group in optimizer.param_groups for p in group["params"]
    ]
    if len(held) != len(wanted) or dict(held) != wanted:
        have = len({key for key, _ in held} & wanted.keys())
        kept = "does not keep the groups it was given"
        raise InputError(
            f"{name} {kept if have == len(wanted) else f'holds {have} of {len(wanted)}'}"
            f"{'' if have == len(wanted) else ' parameters it was given'}: rates of head and "
            "backbone go by group. Hand the groups over as they are, `torch.optim.SGD(groups)`; "
            'divided further, each keeps its "block".'
        )
    for key, flag, meant in (("lr", "lr", lr), ("weight_decay", "weight_decay", weight_decay)):
        _refuse_default(name, optimizer, key, flag, meant)
    return optimizer


def _refuse_default(name: str, optimizer: Optimizer, key: str, flag: str, meant: float) -> None:
    """Raise InputError where a value was given to the optimiser that the groups' own one hides."""
    value = optimizer.defaults.get(key)
    standard = parameters_of(type(optimizer)).get(key)
    usual = standard.default if standard is not None else value
    if not isinstance(value, int | float) or value in (usual, meant):
        return
    raise InputError(
        f"{name} was made with {key}={value:g}, which has no effect: the schedule sets "
        f"it for each group ({meant:g}). Leave it out there, and set it with the settings: "
        f"make_config(..., {flag}={value:g})."
    )


def _try_optimizer(function: Any, groups: Sequence[dict[str, Any]]) -> None:
    """Take steps with a few parameters, and take them up again as a run that is resumed would."""
    name = called("optimizer", name_of(function))
    lr, decay = groups[0]["lr"], max(group["weight_decay"] for group in groups)
    few = _few(groups)
    optimizer = _made(function, few, lr, decay)
    before = [p.detach().clone() for p in _parameters(few)]
    _step(optimizer, few, function)
    if all(torch.equal(p, old) for p, old in zip(_parameters(few), before, strict=True)):
        raise InputError(f"{name} changes no parameter in a step, so nothing is learned.")
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    again = _few(groups)
    other = _made(function, again, lr, decay)
    try:
        other.load_state_dict(torch.load(saved, weights_only=True))
        for mine, its in zip(_parameters(few), _parameters(again), strict=True):
            its.data.copy_(mine.data)
    except Exception as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):
            reason = "it holds other things than tensors and plain values"
        raise InputError(
            f"what {name} remembers cannot be saved and loaded ({reason}), so the run "
            "could not go on after a stop. Keep it in `optimizer.state` as tensors and numbers, as "
            "torch's own do."
        ) from error
    for each, parts in ((optimizer, few), (other, again)):
        _step(each, parts, function)


def _step(optimizer: Optimizer, groups: Sequence[dict[str, Any]], function: Any) -> None:
    """Take a step as training does: a plain number as each rate, and no gradient where frozen."""
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])
    generator = torch.Generator().manual_seed(0)
    for place, group in enumerate(groups):
        for p in group["params"]:
            frozen = place == len(groups) - 1 and place
            p.grad = None if frozen else torch.randn(p.shape, generator=generator)
    try:
        with named("optimizer", function):
            optimizer.step()
    except OwnFailed as error:
        if "closure" not in str(error.__cause__):
            raise
        raise InputError(
            f"{called('optimizer', name_of(function))} needs the loss computed anew within its "
            "step (a closure), as LBFGS and SAM do, which this training does not offer. Take one "
            "that steps by the gradients, as torch.optim.SGD or AdamW."
        ) from error


def _few(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups with copies of at most two parameters each, on the CPU."""
    return [
        {**group, "params": [nn.Parameter(p.detach().cpu().clone()) for p in group["params"][:2]]}
        for group in groups
    ]


def _parameters(groups: Sequence[dict[str, Any]]) -> list[Tensor]:
    return [p for group in groups for p in group["params"]]
