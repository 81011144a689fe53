"""Exported files against the network they come from; a file that differs must not survive."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from camoxpert_nb.errors import InputError, KitError
from camoxpert_nb.network import export as module
from camoxpert_nb.network.export import eager, export, images_per_second, load_exported, to_input
from camoxpert_nb.network.model import CamoXpert

SIZE = 64
HAS_ONNX = all(importlib.util.find_spec(name) for name in module.NEEDED)
pytestmark = pytest.mark.skipif(not HAS_ONNX, reason="needs onnx packages")


@pytest.fixture(scope="module")
def net() -> CamoXpert:
    torch.manual_seed(0)
    return CamoXpert("test_resnet", width=16)


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


def test_the_file_predicts_as_the_network_does(net: CamoXpert, images: Any, tmp_path: Path) -> None:
    done = export(net, tmp_path / "new" / "net", size=SIZE, images=images)
    assert done.path.exists() and done.path.suffix == ".onnx"
    assert (done.random_images, done.real_images) == (8, 3)
    assert done.difference <= 1e-5
    assert done.megabytes == pytest.approx(done.path.stat().st_size / 1e6)
    assert "8 random and 3 real images" in done.summary()
    predict = load_exported(done.path)
    with torch.inference_mode():
        batch = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        wanted = net.eval()(batch)["logits"].sigmoid().numpy()
    found = predict(to_input(images))
    assert found.shape == (3, 1, SIZE, SIZE)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(predict(to_input(images[:1])), wanted[:1], atol=1e-5)


def test_the_network_is_left_as_it_is(net: CamoXpert, tmp_path: Path) -> None:
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    export(net, tmp_path / "net", size=SIZE)
    assert net.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_a_network_that_saves_memory_is_exported_too(tmp_path: Path) -> None:
    net = CamoXpert("test_resnet", width=16, checkpointing=True)
    assert export(net, tmp_path / "net", size=SIZE).difference <= 1e-5


def test_a_file_that_differs_is_an_error_and_is_removed(
    net: CamoXpert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = module.load_exported

    def changed(path: Path) -> Any:
        predict = loaded(path)
        return lambda batch: predict(batch) + np.float32(0.01)

    monkeypatch.setattr(module, "load_exported", changed)
    with pytest.raises(KitError, match="file was removed"):
        export(net, tmp_path / "net", size=SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((1, 32, 32, 3), np.uint8)}, r"give uint8 of \(n, 64, 64, 3\)"),
        ({"images": np.zeros((1, SIZE, SIZE, 3))}, "float64"),
    ],
)
def test_bad_arguments(
    net: CamoXpert, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        export(net, tmp_path / "net", **{"size": SIZE} | changes)


def test_missing_packages_are_named_with_the_line_that_installs_them(
    net: CamoXpert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEEDED", ("torch", "no_such_package"))
    with pytest.raises(InputError, match="pip install torch no_such_package"):
        export(net, tmp_path / "net.onnx", size=SIZE)


def test_speed_is_measured_in_turns(net: CamoXpert) -> None:
    calls: list[str] = []

    def predictor(name: str) -> Any:
        return lambda batch: calls.append(name)

    speed = images_per_second({"a": predictor("a"), "b": predictor("b")}, 32, batch=2, turns=2)
    assert calls == ["a", "b"] * 5
    assert all(value > 0 for value in speed.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert eager(net)(np.zeros((1, 3, SIZE, SIZE), np.float32)).shape == (1, 1, SIZE, SIZE)
