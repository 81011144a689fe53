"""An augmentation of the user's own, in the place of `augment.augment_batch`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..outside.foreign import called, name_of, named, with_article
from .augment import to_float


def augmented(
    function: Callable[..., Any], image: Tensor, mask: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the user's augmentation of a batch, as `data.augment.augment_batch` returns its own.

    image and mask as that takes them; all chance follows from `uniform`, (B, K) on the CPU.
    """
    image, mask = to_float(image, mask)
    seed, expected = seed_of(uniform), (image.shape, mask.shape)
    generator = torch.Generator(image.device).manual_seed(seed)
    with named("augment", function), torch.no_grad(), seeded(seed):
        result = function(image.clone(), mask.clone(), generator)
    image, mask = both(result, expected, called("augment", name_of(function)))
    return image.float().clamp(0, 1).contiguous(), (mask >= 0.5).float().contiguous()


def both(result: Any, expected: tuple[Any, Any], name: str) -> tuple[Tensor, Tensor]:
    """Return images and masks out of what an augmentation gave; InputError for anything else."""
    pair = isinstance(result, tuple | list) and len(result) == 2
    if not pair or not all(isinstance(each, Tensor) for each in result):
        found = type(result).__name__
        if isinstance(result, tuple | list):
            found += f" of {', '.join(type(each).__name__ for each in result)}"
        raise InputError(
            f"{name} returned {with_article(found)}, expected two tensors: `return images, masks`."
        )
    for what, value, shape in zip(("images", "masks"), result, expected, strict=True):
        if value.shape != shape:
            raise InputError(
                f"{name} returned {what} of shape {tuple(value.shape)}, expected "
                f"{tuple(shape)}, as it got them. Bring crops back to the size, both alike: "
                "`torch.nn.functional.interpolate(images, masks.shape[-2:])`."
            )
    return result[0], result[1]


def seed_of(uniform: Tensor) -> int:
    """Return a seed that follows from a batch's uniform numbers, (B, K) float32 on the CPU."""
    seed = 0
    for bits in uniform[0].contiguous().view(torch.int32).tolist():
        seed = (seed * 1_000_003 + bits) % 2**63
    return seed


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let NumPy's and Python's own chance follow from `seed` in here, and go on as before after."""
    numbers, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numbers)  # noqa: NPY002
        random.setstate(python)
