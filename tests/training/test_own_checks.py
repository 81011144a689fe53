"""What users get wrong about a loss or an augmentation is answered before the first step."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from own_parts import WRONG_AUGMENTS, WRONG_LOSSES, bce, counting, dice, flips
from torch import nn
from torch.nn import functional as F

from camoxpert_nb.data.augment import augment_batch
from camoxpert_nb.errors import InputError
from camoxpert_nb.network.losses import structure_loss
from camoxpert_nb.training.own import Own
from camoxpert_nb.training.own_checks import check_callables, check_own

CPU = torch.device("cpu")


def check(**parts: Any) -> list[str]:
    return check_own(Own(**parts), CPU, 64)


@pytest.mark.parametrize("name", WRONG_LOSSES)
def test_a_wrong_loss_is_told_what_to_change(name: str) -> None:
    loss, expected = WRONG_LOSSES[name]
    with pytest.raises(InputError, match=f"(?s){expected}"):
        check(loss=loss)


@pytest.mark.parametrize("name", WRONG_AUGMENTS)
def test_a_wrong_augmentation_is_told_what_to_change(name: str) -> None:
    augment, expected = WRONG_AUGMENTS[name]
    with pytest.raises(InputError, match=expected):
        check(augment=augment)


@pytest.mark.parametrize(
    "loss",
    [
        dice,
        bce,
        counting,
        structure_loss,
        nn.BCEWithLogitsLoss(),
        partial(F.binary_cross_entropy_with_logits, reduction="mean"),
        lambda x, m: F.mse_loss(x.double().sigmoid(), m.double()),
    ],
)
def test_a_good_loss_passes(loss: Any) -> None:
    assert check(loss=loss) == []


def of_the_kit(images: Any, masks: Any, generator: Any) -> Any:
    return augment_batch(images, masks, torch.rand(len(images), 8, generator=generator))


def mixup(images: Any, masks: Any, generator: Any) -> Any:
    order = torch.randperm(len(images), generator=generator)
    return 0.7 * images + 0.3 * images[order], 0.7 * masks + 0.3 * masks[order]


def cutout(images: Any, masks: Any, generator: Any) -> Any:
    for image in images:
        y, x = torch.randint(0, 40, (2,), generator=generator).tolist()
        image[:, y : y + 24, x : x + 24] = 0
    return images, masks


@pytest.mark.parametrize(
    "augment",
    [
        flips,
        of_the_kit,
        mixup,
        cutout,
        lambda i, m, g: (i, m),
        lambda i, m, g: (1 - i, m > 0),
        lambda i, m, g: (i.rot90(1, (2, 3)), m.rot90(1, (2, 3))),
        lambda i, m, g: (i + 0.1 * torch.randn(i.shape, generator=g), m),
        lambda i, m, g: (i * np.random.uniform(0.8, 1.2), m),  # noqa: NPY002
    ],
)
def test_a_good_augmentation_passes(augment: Any) -> None:
    assert check(augment=augment) == []
    assert check_own(Own(augment=augment), CPU, 32) == []


def test_chance_of_its_own_is_told() -> None:
    own = np.random.default_rng()
    (note,) = check(augment=lambda i, m, g: (i * own.uniform(0.8, 1.2), m))
    assert "do not follow from the generator" in note


def test_ignored_pixels_reach_both() -> None:
    with pytest.raises(InputError, match=r"--ignore-label.*counted"):
        check_own(Own(loss=bce), CPU, 64, ignores=True)
    assert check_own(Own(loss=counting, augment=flips), CPU, 64, ignores=True) == []
    with pytest.raises(InputError, match=r"masks of shape \(16, 1, 64, 64\)"):
        check_own(Own(augment=lambda i, m, g: (i, m[:, :1])), CPU, 64, ignores=True)


def test_a_loss_that_would_have_to_be_trained_is_refused() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, logits: Any, masks: Any) -> Any:
            return self.weight * bce(logits, masks)

    with pytest.raises(InputError, match="parameters of its own"):
        check(loss=Learned())
    assert check(loss=Learned().requires_grad_(False)) == []


def test_small_maps_do_not_matter_without_deep_heads() -> None:
    own = Own(loss=WRONG_LOSSES["fixed size"][0])
    assert check_own(own, CPU, 64, deep=False) == []


def test_callbacks_and_optimisers_are_functions() -> None:
    with pytest.raises(InputError, match="on_step is 3, expected a function: `on_step"):
        check_callables(Own(on_step=3))
    with pytest.raises(InputError, match=r"cannot be called as `on_epoch\(record\)`"):
        check_callables(Own(on_epoch=lambda: None))
    made = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    with pytest.raises(InputError, match="exists already"):
        check_callables(Own(optimizer=made))
    check_callables(Own(loss="built-in", on_step=print))
