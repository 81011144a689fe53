from __future__ import annotations

import os
from pathlib import Path

import pytest

from camoxpert_nb.outside.weights import find_weights, hub_cache


def test_the_path_that_says_least_besides_the_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "/in/edgenext_small_rw.pth",
        "/in/EdgeNeXt-Small.pth",
        "/in/timm/edgenext-base/1/m.bin",
    ]
    monkeypatch.setenv("CAMOXPERT_WEIGHTS", os.pathsep.join(names))
    assert find_weights("edgenext_small") == names[1]
    assert find_weights("edgenext_base") == names[2]
    assert find_weights("resnet50") == ""


def test_the_cache_of_the_hub_is_read_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    file = (
        tmp_path / "hub" / "models--timm--resnet50d.ra2" / "snapshots" / "0" / "model.safetensors"
    )
    file.parent.mkdir(parents=True)
    file.touch()
    assert hub_cache("resnet50") == "" and hub_cache("resnet50d") == str(file)
