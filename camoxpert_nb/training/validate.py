"""Scores and pictures of the validation images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.augment import to_float
from ..data.batches import PairDataset
from ..evaluation.metrics_of_batches import batch_iou, batch_mae
from ..machine.distributed import ALONE, Ranks
from ..network.build import evaluating
from ..network.losses import object_and_counted, structure_loss

CPU = torch.device("cpu")
PREVIEWS = 12

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Validation:
    """What a network scores on the validation images, at the network's size.

    iou (threshold 0.5), mae: means over the images with an object, as `evaluate` takes them; 0 and
    1 where none has one. ious: of those images, in the order of the set. empty: how many have none.
    finite: whether the network gave numbers for any image. loss: the structure loss as training
    takes it, or the user's own in its place, its mean over all images; NaN without one.
    """

    iou: float
    mae: float
    ious: tuple[float, ...]
    empty: int
    finite: bool = True
    loss: float = math.nan


@torch.inference_mode()
def validate(
    net: nn.Module,
    batches: Iterable[Batch],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device = CPU,
    ranks: Ranks = ALONE,
    legacy: bool = False,
    own: nn.Module | None = None,
) -> Validation:
    """Score the images of `batches`, which are this process's; all together hold each image once.

    All processes return the same. `legacy` and `own` are those of the training's `Supervised`.
    """
    rows: list[tuple[int, float, float, bool, bool, float]] = []
    for batch in batches:
        outputs, mask = _forward(net, batch, dtype, device)
        probability = outputs["logits"].float().sigmoid()
        object_, counted = object_and_counted(mask)
        columns = (
            batch_iou(probability, mask),
            batch_mae(probability, mask),
            mask[:, :1].amax((1, 2, 3)),
            probability.flatten(1).sum(1).isfinite(),
            own(outputs["logits"], object_, counted)
            if own is not None
            else structure_loss(outputs["logits"], object_, legacy, counted),
        )
        table = torch.stack([column.double() for column in columns], 1).tolist()
        rows += [(i, *row) for i, row in zip(batch["index"].tolist(), table, strict=True)]
    every = sorted(row for part in ranks.gather(rows) for row in part)
    ious = tuple(iou for _, iou, _, some, *_ in every if some)
    maes = [mae for _, _, mae, some, *_ in every if some]
    finite = any(numbers for *_, numbers, _ in every)
    loss = fmean(row[-1] for row in every) if every else math.nan
    if not ious:
        return Validation(0.0, 1.0, (), len(every), finite, loss)
    return Validation(fmean(ious), fmean(maes), ious, len(every) - len(ious), finite, loss)


def average_batch_norm(net: nn.Module, average: nn.Module | None, ranks: Ranks) -> None:
    """Give all processes the same batch-norm statistics: what is validated is what is saved.

    Each process saw other images. The network takes the mean; the average, which followed the
    first process's network, takes that one's.
    """
    for buffer in net.buffers() if ranks.world > 1 else ():
        if buffer.is_floating_point():
            buffer.copy_(ranks.mean(buffer))
    ranks.spread(iter(average.buffers()) if average else iter(()))


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
    """Return the outputs of `net` in evaluation mode, and the masks (B, 1 or 2, S, S) float32."""
    image, mask = to_float(batch["image"].to(device), batch["mask"].to(device))
    with evaluating(net), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        return net(image), mask
