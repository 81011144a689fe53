"""Parts of a user's own, tried on made-up images before the first step: minutes are not lost.

Each mistake that people make is answered with what was found, what was expected and what to change.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..data.own_augment import augmented, both, seeded
from ..errors import InputError, KitError
from ..outside.foreign import before_training, called, name_of
from ..outside.foreign import named as own_code
from .own import BUILT_IN, CALLBACKS, PARTS, Own, OwnLoss, is_own, signature_of

ASKS = {"loss": 2, "augment": 3, "optimizer": 1, "on_step": 1, "on_epoch": 1}
SHAPES = {
    "loss": "loss(logits, masks)",
    "augment": "augment(images, masks, generator)",
    "optimizer": "optimizer(groups)",
    "on_step": "on_step(record)",
    "on_epoch": "on_epoch(record)",
}
MASKS = ("mask", "masks", "target", "targets", "label", "labels", "gt", "truth", "y_true", "y")
CELLS = 8  # of the made-up pattern in a row: a move by one is seen
ALIKE = 0.4  # correlation of image and mask below which they do not show the same any more
APART = 0.25  # share of images below it from which they were moved apart


def check_callables(own: Own) -> None:
    """Raise InputError for what cannot be called as it will be."""
    for name in (*PARTS, *CALLBACKS):
        part = getattr(own, name)
        if part is None or (name in PARTS and part == BUILT_IN):
            continue
        if isinstance(part, Optimizer):
            raise InputError(
                f"optimizer is an optimizer that exists already ({type(part).__name__}), expected "
                "a function that makes one from the groups of parameters: "
                f"`optimizer=lambda groups: torch.optim.{type(part).__name__}(groups)`."
            )
        if isinstance(part, type) and issubclass(part, nn.Module):
            raise InputError(
                f"{name} is the class {part.__name__}, expected an object of it or a function: "
                f"`{name}={part.__name__}()`."
            )
        if not callable(part):
            raise InputError(
                f"{name} is {part!r}, expected a function: `{SHAPES[name]}`, without calling it."
            )
        _check_arguments(name, part)


def _check_arguments(name: str, part: Any) -> None:
    """Raise InputError where a function cannot take what it will be given."""
    signature = signature_of(part)
    if signature is None:
        return
    first = next(iter(signature.parameters), "")
    if name == "loss" and first.lower() in MASKS:
        raise InputError(
            f"{called('loss', name_of(part))}{signature} takes the masks first, expected "
            "`loss(logits, masks)`. Turn them round: "
            "`lambda logits, masks: my_loss(masks, logits)`."
        )
    extra = {"counted": None} if name == "loss" and "counted" in signature.parameters else {}
    try:
        signature.bind(*[None] * ASKS[name], **extra)
    except TypeError as error:
        raise InputError(
            f"{called(name, name_of(part))}{signature} cannot be called as `{SHAPES[name]}` "
            f"({error}). Take these arguments, in this order; more need a default."
        ) from error


def try_loss(
    function: Any, device: torch.device, size: int, *, ignores: bool = False, deep: bool = True
) -> None:
    """Raise InputError where a loss cannot be learned from.

    `ignores`: pixels are left out; `deep`: coarser heads have it too.
    """
    loss, name = OwnLoss(function), called("loss", name_of(function))
    if isinstance(function, nn.Module):
        function.to(device)
        if any(each.requires_grad for each in function.parameters()):
            raise InputError(
                f"{name} has parameters of its own, and nothing would train them. Freeze them "
                "(`requires_grad_(False)`), or make them part of the network (`net=`)."
            )
    if ignores and not loss.takes_counted:
        raise InputError(
            f"--ignore-label leaves pixels out, and {name} does not know them. Let it take "
            "them too, `loss(logits, masks, counted)`: counted is (B, 1, H, W), 0 where a pixel "
            "counts nowhere; or train without the ignored label."
        )
    masks = _pattern(3, size, device)[1]
    masks[0] = 0  # an image without an object
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 1, size, size, generator=generator).to(device)
    for scale in (1.0, 40.0):  # as a network begins, and where it is sure
        logits = (scale * noise).requires_grad_()
        _check_value(loss, logits, masks, name, sure=scale > 1)
    if deep:
        _try_heads(loss, masks, name)
    with torch.inference_mode():  # as in validation
        _check_direction(loss, masks.clone(), name)
        _check_mean(function, noise.clone(), masks.clone(), loss.takes_counted)


def _try_heads(loss: OwnLoss, masks: Tensor, name: str) -> None:
    """Raise InputError where a loss fails on the small maps of the coarser heads."""
    for stride in (8, 32):
        small = max(masks.shape[-1] // stride, 1)
        soft = nn.functional.adaptive_avg_pool2d(masks, small)
        try:
            loss(torch.zeros_like(soft), soft)
        except KitError as error:
            raise InputError(
                f"{error}. That was at {small} x {small} pixels: with deep supervision a loss is "
                f"called for each coarser head too, with masks of 0...1. Let {name} take such "
                "maps, or leave the heads out: make_config(..., deep_supervision=False)."
            ) from error.__cause__


def _check_direction(loss: OwnLoss, masks: Tensor, name: str) -> None:
    """Raise InputError where what is right costs more than what is wrong."""
    right = 8 * masks - 4
    good, bad = loss(right, masks)[1:].mean().item(), loss(-right, masks)[1:].mean().item()
    if good > bad + 1e-6 * abs(bad):
        raise InputError(
            f"{name} is {good:.3g} for a right map and {bad:.3g} for its opposite, so the "
            "network would learn to be wrong. A score, as Dice or IoU, is to be turned round: "
            "`1 - score`. The logits are the first argument, the masks the second."
        )


def _check_mean(function: Any, logits: Tensor, masks: Tensor, counted: bool) -> None:
    """Raise InputError where a number for the whole batch grows with it."""
    more = {"counted": torch.ones_like(masks)} if counted else {}
    once = function(logits, masks, **more)
    if once.ndim:
        return
    more = {name: torch.cat([value] * 2) for name, value in more.items()}
    twice = function(torch.cat([logits] * 2), torch.cat([masks] * 2), **more)
    if abs(twice - once) > 0.2 * abs(once):
        raise InputError(
            f"{called('loss', name_of(function))} is {once.item():.3g} for three images and "
            f"{twice.item():.3g} for the same images twice, expected their mean: `.mean()` in the "
            "place of `.sum()`, or a number for each image, (B,)."
        )


def _check_value(loss: OwnLoss, logits: Tensor, masks: Tensor, name: str, sure: bool) -> None:
    given, truth = logits * 1.0, masks.clone()
    before = given.detach().clone()
    value = loss(given, truth)
    if not torch.equal(truth, masks) or not torch.equal(given.detach(), before):
        raise InputError(
            f"{name} changes the tensors it is given. Work on copies: `masks = masks.clone()`,"
            " and no functions that end in _."
        )
    if value.device != logits.device:
        raise InputError(
            f"{name} returned a tensor on {value.device}, expected {logits.device}. Make new "
            "tensors where the logits are: `device=logits.device`."
        )
    where = "where the network is sure (logits of 40 and more)" if sure else "on random logits"
    remedy = (
        "Mind images without an object (add 1 to both parts of a ratio), and log or sqrt of 0; "
        "`binary_cross_entropy_with_logits` is safe where log(sigmoid(x)) is not."
    )
    if not value.isfinite().all():
        raise InputError(f"{name} returned {_listed(value)} {where}. {remedy}")
    if not value.requires_grad:
        raise InputError(
            f"{name} has no gradient, so nothing would be learned. Thresholds (>, round, "
            "argmax), detach(), no_grad() and numpy end it: use the probabilities, "
            "`logits.sigmoid()`."
        )
    (gradient,) = torch.autograd.grad(value.mean(), logits, allow_unused=True)
    if gradient is None or not (sure or gradient.any()):
        raise InputError(
            f"{name} does not depend on the logits, so nothing would be learned. They are its "
            "first argument; the masks are the second."
        )
    if not gradient.isfinite().all():
        raise InputError(f"{name} has a gradient that is not finite {where}. {remedy}")


def try_augment(function: Any, device: torch.device, size: int, ignores: bool) -> list[str]:
    """Raise InputError where an augmentation spoils images or masks; return what else is odd."""
    name = called("augment", name_of(function))
    count = min(max(2**22 // size**2, 4), 16)
    images, masks = _pattern(count, size, device)
    if ignores:
        masks = torch.cat([masks, torch.zeros_like(masks)], 1)
    uniform = torch.rand(count, 8, generator=torch.Generator().manual_seed(0))
    raw = _raw(function, images, masks)
    for what, value in zip(("images", "masks"), raw, strict=True):
        _check_range(name, what, value)
    (first, found), (second, _) = (augmented(function, images, masks, uniform) for _ in range(2))
    pairs = zip(first.mean(1), found[:, 0], strict=True)
    together = [alike for alike in (_alike(*pair) for pair in pairs) if alike is not None]
    apart = sum(alike < ALIKE for alike in together)
    if together and apart > APART * len(together):
        raise InputError(
            f"{name} moves images and masks apart: in {apart} of {len(together)} made-up "
            "images the object is no more where its mask says. Flip, crop and turn both by the "
            "same numbers: draw them once, or move `torch.cat([images, masks], 1)` as one."
        )
    if not found[:, 0].any() or found[:, 0].all():
        raise InputError(
            f"{name} returned masks that are all {int(found[:, 0].any())}, of images with "
            "an object each. Masks are 0 and 1; do not divide them by 255."
        )
    if torch.equal(first, second):
        return []
    return [
        f"{name} draws numbers that do not follow from the generator it is given, so a run "
        "that is resumed is not exactly the one that was not interrupted: draw with "
        "`torch.rand(..., generator=generator)`"
    ]


def _raw(function: Any, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the function itself gives, of the shapes that are expected."""
    generator = torch.Generator(images.device).manual_seed(0)
    with own_code("augment", function), torch.no_grad(), seeded(0):
        result = function(images.clone(), masks.clone(), generator)
    return both(result, (images.shape, masks.shape), called("augment", name_of(function)))


