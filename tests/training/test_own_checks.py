"""What users get wrong about a loss or an augmentation is answered before the first step."""

from __future__ import annotations

import contextlib
import re
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
from camoxpert_nb.training import own_checks
from camoxpert_nb.training.own import Own
from camoxpert_nb.training.own_checks import (
    _alike,
    _check_range,
    _pattern,
    check_callables,
    check_own,
)

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


# --- whole sentences; F stands for what was given


SMALL = (
    "loss F failed: RuntimeError: The size of tensor a (8) must match the size of tensor b (64) at "
    "non-singleton dimension 3 (F). That was at 8 x 8 pixels: with deep supervision a loss is "
    "called for each coarser head too, with masks of 0...1. Let loss F take such maps, or leave "
    "the heads out: make_config(..., deep_supervision=False)."
)
TRIED = (
    "It was tried before the first step, with made-up images and masks (B, 3 and 1, 64, 64). Mend "
    "it and start again."
)
MIND = (
    "Mind images without an object (add 1 to both parts of a ratio), and log or sqrt of 0; "
    "`binary_cross_entropy_with_logits` is safe where log(sigmoid(x)) is not."
)
NO_GRADIENT = (
    "loss F has no gradient, so nothing would be learned. Thresholds (>, round, argmax), detach(), "
    "no_grad() and numpy end it: use the probabilities, `logits.sigmoid()`."
)
NO_TENSOR = (
    ", expected a tensor: one number, or one for each image. Compute it with torch alone: numpy "
    "and .item() lose the gradient."
)
SHAPE = (
    " for 3 images, expected () or (3,). Average over the pixels: `.mean((1, 2, 3))` of "
    "(B, 1, H, W), or `.mean()` of all."
)
LOSSES_TOLD = {
    "numpy": f"loss F returned a float32{NO_TENSOR}",
    "nothing": f"loss F returned a NoneType{NO_TENSOR}",
    "map": f"loss F returned a tensor of shape (3, 1, 64, 64){SHAPE}",
    "threshold": NO_GRADIENT,
    "detached": NO_GRADIENT,
    "other input": "loss F does not depend on the logits, so nothing would be learned. They are "
    "its first argument; the masks are the second.",
    "empty": f"loss F returned [nan, 0.496, 0.504] on random logits. {MIND}",
    "log": "loss F returned [nan, nan, nan] where the network is sure (logits of 40 and more). "
    + MIND,
    "sum": "loss F is 9.84e+03 for three images and 1.97e+04 for the same images twice, expected "
    "their mean: `.mean()` in the place of `.sum()`, or a number for each image, (B,).",
    "score": "loss F is 0.98 for a right map and 0.0163 for its opposite, so the network would "
    "learn to be wrong. A score, as Dice or IoU, is to be turned round: `1 - score`. The logits "
    "are the first argument, the masks the second.",
    "in place": "loss F changes the tensors it is given. Work on copies: `masks = masks.clone()`, "
    "and no functions that end in _.",
    "masks first": "loss F(y_true, y_pred) takes the masks first, expected `loss(logits, masks)`. "
    "Turn them round: `lambda logits, masks: my_loss(masks, logits)`.",
    "one argument": "loss F(x) cannot be called as `loss(logits, masks)` (too many positional "
    "arguments). Take these arguments, in this order; more need a default.",
    "fixed size": SMALL,
    "raises": f"loss broken failed: ZeroDivisionError: by nought (F). {TRIED}",
    "string": "loss is 'dice', expected a function: `loss(logits, masks)`, without calling it.",
    "class": "loss is the class BCEWithLogitsLoss, expected an object of it or a function: "
    "`loss=BCEWithLogitsLoss()`.",
}
ALONE = (
    " of 16 made-up images the object is no more where its mask says. Flip, crop and turn both by "
    "the same numbers: draw them once, or move `torch.cat([images, masks], 1)` as one."
)
RANGE = " Leave out Normalize and factors of 255."
COLOURS = f", expected 0...1, as it got them. The network normalises colours itself.{RANGE}"
AUGMENTS_TOLD = {
    "image alone, always": f"augment F moves images and masks apart: in 16{ALONE}",
    "image alone, by chance": f"augment only_image moves images and masks apart: in 7{ALONE}",
    "crop": "augment F returned images of shape (16, 3, 32, 32), expected (16, 3, 64, 64), as it "
    "got them. Bring crops back to the size, both alike: "
    "`torch.nn.functional.interpolate(images, masks.shape[-2:])`.",
    "dict": "augment F returned a dict, expected two tensors: `return images, masks`.",
    "normalised": f"augment F returned images from -1.36 to 1.82{COLOURS}",
    "bytes": f"augment F returned images from 38 to 216{COLOURS}",
    "masks of 255": "augment F returned masks from 0 to 255, expected 0...1, as it got them. "
    f"Masks are 0 and 1.{RANGE}",
    "masks over 255": "augment F returned masks that are all 0, of images with an object each. "
    "Masks are 0 and 1; do not divide them by 255.",
    "two arguments": "augment F(i, m) cannot be called as `augment(images, masks, generator)` "
    "(too many positional arguments). Take these arguments, in this order; more need a default.",
}


