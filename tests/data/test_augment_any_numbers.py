"""Whatever the chance: mask and image move together, within their ranges."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import tried

from camoxpert_nb.data.augment import K, augment_batch, to_float

SIZE = 48
NUMBERS = st.lists(st.floats(0, 1, exclude_max=True), min_size=K, max_size=K)
STRENGTHS = st.floats(0, 1)


def painted(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image (1, 3, S, S) that is black and white, and where it is white."""
    coarse = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic")
    mask = (fine > 0.5).to(torch.uint8)
    return (mask * 255).repeat(1, 3, 1, 1), mask


@tried(60)
@given(NUMBERS, STRENGTHS, st.integers(0, 50), st.booleans())
def test_a_mask_painted_from_the_image_stays_its_mask(
    numbers: list[float], strength: float, seed: int, floats: bool
) -> None:
    image, mask = painted(seed)
    image = image.float() / 255 if floats else image
    moved, label = augment_batch(image, mask, torch.tensor([numbers]), strength)
    grey = moved.mean(1, keepdim=True)
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1
    assert {*label.unique().tolist()} <= {0.0, 1.0} and label.shape == mask.shape
    sure = (grey < 0.15) | (grey > 0.85)  # not at an edge, where colours are mixed
    wrong = (grey > 0.5) != (label > 0.5)
    assert float((wrong & sure).float().mean()) < 0.005


@tried(20)
@given(NUMBERS, st.integers(0, 50))
def test_strength_0_changes_nothing(numbers: list[float], seed: int) -> None:
    image, mask = painted(seed)
    got, wanted = augment_batch(image, mask, torch.tensor([numbers]), 0), to_float(image, mask)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