def _check_range(name: str, what: str, value: Tensor) -> None:
    """Raise InputError for values that are no longer about 0...1."""
    if value.dtype == torch.bool:
        return
    low, high = value.float().min().item(), value.float().max().item()
    slack = 0.75 if what == "images" else 0.25  # colours may overshoot, and are cut off
    if low >= -slack and high <= 1 + slack:  # false for NaN
        return
    tail = "The network normalises colours itself." if what == "images" else "Masks are 0 and 1."
    raise InputError(
        f"{name} returned {what} from {low:.3g} to {high:.3g}, expected 0...1, as it got "
        f"them. {tail} Leave out Normalize and factors of 255."
    )


def _alike(image: Tensor, mask: Tensor) -> float | None:
    """Return how well an image (S, S) shows its mask, as |correlation|; None where one is plain."""
    image, mask = image.double() - image.double().mean(), mask.double() - mask.double().mean()
    scale = (image.square().sum() * mask.square().sum()).sqrt().item()
    return abs((image * mask).sum().item()) / scale if scale > 1e-9 else None


def _pattern(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images that show their masks: random patches, so that any move is seen."""
    generator = torch.Generator().manual_seed(1)
    cells = (torch.rand(count, 1, CELLS, CELLS, generator=generator) > 0.6).float()
    masks = nn.functional.interpolate(cells, (size, size)).to(device)
    return (0.15 + 0.7 * masks).expand(-1, 3, -1, -1).contiguous(), masks


def check_own(
    own: Own, device: torch.device, size: int, *, ignores: bool = False, deep: bool = True
) -> list[str]:
    """Try loss and augmentation at `size` pixels a side; return what the user should know.

    `ignores` and `deep` are try_loss's.
    """
    check_callables(own)
    with before_training(f"images and masks (B, 3 and 1, {size}, {size})"):
        if is_own(own.loss):
            try_loss(own.loss, device, size, ignores=ignores, deep=deep)
        return try_augment(own.augment, device, size, ignores) if is_own(own.augment) else []


def _listed(values: Tensor) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values.tolist()) + "]"
