"""What is validated is what is saved."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camoxpert_nb.evaluation.metrics import measure
from camoxpert_nb.machine.distributed import Ranks
from camoxpert_nb.network.losses import Supervised
from camoxpert_nb.training.validate import Validation, average_batch_norm, validate


class Known(nn.Module):
    """Predicts the brightness of the first channel."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.logit(image[:, :1].clamp(0.001, 0.999))}


class WithLevels(Known):
    """The same, with what the losses ask for."""

    def forward(self, image: Tensor) -> dict[str, Any]:
        even = torch.full((len(image), 1, 2), 0.5)
        return {**super().forward(image), "deep": [], "gates": even, "router": even}


def batch(masks: Tensor, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (len(masks), 3, 16, 16), generator=generator)
    image = (0.5 * noise + 120 * masks).clamp(0, 255).to(torch.uint8)
    return {"image": image, "mask": masks.to(torch.uint8), "index": torch.arange(len(masks))}


def test_images_without_an_object_are_counted_and_left_out_as_in_evaluation() -> None:
    masks = torch.zeros(5, 1, 16, 16)
    for index, side in ((0, 4), (2, 8), (3, 12)):
        masks[index, :, :side, :side] = 1
    whole = batch(masks)
    found = validate(Known(), [whole])
    maps = torch.sigmoid(Known()(whole["image"].float() / 255)["logits"])[:, 0].numpy()
    scores = [
        measure(one, mask[0].numpy()).values
        for one, mask in zip(maps, whole["mask"], strict=True)
        if mask.any()
    ]
    assert found.empty == 2 and len(found.ious) == 3
    assert found.ious == pytest.approx([score["iou"] for score in scores])
    assert found.iou == pytest.approx(np.mean([score["iou"] for score in scores]))
    assert found.mae == pytest.approx(np.mean([score["mae"] for score in scores]), abs=1e-6)
    nothing = validate(Known(), [batch(torch.zeros(2, 1, 16, 16))])
    assert nothing == Validation(0.0, 1.0, (), 2, loss=nothing.loss)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_validation_loss_is_that_of_training(legacy: bool) -> None:
    masks = torch.zeros(4, 2, 16, 16)
    for index in range(1, 4):
        masks[index, 0, : 3 * index, : 3 * index] = 1
    masks[3, 1, -3:] = 1  # counts nowhere
    whole = batch(masks[:, :1])
    whole["mask"] = masks.to(torch.uint8)
    net = WithLevels()
    trained = Supervised(net, legacy=legacy)(whole["image"].float() / 255, masks)["structure"]
    found = validate(net, [whole], legacy=legacy)
    assert found.loss == pytest.approx(trained.mean().item())
    assert found.empty == 1  # which counts in the loss, as in training
    assert math.isnan(validate(net, []).loss)


def test_scores_come_in_the_order_of_the_set_whoever_computed_them() -> None:
    masks = torch.zeros(4, 1, 16, 16)
    for index in range(4):
        masks[index, :, : 3 + index] = 1
    whole = batch(masks)
    order = [2, 0, 3, 1]
    mixed = [{key: value[[index]] for key, value in whole.items()} for index in order]
    assert validate(Known(), mixed).ious == validate(Known(), [whole]).ious


class TwoRanks(Ranks):
    """The first of two processes, whose partner has the same tensors plus one."""

    def total(self, values: Tensor) -> Tensor:
        return values + (values + 1)

    def spread(self, tensors: Any) -> None:
        for tensor in tensors:
            tensor.fill_(7)


def test_statistics_are_shared_before_validation() -> None:
    net, average = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    average_batch_norm(net, average, TwoRanks(0, 2))
    assert net.running_mean is not None and net.running_var is not None
    assert net.running_mean.tolist() == [0.5] * 3 and net.running_var.tolist() == [1.5] * 3
    assert average.running_mean is not None and average.running_mean.tolist() == [7] * 3
