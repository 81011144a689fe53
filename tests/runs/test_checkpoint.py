"""What a checkpoint says of its settings and weights, as they were."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from camoxpert_nb.errors import InputError
from camoxpert_nb.runs.checkpoint import bare_keys, load_checkpoint, refuse_swollen, settings_of
from camoxpert_nb.settings.config import Config, make_config


def test_settings_come_back_also_those_that_are_off_or_none() -> None:
    config = make_config("tiny", use_ema=False, amp=False, patience=0, clip=0.5)
    config = config.replace(stage1_epochs=0, val_share=0.25, stage2_lr=None, lr=None)
    found = settings_of({"config": config.as_dict(), "net": {}}, Path("x.pt"))
    assert found == config and found.lr is None and found.use_ema is False
    with pytest.raises(InputError, match=r"x\.pt: holds no settings beside its weights"):
        settings_of({"config": Config().as_dict()}, Path("x.pt"))
    with pytest.raises(InputError, match=r"x\.pt: holds no settings"):
        settings_of({"net": {}}, Path("x.pt"))


def test_only_what_a_wrapper_put_before_every_key_is_taken_away() -> None:
    assert bare_keys({"module.a": 1, "module.b.module.c": 2}) == {"a": 1, "b.module.c": 2}
    mixed = {"module.a": 1, "b": 2}
    assert bare_keys(mixed) == mixed and bare_keys({}) == {}


def test_an_archive_that_swells_is_refused_and_one_of_pytorch_is_not(tmp_path: Path) -> None:
    path = tmp_path / "big.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", b"0" * 100_000)
    with pytest.raises(ValueError, match="would swell to 100000"):
        refuse_swollen(path)
    with pytest.raises(InputError, match=r"big\.pt: cannot be read"):
        load_checkpoint(path)
    torch.save({"net": torch.zeros(50_000)}, tmp_path / "own.pt")
    assert load_checkpoint(tmp_path / "own.pt")["net"].shape == (50_000,)
