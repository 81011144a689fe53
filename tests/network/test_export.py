"""Exported files against the network they come from; a file that differs must not survive."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
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
    return CamoXpert("test_resnet", width=16, checkpointing=True).train()


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


def test_the_file_predicts_as_the_network_does_which_is_left_as_it_is(
    net: CamoXpert, images: Any, tmp_path: Path
) -> None:
    """In training, and where it saves memory, it is harder than elsewhere."""
    before = {key: value.clone() for key, value in net.state_dict().items()}
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    for name in names:
        logging.getLogger(name).setLevel(logging.NOTSET)
    done = export(net, tmp_path / "net", size=SIZE, images=images)
    assert all(part.training for part in net.modules())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert [*tmp_path.iterdir()] == [tmp_path / "net.onnx"]  # weights are inside
    assert done.difference <= 1e-5
    assert {logging.getLogger(name).level for name in names} == {logging.ERROR}
    session = importlib.import_module("onnxruntime").InferenceSession(str(done.path))
    (into,), (out,) = session.get_inputs(), session.get_outputs()
    assert (into.name, into.shape) == ("image", ["batch", 3, SIZE, SIZE])
    assert (out.name, out.shape) == ("probability", ["batch", 1, SIZE, SIZE])
    predict = load_exported(done.path)
    with torch.inference_mode():
        batch = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        wanted = copy.deepcopy(net).eval()(batch)["logits"].sigmoid().numpy()
    found = predict(to_input(images))
    assert found.shape == (3, 1, SIZE, SIZE)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(predict(to_input(images[:1])), wanted[:1], atol=1e-5)


# ---- without the slow packages: what is written, tested and told ---------------------------------


class Doubles(torch.nn.Module):
    """A network whose logits are twice the green channel; odd ones have dropout and weights."""

    def __init__(self) -> None:
        super().__init__()
        self.odd = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(1))

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": 2 * self.odd[0](image[:, 1:2]) + 0 * self.odd[1].weight}


def expected_of(batch: Any) -> Any:
    return 1 / (1 + np.exp(-2 * batch[:, 1:2].astype(np.float64)))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What an exported file was asked; it answers 1/64 more than it should for three images."""
    asked: list[Any] = []

    def load(path: Path) -> Any:
        assert path.read_bytes() == b"x" * 2500

        def predict(batch: Any) -> Any:
            asked.append(batch)
            own = eager(Doubles())(batch)
            place = len(asked) == 5
            return own + np.float32(place / 64) * np.sign(0.5 - own)

        return predict

    monkeypatch.setattr(module, "_write", lambda net, image, path: path.write_bytes(b"x" * 2500))
    monkeypatch.setattr(module, "load_exported", load)
    return asked


def test_a_file_is_tried_with_three_batches_and_each_real_image(
    seen: list[Any], tmp_path: Path
) -> None:
    """Of all the farthest counts, to either side; a difference as large as allowed is allowed."""
    images = np.random.default_rng(3).integers(0, 256, (3, 8, 8, 3), np.uint8)
    path = tmp_path / "new" / "deeper" / "net"
    done = export(Doubles(), path, size=8, images=images, tolerance=0.5)
    assert [batch.shape for batch in seen] == [
        *[(1, 3, 8, 8), (2, 3, 8, 8), (5, 3, 8, 8)],
        *[(1, 3, 8, 8)] * 3,
    ]
    assert all(batch.dtype == np.float32 for batch in seen)
    assert all(0 <= batch.min() < 0.2 and 0.8 < batch.max() <= 1 for batch in seen)
    for place, image in enumerate(images):
        np.testing.assert_allclose(seen[3 + place][0], image.transpose(2, 0, 1) / 255, 1e-6)
    assert done == module.Exported(path.with_suffix(".onnx"), 8, 0.0025, done.difference, 0.5, 8, 3)
    assert done.difference == pytest.approx(1 / 64, abs=1e-6)
    first, again = [*seen], export(Doubles(), path, size=8, tolerance=done.difference)
    assert again.real_images == 0 and again.difference < done.difference
    for one, other in zip(first[:3], seen[6:], strict=True):
        assert np.array_equal(one, other)  # the same random images each time
    seen.clear()
    assert export(Doubles(), path, size=8, images=images, tolerance=done.difference) == (
        dataclasses.replace(done, tolerance=done.difference)
    )