def told(**parts: Any) -> str:
    """Return what is said of these parts, with F for a function of own_parts and its line."""
    with pytest.raises(InputError) as caught:
        check(**parts)
    return re.sub(r"<lambda in line \d+ of \w+.py>|line \d+ of \w+.py", "F", str(caught.value))


@pytest.mark.parametrize("name", LOSSES_TOLD)
def test_a_wrong_loss_is_answered_whole(name: str) -> None:
    assert told(loss=WRONG_LOSSES[name][0]) == LOSSES_TOLD[name]


@pytest.mark.parametrize("name", AUGMENTS_TOLD)
def test_a_wrong_augmentation_is_answered_whole(name: str) -> None:
    assert told(augment=WRONG_AUGMENTS[name][0]) == AUGMENTS_TOLD[name]


def test_rarer_mistakes_are_answered_whole() -> None:
    made = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    assert told(optimizer=made) == (
        "optimizer is an optimizer that exists already (SGD), expected a function that makes one "
        "from the groups of parameters: `optimizer=lambda groups: torch.optim.SGD(groups)`."
    )
    assert told(loss=lambda x, m: bce(x, m).to("meta")) == (
        "loss F returned a tensor on meta, expected cpu. Make new tensors where the logits are: "
        "`device=logits.device`."
    )
    assert told(loss=lambda x, m: bce(x, m) + (x * 0).abs().sqrt().mean()) == (
        f"loss F has a gradient that is not finite on random logits. {MIND}"
    )
    assert told(augment=lambda i, m, g: (i, m * 0 + 1)).startswith(
        "augment F returned masks that are all 1, of images with an object each."
    )
    assert told(on_epoch=lambda: None) == (
        "on_epoch F() cannot be called as `on_epoch(record)` (too many positional arguments). Take "
        "these arguments, in this order; more need a default."
    )
    assert told(on_step="built-in").startswith("on_step is 'built-in', expected a function")
    assert told(loss=lambda Target, x: bce(x, Target)).endswith("my_loss(masks, logits)`.")
    with pytest.raises(InputError) as caught:
        check_own(Own(loss=bce), CPU, 64, ignores=True)
    assert str(caught.value) == (
        "--ignore-label leaves pixels out, and loss bce does not know them. Let it take them too, "
        "`loss(logits, masks, counted)`: counted is (B, 1, H, W), 0 where a pixel counts nowhere; "
        "or train without the ignored label."
    )
    learned = nn.Linear(1, 1)
    assert told(loss=_Takes(learned)) == (
        "your own loss has parameters of its own, and nothing would train them. Freeze them "
        "(`requires_grad_(False)`), or make them part of the network (`net=`)."
    )
    (note,) = check(augment=lambda i, m, g: (i * np.random.default_rng().uniform(0.8, 1.2), m))
    assert re.sub(r"<.*?>", "F", note) == (
        "augment F draws numbers that do not follow from the generator it is given, so a run that "
        "is resumed is not exactly the one that was not interrupted: draw with "
        "`torch.rand(..., generator=generator)`"
    )


