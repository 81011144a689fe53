"""Real photos and real weights, where they are at hand: CAMOXPERT_SHARED names their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from camoxpert_nb.data.audit import audit
from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.settings.config import make_config
from camoxpert_nb.training.fit import fit

SHARED = os.environ.get("CAMOXPERT_SHARED", "")
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED, reason="CAMOXPERT_SHARED names no folder of photos and weights"),
]


def test_the_photos_are_found_and_clean() -> None:
    found = audit(find_datasets(Path(SHARED) / "data" / "CAMO-Train"))
    assert sum(split.pairs for split in found.splits) == 996
    assert found.count("stop") == 0


def test_real_weights_on_real_photos_learn_in_one_epoch(tmp_path: Path) -> None:
    """At 96 px and in one epoch the network finds more than a quarter of the mean object."""
    config = make_config(
        "single-gpu",
        dataset_path=str(Path(SHARED) / "data" / "CAMO-Train"),
        weights=str(Path(SHARED) / "weights" / "tf_efficientnet_lite0.pth"),
        backbone="tf_efficientnet_lite0",
        img_size=96,
        epochs=1,
        stage1_epochs=0,
        warmup_epochs=0,
        progressive_unfreeze=False,
        lr=5e-4,
        cache_dir=str(tmp_path / "cache"),
        checkpoint_dir=str(tmp_path / "run"),
        device="cpu",
    )
    summary = fit(config).load_json("summary")
    assert summary["weights_source"] == "file tf_efficientnet_lite0.pth"
    assert summary["data"]["train"] + summary["data"]["validation"] == 996
    assert summary["best"]["iou"] > 0.25
