"""The IoU of training batches, which follows the rule of validation."""

from __future__ import annotations

import pytest
import torch

from camoxpert_nb.evaluation.metrics_of_batches import batch_iou, batch_mae, training_iou


def masks(count: int = 6, side: int = 24) -> torch.Tensor:
    """Squares of growing size; the first image shows none."""
    mask = torch.zeros(count, 1, side, side)
    for index in range(count):
        mask[index, :, : 3 * index, : 3 * index] = 1
    return mask


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])  # of the logits: flat, usual, saturated
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_is_the_sum_of_what_validation_would_say(scale: float, dtype: torch.dtype) -> None:
    mask = masks()
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1))
    logits = (scale * (mask - 0.5 + 0.6 * noise)).to(dtype)
    ious = batch_iou(logits.float().sigmoid(), mask)
    found, shown = training_iou(logits, mask).tolist()
    assert shown == 5
    assert found / shown == pytest.approx(
        ious[1:].mean().item(), abs=2e-3
    )  # pixels at the threshold


def test_pixels_that_count_nowhere_count_nowhere() -> None:
    mask, logits = masks(4), 3.0 * (2 * masks(4) - 1)
    nowhere = torch.zeros_like(mask)
    nowhere[..., -4:] = 1
    logits[..., -4:] = 50.0  # would stretch all else to nothing
    both = torch.cat([mask, nowhere], 1)
    assert training_iou(logits, both).tolist() == pytest.approx([3.0, 3.0])
    hidden = torch.cat([mask, torch.ones_like(mask)], 1)
    assert training_iou(logits, hidden).tolist() == [0.0, 0.0]


def test_a_network_without_numbers_finds_nothing() -> None:
    mask = masks(3)
    assert training_iou(torch.full_like(mask, torch.nan), mask).tolist() == [0.0, 2.0]
    assert training_iou(torch.zeros_like(mask), mask).tolist() == [0.0, 2.0]  # flat: nowhere above


def test_parts_of_a_batch_add_up() -> None:
    mask = masks()
    logits = torch.randn(mask.shape, generator=torch.Generator().manual_seed(2))
    parts = zip(logits.split(2), mask.split(2), strict=True)
    total = sum((training_iou(*part) for part in parts), torch.zeros(2))
    torch.testing.assert_close(total, training_iou(logits, mask))


def test_measures_of_a_batch_computed_by_hand() -> None:
    """Two images of four pixels; levels 0, 51, 102 and 255, and of the second 0, 0, 51 and 102.

    Stretched the second is 0, 0, 1/2 and 1: one half is not above one half.
    """
    levels = torch.tensor([[0, 51, 102, 255], [0, 0, 51, 102]]).view(2, 1, 1, 4) / 255
    mask = torch.tensor([[0.0, 1, 0, 1], [0, 1, 0, 1]]).view(2, 1, 1, 4)
    assert batch_iou(levels, mask).tolist() == [1 / 2, 1 / 2]
    assert batch_iou(levels, mask).dtype == batch_mae(levels, mask).dtype == torch.float64
    assert batch_mae(levels, mask).tolist() == pytest.approx([(0.8 + 0.4) / 4, (1 + 0.5) / 4])
    # where the first and the last pixel count nowhere, 1/5 and 2/5 are stretched to 0 and 1
    nowhere = torch.tensor([1.0, 0, 0, 1]).view(1, 1, 1, 4).expand(2, -1, -1, -1)
    both = torch.cat([mask, nowhere], 1)
    assert batch_iou(levels, both).tolist() == [0, 0]
    third = torch.tensor([0.0, 0, 1, 0]).view(1, 1, 1, 4).expand(2, -1, -1, -1)
    assert batch_iou(levels, torch.cat([third, nowhere], 1)).tolist() == [1, 1]
    assert batch_mae(levels, both).tolist() == [1, 1]
    first = torch.tensor([0.0, 1, 1, 1]).view(1, 1, 1, 4).expand(2, -1, -1, -1)
    alone = batch_mae(levels + 0.2, torch.cat([mask, first], 1))  # of one pixel, as it is
    assert alone.tolist() == pytest.approx([0.2, 0.2])
    hidden = torch.cat([mask, torch.ones_like(mask)], 1)
    assert batch_iou(levels, hidden).tolist() == batch_mae(levels, hidden).tolist() == [0, 0]
    assert batch_mae(torch.full_like(levels, 0.2), mask).tolist() == pytest.approx([0.5, 0.5])


def test_what_training_shows_computed_by_hand() -> None:
    """Levels 0, 51, 102 and 255 are cut at their middle, 127.5; without the last one at 51.

    Of the second image, which shows nothing, nothing is counted.
    """
    logits = torch.tensor([[0, 51, 102, 255], [9, 51, 102, 255]]).view(2, 1, 1, 4)
    logits = (logits / 255).logit(eps=1e-6)
    mask = torch.tensor([[0.0, 1, 0, 1], [0, 0, 0, 0]]).view(2, 1, 1, 4)
    assert training_iou(logits, mask).tolist() == [1 / 2, 1]
    assert training_iou(logits, mask).dtype == torch.float32
    nowhere = torch.tensor([0.0, 0, 0, 1]).view(1, 1, 1, 4).expand(2, -1, -1, -1)
    assert training_iou(logits, torch.cat([mask, nowhere], 1)).tolist() == [0, 1]
    most = torch.tensor([0.0, 1, 0, 0]).view(1, 1, 1, 4).expand(2, -1, -1, -1)
    assert training_iou(logits, torch.cat([mask, most], 1)).tolist() == [1, 1]