class _Takes(nn.Module):
    """A loss with parameters, that is called loss."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part, self.__name__ = part, "loss"

    def forward(self, logits: Any, masks: Any) -> Any:
        return bce(logits, masks)


# --- what is tried, by hand


def test_a_loss_is_tried_on_random_sure_small_right_and_doubled_maps() -> None:
    calls: list[tuple[Any, ...]] = []

    def noted(logits: Any, masks: Any) -> Any:
        x = logits.detach()
        plain = [float(each.sum()) == 0 for each in masks]
        calls.append((tuple(x.shape), logits.requires_grad, x.abs().max().item(), plain))
        assert masks.shape == logits.shape
        return bce(logits, masks)

    assert check(loss=noted) == []
    shapes = [(shape, trains) for shape, trains, *_ in calls]
    whole, small, tiny_ = (3, 1, 64, 64), (3, 1, 8, 8), (3, 1, 2, 2)
    assert shapes == [
        (whole, True), (whole, True), (small, False), (tiny_, False), (whole, False),
        (whole, False), (whole, False), ((6, 1, 64, 64), False),
    ]  # fmt: skip
    highest = [most for *_, most, _ in calls]
    assert highest[1] == pytest.approx(40 * highest[0]) and 3 < highest[0] < 6
    assert highest[2:6] == [0.0, 0.0, 4.0, 4.0] and highest[6:] == [highest[0]] * 2
    assert all(plain == [True, False, False] * (len(plain) // 3) for *_, plain in calls)


@pytest.mark.parametrize(("grows", "refused"), [(1.19, False), (1.21, True), (0.79, True)])
def test_a_mean_may_differ_by_a_fifth(grows: float, refused: bool) -> None:
    def loss(logits: Any, masks: Any) -> Any:
        return bce(logits, masks) * (grows if len(logits) == 6 else 1)

    with pytest.raises(InputError, match="twice") if refused else contextlib.nullcontext():
        check(loss=loss)


@pytest.mark.parametrize(("moved", "refused"), [(0, False), (4, False), (5, True)])
def test_a_quarter_of_the_images_may_lose_their_object(moved: int, refused: bool) -> None:
    """As where a cut-out hides it."""

    def some(images: Any, masks: Any, generator: Any) -> Any:
        images[:moved] = 0.5 + 0.01 * torch.randn(images[:moved].shape, generator=generator)
        return images, masks

    apart = f"in {moved} of 16"
    with pytest.raises(InputError, match=apart) if refused else contextlib.nullcontext():
        check(augment=some)


@pytest.mark.parametrize(
    ("what", "low", "high", "fits"),
    [
        ("images", -0.75, 1.75, True),
        ("images", -0.76, 1.0, False),
        ("images", 0.0, 1.76, False),
        ("masks", -0.25, 1.25, True),
        ("masks", -0.26, 1.0, False),
        ("masks", 0.0, 1.26, False),
        ("masks", 0.0, float("nan"), False),
    ],
)
def test_colours_may_overshoot_and_masks_a_little(
    what: str, low: float, high: float, fits: bool
) -> None:
    with contextlib.nullcontext() if fits else pytest.raises(InputError, match=what):
        _check_range("F", what, torch.tensor([low, high]))
    _check_range("F", what, torch.tensor([True]))


def test_alike_is_the_correlation_without_its_sign() -> None:
    mask = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert _alike(0.2 + 0.5 * mask, mask) == pytest.approx(1)
    assert _alike(1 - mask, mask) == pytest.approx(1)
    assert _alike(mask.T, mask) == pytest.approx(0)
    assert _alike(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), mask) == pytest.approx(2 / 5**0.5)
    assert _alike(torch.ones(2, 2), mask) is None and _alike(mask, torch.zeros(2, 2)) is None


def test_made_up_images_show_eight_by_eight_patches() -> None:
    images, masks = _pattern(50, 16, CPU)
    assert images.shape == (50, 3, 16, 16) and masks.shape == (50, 1, 16, 16)
    assert {*masks.flatten().tolist()} == {0.0, 1.0}
    torch.testing.assert_close(images, (0.15 + 0.7 * masks).expand(-1, 3, -1, -1))
    assert torch.equal(masks, masks[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert masks.mean().item() == pytest.approx(0.4, abs=0.02)
    assert torch.equal(_pattern(50, 16, CPU)[1], masks) and images.is_contiguous()


@pytest.mark.parametrize(("size", "count"), [(64, 16), (512, 16), (640, 10), (1024, 4), (4096, 4)])
def test_larger_images_are_tried_in_fewer(
    monkeypatch: pytest.MonkeyPatch, size: int, count: int
) -> None:
    class Enough(Exception):
        pass

    def pattern(*how: Any) -> Any:
        assert how == (count, size, CPU)
        raise Enough

    monkeypatch.setattr(own_checks, "_pattern", pattern)
    with pytest.raises(Enough):
        check_own(Own(augment=flips), CPU, size)
