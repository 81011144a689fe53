"""IoU and MAE of whole batches on their device: what training's log and curve show."""

from __future__ import annotations

import torch
from torch import Tensor


def batch_iou(probability: Tensor, mask: Tensor) -> Tensor:
    """Return the IoU of each image, (B,) float64 on the same device: `measure(...).values["iou"]`.

    probability: (B, 1, H, W) 0...1 of any float type, mask: the same shape, of 0 and 1. Rounded to
    8 bits and stretched per image, so that the number does not depend on the batch. It is taken at
    the size given (in training: the network's), where `measure` is used at the mask's own size. A
    second channel of the mask is 1 where pixels count nowhere.
    """
    counted = _counted(mask)
    found, wanted = _stretched_batch(probability, counted) > 0.5, mask[:, :1] > 0.5
    if counted is not None:
        found, wanted = found & counted, wanted & counted
    common = (found & wanted).sum((1, 2, 3))
    return common / (found | wanted).sum((1, 2, 3)).clamp(min=1).double()


def batch_mae(probability: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute error of each image, (B,) float64; arguments as in `batch_iou`."""
    counted = _counted(mask)
    error = (_stretched_batch(probability, counted) - mask[:, :1]).abs()
    if counted is None:
        return error.mean((1, 2, 3))
    return (error * counted).sum((1, 2, 3)) / counted.sum((1, 2, 3)).clamp(min=1)


def training_iou(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of the images' IoU and how many show an object, (2,) float32, on the device.

    logits: (B, 1, H, W), mask: as in `batch_iou`, whose rule this is (stretched per image, images
    without an object left out) in a few operations that wait for nothing. They agree but for the
    pixels at the threshold itself, and a map without any difference, in which this finds nothing.
    """
    counted, level = _counted(mask), (logits.float().sigmoid() * 255).round()
    lows = highs = level
    wanted = mask[:, :1] > 0.5
    if counted is not None:
        lows, highs = level.masked_fill(~counted, 255), level.masked_fill(~counted, 0)
        wanted = wanted & counted
    middle = (lows.amin((1, 2, 3), keepdim=True) + highs.amax((1, 2, 3), keepdim=True)) / 2
    found = (highs > middle).flatten(1)
    wanted = wanted.flatten(1)
    ious = (found & wanted).sum(1) / (found | wanted).sum(1).clamp(min=1)
    shown = wanted.any(1)
    return torch.stack([ious * shown, shown]).sum(1)


def _counted(mask: Tensor) -> Tensor | None:
    """Return where pixels count, if the mask's second channel says so."""
    return mask[:, 1:] < 0.5 if mask.shape[1] > 1 else None


def _stretched_batch(probability: Tensor, counted: Tensor | None = None) -> Tensor:
    level = (probability.float() * 255).round().double() / 255
    lows, highs = level, level
    if counted is not None:  # pixels that count nowhere stretch nothing
        lows, highs = level.masked_fill(~counted, 1.0), level.masked_fill(~counted, 0.0)
    low, high = lows.amin((1, 2, 3), keepdim=True), highs.amax((1, 2, 3), keepdim=True)
    return torch.where(high > low, (level - low) / (high - low), level)
