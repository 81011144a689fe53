"""What a checkpoint says of its settings and weights, as they were."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from camoxpert_nb.errors import InputError
from camoxpert_nb.runs.checkpoint import (
    bare_keys,
    load_checkpoint,
    refuse_swollen,
    settings_of,
    why_unreadable,
)
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


HELP = "Give a run's best.pt or last.pt, or copy it again."


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "it is empty (0 bytes); its copy was probably cut short: copy it again"),
        (b"\x80\x04nothing known", "it is a pickle that holds more than tensors and plain values"),
        (b"PK\x03\x04 and no more", "it is damaged or cut short ("),
        (b"\x93NUMPY odd", "it is neither text nor a file known here. "),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_what_it_is(
    tmp_path: Path, content: bytes, found: str
) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_checkpoint(path)
    said = str(error.value)
    assert said.startswith(f"{path}: cannot be read as a checkpoint: ") and said.endswith(HELP)
    assert found in said


def test_other_archives_and_values_are_named(tmp_path: Path) -> None:
    numbers, plain, missing = (tmp_path / name for name in ("x.npz", "list.pt", "none.pt"))
    np.savez(numbers, x=np.ones(3))
    with pytest.raises(InputError, match=r"it is an archive of NumPy \(\.npz\), not of PyTorch\. "):
        load_checkpoint(numbers)
    torch.save([1, 2], plain)
    with pytest.raises(InputError) as error:
        load_checkpoint(plain)
    assert str(error.value) == f"{plain}: holds a list, not a checkpoint."
    with pytest.raises(InputError) as error:
        load_checkpoint(missing)
    assert str(error.value) == (
        f"{missing}: no such checkpoint. Give a run folder that holds none.pt."
    )
    with pytest.raises(InputError) as error:
        load_checkpoint(tmp_path)
    assert str(error.value) == f"{tmp_path}: cannot be read (Is a directory)."


def test_why_a_file_cannot_be_read_leaves_out_advice_to_trust_it() -> None:
    pickle, more = b"\x80\x02rest", "it is a pickle that holds more than tensors"
    assert why_unreadable(pickle, ValueError("Set Weights_Only=False")).startswith(more)
    assert why_unreadable(pickle, ValueError("Unsupported global x")).startswith(more)
    cut = why_unreadable(b"PK\3\4rest", EOFError())
    assert cut == "it is damaged or cut short (EOFError)"
    assert why_unreadable(b"PK\3\4 x.npy", EOFError("a\nb")) == (
        "it is an archive of NumPy (.npz), not of PyTorch"
    )
    assert why_unreadable(b"\x80 x.npy", EOFError("a\nb")) == "it is damaged or cut short (a)"
    odd = bytes(range(200, 256))
    assert why_unreadable(odd, ValueError("a bad byte")).endswith("(a bad byte)")
    assert "weights_only" not in why_unreadable(odd, ValueError("set weights_only=False"))


def test_settings_of_another_kit_are_refused_with_the_file() -> None:
    values = Config().as_dict()
    with pytest.raises(InputError, match=r"^x\.pt: .*no_such_thing"):
        settings_of({"config": {**values, "no_such_thing": 1}, "net": {}}, Path("x.pt"))
    with pytest.raises(InputError) as error:
        settings_of({"config": [], "net": {}}, Path("x.pt"))
    assert str(error.value) == (
        "x.pt: holds no settings beside its weights, so it is no checkpoint of this kit. Give a "
        "run's best.pt or last.pt; to start from other weights, use --init-from."
    )


def test_an_archive_as_large_as_its_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", b"0" * 1000)
    refuse_swollen(path)
    path.write_bytes(b"no archive")
    refuse_swollen(path)
