from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb.settings.config import Config, make_config


@pytest.fixture(scope="module")
def pair_config(camouflage: Path, cache: Path) -> Config:
    """Settings whose network has no batch norm, so that halves of a batch do as the whole."""
    return make_config(
        "tiny",
        dataset_path=str(camouflage),
        cache_dir=str(cache),
        backbone="test_convnext",
        device="cpu",
        epochs=4,
        stage1_epochs=1,
        batch_size=4,
        val_share=0.2,  # 7 images: an odd number shows padding
    )
