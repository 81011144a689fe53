"""What a prediction holds besides its map: by hand, with a network that says what it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.predict import Kept, Prediction, Predictor, Views, predict_folder


class Says(nn.Module):
    """Logits that grow to the right, and gates that tell how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, image: Tensor) -> dict[str, Any]:
        self.asked += 1
        across = torch.linspace(-2, 2, image.shape[-1]).expand(len(image), 1, image.shape[-2], -1)
        gates = torch.full((len(image), 2, 3), float(self.asked))
        return {"logits": across, "gates": gates, "cells": [gates[..., None]], "deep": [across]}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "wide.png"
    path.parent.mkdir()
    Image.fromarray(np.full((20, 50, 3), 90, np.uint8)).save(path)
    return path


def test_a_photo_is_answered_at_its_own_size_and_told_how_sure_it_is(photo: Path) -> None:
    (found,) = Predictor(Says(), 32, "cpu").predict([photo])
    assert found.probability.shape == (20, 50)
    assert found.probability[:, 0].max() < 0.5 < found.probability[:, -1].min()
    p = torch.linspace(-2, 2, 32).sigmoid()
    assert found.uncertainty == pytest.approx(float((p * (1 - p)).sum() / p.sum()), rel=1e-5)


def test_of_several_views_the_logits_are_averaged_and_the_rest_is_of_the_first(photo: Path) -> None:
    """Mirrored back, what grows to the right falls: the mean is nought, and so one half."""
    (found,) = Predictor(Says(), 32, "cpu").predict([photo], Views(flip=True, scales=(1.0, 2.0)))
    assert found.gates.tolist() == [[1.0] * 3] * 2 and found.cells[0].max() == 1.0
    np.testing.assert_allclose(found.probability, 0.5, atol=1e-6)
    assert found.uncertainty == pytest.approx(0.5)  # p (1 - p) / p
    assert [tuple(each.shape) for each in found.deep] == [(1, 32, 32)]


def test_scaled_sides_are_multiples_of_32_but_for_the_networks_own() -> None:
    assert Views(scales=(1.0, 1.25, 0.5, 0.26)).sides(100) == (100, 128, 64, 32)
    assert Views(scales=(1.5,)).sides(352) == (512,)  # 528 is 16.5 times 32, rounded to even


def test_levels_are_shown_from_the_coarsest_on() -> None:
    """Each map is stretched to the prediction's own size."""
    deep = [torch.full((1, 6 * n, 4 * n), float(logit)) for n, logit in ((4, -9), (2, 0), (1, 9))]
    even = np.full((30, 20), 0.25, np.float32)
    kept = Prediction("x", even, 0.0, np.empty((0, 0), np.float32), [], deep).kept()
    levels = kept.levels()
    assert [*levels] == [
        "stride 32, 4 x 6 places",
        "stride 16, 8 x 12 places",
        "stride 8, 16 x 24 places",
        "stride 4, the prediction",
    ]
    assert [int(each.max()) for each in levels.values()] == [255, 128, 0, 64]  # 127.5, 63.75
    assert all(each.shape == (30, 20) for each in levels.values())
    assert isinstance(kept, Kept)


def test_progress_counts_what_can_be_read(photo: Path, tmp_path: Path) -> None:
    for number in range(3):
        (photo.parent / f"{number}.png").write_bytes(b"no picture")
    told: list[tuple[int, int]] = []
    unread: dict[Path, str] = {}
    how: dict[str, Any] = {"progress": lambda *now: told.append(now), "unread": unread}
    assert predict_folder(Predictor(Says(), 32, "cpu"), photo.parent, tmp_path / "out", **how) == 1
    assert told[-1] == (1, 1) and len(unread) == 3
    with pytest.raises(InputError):
        predict_folder(Predictor(Says(), 32, "cpu"), photo.parent, tmp_path / "other")
