"""What an epoch's weights are worth: which are chosen, what is recorded, what is shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from camoxpert_nb.machine.devices import bare
from camoxpert_nb.machine.distributed import Ranks
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import score as module
from camoxpert_nb.training.prepare import Training, prepare
from camoxpert_nb.training.score import Judged, judge, nets_of, save_preview
from camoxpert_nb.training.validate import Validation

RAW = Validation(0.6, 0.11, (0.5, 0.7), 3, finite=False, loss=1.5)
GOOD = Validation(0.61, 0.12, (0.51, 0.71), 4, finite=True, loss=1.6)
POOR = Validation(0.3, 0.13, (0.2, 0.4), 5, finite=True, loss=1.7)


@pytest.fixture
def training(tiny: Config) -> Training:
    found = prepare(tiny.replace(legacy_loss=True))
    found.ranks = Ranks(1, 3)
    found.precision = SimpleNamespace(dtype=torch.bfloat16)  # type: ignore[assignment]
    return found


class Shown:
    """Loaders whose batches are their size, and the images that are shown."""

    validation_set = "the set"

    def validation(self, batch: int) -> str:
        return f"batches of {batch}"


def judged(
    training: Training, monkeypatch: pytest.MonkeyPatch, average: Validation | None
) -> tuple[Judged, list[Any]]:
    asked: list[Any] = []
    nets = nets_of(training)

    def validate(net: Any, batches: Any, **how: Any) -> Validation | None:
        asked.append((net, batches, how))
        return RAW if net is nets["raw"] else average

    monkeypatch.setattr(module, "validate", validate)
    return judge(training, Shown(), 7), asked  # type: ignore[arg-type]


def test_both_weights_are_scored_alike(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    training.state.ranks = training.ranks
    bare(training.state.supervised).own = own = torch.nn.Identity()
    _, asked = judged(training, monkeypatch, GOOD)
    assert training.state.ema is not None
    assert [net for net, *_ in asked] == [training.state.net, training.state.ema.module]
    for _, batches, how in asked:
        assert batches == "batches of 7"
        assert how == {
            "ranks": training.ranks,
            "legacy": True,
            "own": own,
            "dtype": torch.bfloat16,
            "device": torch.device("cpu"),
        }


def test_the_better_weights_are_judged_and_both_are_recorded(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    average = nets_of(training)["ema"]
    found, _ = judged(training, monkeypatch, GOOD)
    record = {"iou": 0.6, "iou_ema": 0.61, "mae": 0.12, "val_loss": 1.6, "empty_masks": 4}
    assert found == Judged("ema", average, GOOD, record, finite=False)
    found, _ = judged(training, monkeypatch, POOR)
    record = {"iou": 0.6, "iou_ema": 0.3, "mae": 0.11, "val_loss": 1.5, "empty_masks": 3}
    assert found == Judged("raw", training.state.net, RAW, record, finite=False)
    training.state.ema = None
    found, _ = judged(training, monkeypatch, None)
    assert found == Judged("raw", training.state.net, RAW, record | {"iou_ema": None}, finite=False)


def test_the_same_images_are_shown_with_their_names(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    kept: list[Any] = []

    def preview(net: Any, images: Any, **how: Any) -> dict[str, Any]:
        asked.append((net, images, how))
        return {"index": np.array([2, 0]), "mask": "masks"}

    monkeypatch.setattr(module, "preview", preview)
    run = SimpleNamespace(save_preview=kept.append)
    net = torch.nn.Identity()
    save_preview(training, Shown(), run, net)  # type: ignore[arg-type]
    how = {"dtype": torch.bfloat16, "device": torch.device("cpu")}
    assert asked == [(net, "the set", how)]
    names = [pair.name for pair in training.data.validation]
    assert kept == [{"mask": "masks", "names": [names[2], names[0]]}]