@pytest.mark.parametrize("wrong", [1 / 64, float("nan")])
def test_what_differs_is_refused_with_what_to_update(
    seen: list[Any], wrong: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = module.load_exported
    monkeypatch.setattr(
        module, "load_exported", lambda path: lambda batch: loaded(path)(batch) - wrong
    )
    with pytest.raises(KitError) as caught:
        export(Doubles(), tmp_path / "net", size=8)
    said = "1.6e-02" if wrong == 1 / 64 else "nan"
    assert str(caught.value) == (
        f"The exported network differs by {said} from the original, more than 1e-04: the file was "
        "removed. Update onnx, onnxruntime and onnxscript."
    )
    assert not [*tmp_path.iterdir()]


def test_what_was_exported_is_told_in_three_lines() -> None:
    done = module.Exported(Path("a/net.onnx"), 96, 12.345, 2.34e-6, 1e-4, 8, 3)
    assert done.summary() == (
        "a/net.onnx (ONNX, 12.3 MB)\n"
        "  in: image (B, 3, 96, 96), RGB, 0...1, any B; out: probability (B, 1, 96, 96)\n"
        "  probabilities differ from the network's by at most 2.3e-06 (allowed 1e-04) on 8 random "
        "and 3 real images"
    )


def test_real_images_of_another_kind_are_named_as_they_are(tmp_path: Path) -> None:
    for kind, shape in ((np.uint8, (1, 8, 4, 3)), (np.float32, (2, 8, 8, 3))):
        with pytest.raises(InputError) as caught:
            export(Doubles(), tmp_path / "net", size=8, images=np.zeros(shape, kind))
        assert str(caught.value) == (
            f"The real images are {np.dtype(kind)} of shape {shape}; give uint8 of (n, 8, 8, 3), "
            "as resize_image makes them."
        )


def test_all_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEEDED", ("no_one", "torch", "no_other"))
    for needs in (lambda: export(Doubles(), "net", size=8), lambda: load_exported("net.onnx")):
        with pytest.raises(InputError) as caught:
            needs()
        assert str(caught.value) == (
            "ONNX needs no_one, no_other. Install with `pip install no_one torch no_other`."
        )


def test_the_network_itself_predicts_in_float32_and_is_not_changed() -> None:
    """In evaluation mode: with dropout half of the pixels would be one half."""
    net = Doubles().double().train()
    batch = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    found = eager(net)(batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected_of(batch), rtol=1e-6)
    assert all(part.training for part in net.modules())
    assert all(weight.dtype == torch.float64 for weight in net.parameters())


def test_photos_become_channels_of_0_to_1() -> None:
    photos = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    found = to_input(photos)
    assert found.shape == (2, 3, 2, 3) and found.dtype == np.float32
    assert found.flags["C_CONTIGUOUS"]
    first = [[[0, 3, 6], [9, 12, 15]], [[1, 4, 7], [10, 13, 16]], [[2, 5, 8], [11, 14, 17]]]
    np.testing.assert_allclose(found[0], np.array(first) / 255, rtol=1e-6)


def test_speed_is_the_median_of_the_turns_behind_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4, 1 and 10 seconds for two images the median is 4: half an image in a second."""
    now, shapes = [0.0], []
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def taking(*seconds: float) -> Any:
        left = iter(seconds)

        def predict(batch: Any) -> None:
            shapes.append((batch.shape, batch.dtype))
            now[0] += next(left)

        return predict

    ways = {"a": taking(99, 99, 99, 4, 1, 10), "b": taking(0, 0, 0, 5, 5, 5)}
    assert images_per_second(ways, 32, batch=2, turns=3) == {"a": 0.5, "b": 0.4}
    assert {*shapes} == {((2, 3, 32, 32), np.dtype(np.float32))} and len(shapes) == 12
    shapes.clear()
    assert images_per_second({"c": taking(*[2] * 13)}, 16) == {"c": 0.5}
    assert shapes == [((1, 3, 16, 16), np.dtype(np.float32))] * 13


def test_a_file_is_opened_for_the_cpu_with_torchs_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    class Session:
        def __init__(self, path: str, options: Any, providers: list[str]) -> None:
            opened.append((path, options.intra_op_num_threads, providers))

        def run(self, outputs: Any, inputs: dict[str, Any]) -> list[Any]:
            assert outputs is None and [*inputs] == ["image"]
            return [inputs["image"] + 1, "more"]

    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=Session)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(module, "_require_onnx", lambda: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert load_exported(Path("a") / "b.onnx")(np.ones(2)).tolist() == [2, 2]
    assert opened == [("a/b.onnx", 3, ["CPUExecutionProvider"])]
