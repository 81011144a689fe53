"""Losses, augmentations and optimisers as users write them, right and wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

Groups = list[dict[str, Any]]


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice, for each image."""
    found = logits.sigmoid()
    both = (found * masks).sum((1, 2, 3))
    return 1 - (2 * both + 1) / ((found + masks).sum((1, 2, 3)) + 1)


def bce(logits: Tensor, masks: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, masks)


def counting(logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, masks, weight=counted)


def flips(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    turned = torch.rand(len(images), generator=generator) < 0.5
    images[turned], masks[turned] = images[turned].flip(-1), masks[turned].flip(-1)
    noise = torch.rand(images.shape, generator=generator)  # so that order and seed are seen
    return images * 0.9 + noise * 0.05, masks


def sgd(groups: Groups) -> Optimizer:
    return SGD(groups, momentum=0.9)


def only_image(images: Tensor, masks: Tensor, generator: torch.Generator) -> Any:
    turned = torch.rand(len(images), generator=generator) < 0.5
    images[turned] = images[turned].flip(-1)
    return images, masks


class Boom(SGD):
    def step(self, closure: Any = None) -> None:
        raise ValueError("no more")


class Still(SGD):
    def step(self, closure: Any = None) -> None:
        pass


class Closed(SGD):
    def step(self, closure: Any) -> None:  # type: ignore[override]
        super().step(closure)


class Hoarder(SGD):
    def step(self, closure: Any = None) -> None:
        super().step()
        self.state[self.param_groups[0]["params"][0]]["friend"] = dice


def broken(logits: Tensor, masks: Tensor) -> Tensor:
    raise ZeroDivisionError("by nought")


Part = Callable[..., Any]
# What is given, and what of the answer names the mistake and the way out.
WRONG_LOSSES: dict[str, tuple[Part, str]] = {
    "numpy": (lambda x, m: np.float32(1), "returned a float32.*torch alone"),
    "number": (lambda x, m: bce(x, m).item(), "returned a float, expected a tensor"),
    "nothing": (lambda x, m: None, "returned a NoneType"),
    "map": (lambda x, m: (x.sigmoid() - m).abs(), r"shape \(3, 1, 64, 64\).*mean\(\(1, 2, 3\)\)"),
    "column": (lambda x, m: (x.sigmoid() - m).abs().mean((2, 3)), r"shape \(3, 1\)"),
    "threshold": (lambda x, m: bce((x > 0).float(), m), "has no gradient"),
    "detached": (lambda x, m: bce(x.detach(), m), "has no gradient"),
    "other input": (
        lambda x, m: m.mean() * torch.ones((), requires_grad=True),
        "does not depend on the logits",
    ),
    "empty": (
        lambda x, m: 1 - (x.sigmoid() * m).sum((1, 2, 3)) / m.sum((1, 2, 3)),
        "nan.*without an object",
    ),
    "log": (lambda x, m: -(m * x.sigmoid().log()).mean(), "not finite|returned"),
    "sum": (lambda x, m: F.binary_cross_entropy_with_logits(x, m, reduction="sum"), "same images"),
    "score": (lambda x, m: 1 - dice(x, m), "learn to be wrong.*1 - score"),
    "in place": (lambda x, m: bce(x, m.mul_(0.5)), "changes the tensors"),
    "masks first": (lambda y_true, y_pred: bce(y_pred, y_true), "masks first.*Turn them round"),
    "one argument": (lambda x: x.mean(), r"cannot be called as `loss\(logits, masks\)`"),
    "fixed size": (
        lambda x, m: bce(x * torch.ones(64), m),
        "8 x 8 pixels.*deep_supervision=False",
    ),
    "raises": (broken, "broken failed: ZeroDivisionError: by nought.*own_parts.py"),
    "string": ("dice", "is 'dice', expected a function"),  # type: ignore[dict-item]
    "class": (torch.nn.BCEWithLogitsLoss, r"BCEWithLogitsLoss\(\)"),
}
WRONG_AUGMENTS: dict[str, tuple[Part, str]] = {
    "image alone, always": (lambda i, m, g: (i.flip(-1), m), "moves images and masks apart: in 1"),
    "image alone, by chance": (only_image, "only_image moves images and masks apart"),
    "mask alone": (lambda i, m, g: (i, m.flip(-2)), "apart"),
    "another image's": (lambda i, m, g: (i[torch.arange(len(i)) - 1], m), "apart"),
    "crop": (lambda i, m, g: (i[..., :32, :32], m[..., :32, :32]), "returned images of shape"),
    "image alone back": (lambda i, m, g: i, "returned a Tensor, expected two tensors"),
    "dict": (lambda i, m, g: {"image": i, "mask": m}, "returned a dict"),
    "numpy": (lambda i, m, g: (i.numpy(), m.numpy()), "tuple of ndarray, ndarray"),
    "normalised": (lambda i, m, g: ((i - 0.45) / 0.22, m), "normalises colours itself"),
    "bytes": (lambda i, m, g: ((i * 255).byte(), m), "from 38 to 216"),
    "masks of 255": (lambda i, m, g: (i, m * 255), "masks from 0 to 255"),
    "masks over 255": (lambda i, m, g: (i, m / 255), "masks that are all 0"),
    "NaN": (lambda i, m, g: (i / 0, m), "images from inf"),
    "two arguments": (lambda i, m: (i, m), "cannot be called as `augment"),
    "raises": (lambda i, m, g: i.nothing(), "failed: AttributeError"),
}
WRONG_OPTIMIZERS: dict[str, tuple[Part, str]] = {
    "own parameters": (lambda g: SGD([torch.nn.Parameter(torch.ones(2))]), "holds 0 of"),
    "some": (lambda g: SGD(g[:1]), r"holds \d+ of"),
    "flattened": (
        lambda g: SGD([p for each in g for p in each["params"]]),
        "does not keep the groups",
    ),
    "rate": (lambda g: SGD(g, lr=0.5), r"lr=0.5, which has no effect.*make_config\(..., lr=0.5\)"),
    "decay": (lambda g: SGD(g, weight_decay=0.3), "weight_decay=0.3, which has no effect"),
    "nothing": (lambda g: None, "returned NoneType"),
    "schedule": (lambda g: torch.optim.lr_scheduler.StepLR(SGD(g), 1), "returned StepLR"),
    "raises": (Boom, "^optimizer Boom failed: ValueError: no more.*frozen"),
    "still": (Still, "changes no parameter"),
    "unsaved": (Hoarder, "cannot be saved and loaded.*tensors and plain values"),
    "one group alone": (torch.optim.LBFGS, "LBFGS failed: ValueError: .*per-parameter options"),
    "closure": (Closed, "^optimizer Closed needs the loss computed anew within its step"),
}
