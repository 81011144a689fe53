"""Scores and pictures of the validation images, each of which is seen exactly once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.augment import to_float
from ..data.batches import PairDataset
from ..evaluation.metrics import batch_iou, batch_mae
from ..machine.distributed import ALONE, Ranks
from ..network.build import evaluating

CPU = torch.device("cpu")
PREVIEWS = 12

Batch = dict[str, Tensor]


@torch.inference_mode()
def validate(
    net: nn.Module,
    batches: Iterable[Batch],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device = CPU,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Return "iou" (threshold 0.5) and "mae", means over all images at the network's size.

    `batches` are this process's; together the processes' hold each image once.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    for batch in batches:
        outputs, mask = _forward(net, batch, dtype, device)
        probability = outputs["logits"].float().sigmoid()
        scores = batch_iou(probability, mask), batch_mae(probability, mask)
        sums += torch.stack(
            [*(score.double().sum() for score in scores), sums.new_tensor(len(mask))]
        )
    iou, mae, count = ranks.total(sums).tolist()
    return {"iou": iou / count, "mae": mae / count}


@torch.inference_mode()
def preview(
    net: nn.Module,
    dataset: PairDataset,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Return a dozen images from all over `dataset`, always the same, as predicted now.

    Arrays as `Run.save_preview` takes them, with "index" in the place of names.
    """
    spread = np.linspace(0, len(dataset) - 1, min(PREVIEWS, len(dataset))).round().astype(int)
    batch = dataset[spread.tolist()]
    outputs, _mask = _forward(net, batch, dtype, device)
    probability = outputs["logits"].float().sigmoid()
    arrays = {
        "image": batch["image"].permute(0, 2, 3, 1),
        "mask": batch["mask"][:, 0],
        "probability": (probability[:, 0] * 255).round().to(torch.uint8),
        "gates": outputs["gates"].float(),
        "index": batch["index"],
    }
    return {name: values.cpu().numpy() for name, values in arrays.items()}


def _forward(
    net: nn.Module, batch: Batch, dtype: torch.dtype | None, device: torch.device
) -> tuple[dict[str, Any], Tensor]:
    """Return the outputs of `net` in evaluation mode, and the masks (B, 1, S, S) float32."""
    image, mask = to_float(batch["image"].to(device), batch["mask"].to(device))
    with evaluating(net), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        return net(image), mask
