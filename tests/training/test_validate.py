"""What is validated is what is saved, and the best epoch is chosen above the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camoxpert_nb.evaluation.metrics import measure
from camoxpert_nb.machine.distributed import Ranks
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.validate import (
    Validation,
    choose_weights,
    is_as_good,
    share_statistics,
    update_best,
    validate,
)


class Known(nn.Module):
    """Predicts the brightness of the first channel."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.logit(image[:, :1].clamp(0.001, 0.999))}


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
    assert nothing == Validation(0.0, 1.0, (), 2)


def test_scores_come_in_the_order_of_the_set_whoever_computed_them() -> None:
    masks = torch.zeros(4, 1, 16, 16)
    for index in range(4):
        masks[index, :, : 3 + index] = 1
    whole = batch(masks)
    order = [2, 0, 3, 1]
    mixed = [{key: value[[index]] for key, value in whole.items()} for index in order]
    assert validate(Known(), mixed).ious == validate(Known(), [whole]).ious


def scored(*ious: float) -> Validation:
    return Validation(float(np.mean(ious)), 0.1, ious, 0)


LOW, HIGH = scored(0.2, 0.3, 0.4, 0.5), scored(0.5, 0.6, 0.7, 0.8)


def test_an_epoch_is_as_good_within_the_paired_error_of_the_mean() -> None:
    """Differences of .02, -.01, .03, -.02: mean .005, standard error .0119."""
    assert is_as_good((0.50, 0.50, 0.50, 0.50), (0.52, 0.49, 0.53, 0.48))
    assert not is_as_good((0.50, 0.50, 0.50, 0.50), (0.52, 0.53, 0.53, 0.52))
    assert is_as_good((0.5,), (0.5,)) and not is_as_good((0.4,), (0.5,))
    assert is_as_good((), ())


def test_a_later_epoch_is_taken_unless_an_earlier_one_was_better_by_more_than_chance() -> None:
    best, taken = update_best({}, 1, "raw", LOW)
    assert taken and (best["epoch"], best["highest"]["epoch"]) == (1, 1)
    best, taken = update_best(best, 2, "ema", HIGH)
    assert taken and (best["epoch"], best["weights"]) == (2, "ema")
    near = scored(0.55, 0.55, 0.72, 0.76)
    best, taken = update_best(best, 3, "raw", near)
    assert taken and best["epoch"] == 3
    assert best["highest"] == {"epoch": 2, "iou": HIGH.iou}
    best, taken = update_best(best, 4, "raw", LOW)
    assert not taken and (best["epoch"], best["highest"]["epoch"]) == (3, 2)
    best, taken = update_best(best, 5, "raw", LOW, keep="last")
    assert taken and best["epoch"] == 5


def test_small_steps_down_do_not_add_up() -> None:
    """Each epoch is within the error of the one before, but not of the highest."""
    best: dict[str, Any] = {}
    kept = []
    for epoch in range(1, 12):
        drop = 0.01 * (epoch - 1)
        wobble = [0.02 * (-1) ** (index + epoch) for index in range(6)]
        ious = [0.7 - drop + each for each in wobble]
        best, taken = update_best(best, epoch, "raw", scored(*ious))
        kept += [epoch] * taken
    assert kept[0] == 1 and kept[-1] < 6


def test_the_best_of_an_older_kit_is_a_mean_to_beat() -> None:
    old = {"epoch": 4, "iou": 0.6, "weights": "raw"}
    assert update_best(old, 5, "raw", LOW) == (old, False)
    best, taken = update_best(old, 6, "raw", HIGH)
    assert taken and best["epoch"] == 6


def test_the_average_is_taken_unless_the_raw_weights_are_better_by_more_than_chance() -> None:
    assert choose_weights({"raw": HIGH}) == "raw"
    assert choose_weights({"raw": HIGH, "ema": scored(0.5, 0.61, 0.7, 0.78)}) == "ema"
    assert choose_weights({"raw": HIGH, "ema": LOW}) == "raw"


class TwoRanks(Ranks):
    """The first of two processes, whose partner has the same tensors plus one."""

    def total(self, values: Tensor) -> Tensor:
        return values + (values + 1)

    def spread(self, tensors: Any) -> None:
        for tensor in tensors:
            tensor.fill_(7)


def test_statistics_are_shared_before_validation() -> None:
    net, average = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    share_statistics(net, average, TwoRanks(0, 2))
    assert net.running_mean is not None and net.running_var is not None
    assert net.running_mean.tolist() == [0.5] * 3 and net.running_var.tolist() == [1.5] * 3
    assert average.running_mean is not None and average.running_mean.tolist() == [7] * 3


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_run_says_what_it_kept(tiny: Config, keep: str) -> None:
    run = fit(tiny.replace(epochs=3, keep=keep))
    best, records = run.load_json("summary")["best"], run.records("epoch")
    assert best["epoch"] == [record["epoch"] for record in records if record["best"]][-1]
    assert run.load("best")["epoch"] == best["epoch"]
    if keep == "last":
        assert best["epoch"] == 3
    highest = max(max(r["iou"], r["iou_ema"]) for r in records)
    assert best["highest"]["iou"] <= highest + 1e-9
