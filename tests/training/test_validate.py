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
from camoxpert_nb.training.validate import Validation, average_batch_norm, preview, validate


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


class Moody(Known):
    """A network whose answers hang on its mode: dropout, and a norm that learns its statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm2d(3)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        even = torch.full((len(image), 1, 2), 0.5)
        return {**super().forward(self.drop(self.norm(image))), "gates": even}


class Set:
    """Images by position, as PairDataset gives them."""

    def __init__(self, count: int) -> None:
        masks = torch.zeros(count, 1, 16, 16)
        for index in range(count):
            masks[index, :, : 1 + index % 15, :5] = 1
        self.whole = batch(masks)

    def __len__(self) -> int:
        return len(self.whole["index"])

    def __getitem__(self, places: list[int]) -> dict[str, Tensor]:
        return {name: values[places] for name, values in self.whole.items()}


def test_a_network_is_scored_in_evaluation_mode_and_goes_on_in_its_own() -> None:
    net, images = Moody(), Set(4)
    net.drop.eval()  # as frozen parts are
    before = {name: value.clone() for name, value in net.named_buffers()}
    found = validate(net, [images.whole])
    shown = preview(net, images)  # type: ignore[arg-type]
    assert validate(net, [images.whole]) == found
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    assert net.training and net.norm.training and not net.drop.training
    expected = net.eval()(images.whole["image"] / 255)["logits"].sigmoid()
    assert shown["probability"].tolist() == (expected[:, 0] * 255).round().int().tolist()
    ious = [
        measure(one[0].detach().numpy(), mask[0].numpy()).values["iou"]
        for one, mask in zip(expected, images.whole["mask"], strict=True)
    ]
    assert found.ious == pytest.approx(ious)


def test_every_image_of_every_process_counts_once_and_in_order() -> None:
    """Three processes hold every third of 20 images, in batches of two."""
    images = Set(20)
    parts: dict[int, list[Any]] = {}

    class Rank(Ranks):
        def gather(self, value: Any) -> list[Any]:
            parts[self.rank] = value
            return [*parts.values()]

    for rank in (2, 1, 0):
        mine = list(range(20))[rank::3]
        batches = [images[mine[place : place + 2]] for place in range(0, len(mine), 2)]
        found = validate(Known(), batches, ranks=Rank(rank, 3))
    whole = validate(Known(), [images.whole])
    assert len(found.ious) == 20
    assert found.ious == pytest.approx(whole.ious) and found.loss == pytest.approx(whole.loss)
    assert found.mae == pytest.approx(whole.mae)


@pytest.mark.parametrize(("broken", "finite"), [({1}, True), ({0, 1, 2}, False)])
def test_a_network_is_lost_when_it_gives_no_number_for_any_image(
    broken: set[int], finite: bool
) -> None:
    class Broken(Known):
        def forward(self, image: Tensor) -> dict[str, Tensor]:
            logits = super().forward(image)["logits"]
            logits[list(broken)] = float("nan")
            return {"logits": logits}

    assert validate(Broken(), [Set(3).whole]).finite is finite


def test_a_loss_of_ones_own_is_told_what_counts() -> None:
    masks = torch.zeros(2, 2, 16, 16)
    masks[:, 0, :4], masks[0, 1, 8:] = 1, 1

    class Own(nn.Module):
        def forward(self, logits: Tensor, object_: Tensor, counted: Tensor) -> Tensor:
            return counted.mean((1, 2, 3)) + 10 * object_.mean((1, 2, 3))

    whole = batch(masks[:, :1]) | {"mask": masks.to(torch.uint8)}
    found = validate(WithLevels(), [whole], own=Own())
    assert found.loss == pytest.approx((0.5 + 2.5 + 1.0 + 2.5) / 2)


def test_the_images_shown_are_from_all_over_the_set() -> None:
    found = preview(Moody(), Set(34))  # type: ignore[arg-type]
    assert found["index"].tolist() == list(range(0, 34, 3))
    assert len(preview(Moody(), Set(5))["index"]) == 5  # type: ignore[arg-type]


def test_whole_numbers_are_not_averaged_over_processes() -> None:
    """How many batches a norm has seen is the same in all."""
    net, average = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    assert net.num_batches_tracked is not None and average.weight is not None
    net.num_batches_tracked.fill_(4)
    average.weight.data.fill_(0.5)
    average_batch_norm(net, average, TwoRanks(0, 2))
    assert net.num_batches_tracked == 4
    assert average.weight.tolist() == [0.5] * 3  # the weights are the same already
