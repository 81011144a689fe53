"""A network as one file that runs without this package: ONNX.

The file takes photos (B, 3, S, S) of 0...1, any B, and gives probabilities (B, 1, S, S): the colour
statistics and the sigmoid are inside. It is compared with the network before it is handed over.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import InputError, KitError
from ..outside.paths import given, with_ending

NEEDED = ("onnx", "onnxruntime", "onnxscript")
BATCHES = (1, 2, 5)  # of random images: the batch must be free

Floats = NDArray[np.float32]
Predict = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Exported:
    """A file and how far its probabilities are from the network's, at most, on how many images."""

    path: Path
    size: int
    megabytes: float
    difference: float
    tolerance: float
    random_images: int
    real_images: int

    def summary(self) -> str:
        """Return what was written and how it was tested, as a few lines of text."""
        return (
            f"{self.path} (ONNX, {self.megabytes:.1f} MB)\n"
            f"  in: image (B, 3, {self.size}, {self.size}), RGB, 0...1, any B; "
            f"out: probability (B, 1, {self.size}, {self.size})\n"
            f"  probabilities differ from the network's by at most {self.difference:.1e} "
            f"(allowed {self.tolerance:.0e}) on {self.random_images} random and "
            f"{self.real_images} real images"
        )


def export(
    net: nn.Module,
    path: Path | str,
    *,
    size: int,
    images: NDArray[np.uint8] | None = None,
    tolerance: float = 1e-4,
) -> Exported:
    """Write `net` to `path` for images of `size`, test the file, and return what came of it.

    net: (B, 3, S, S) of 0...1 to {"logits": (B, 1, S, S)}; it is left as it is. images: real ones,
    (n, S, S, 3) uint8, to test with. Raises InputError when a package is missing or the arguments
    do not fit, and KitError when the file's probabilities differ by more than `tolerance`.
    """
    real = np.empty((0, size, size, 3), np.uint8) if images is None else images
    _check(size, real)
    path, plain = with_ending(given(path), ".onnx"), _plain(net)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing and its future: the file is tested instead
        _write(plain, torch.rand(2, 3, size, size), path)
    rng = np.random.default_rng(0)
    batches = [rng.random((count, 3, size, size), np.float32) for count in BATCHES]
    batches += [to_input(real[first : first + 1]) for first in range(len(real))]
    own, other = eager(net), load_exported(path)
    difference = max(float(np.abs(own(batch) - other(batch)).max()) for batch in batches)
    if not difference <= tolerance:  # also refuses NaN
        path.unlink()
        raise KitError(
            f"The exported network differs by {difference:.1e} from the original, more than "
            f"{tolerance:.0e}: the file was removed. Update onnx, onnxruntime and onnxscript."
        )
    megabytes = path.stat().st_size / 1e6
    return Exported(path, size, megabytes, difference, tolerance, sum(BATCHES), len(real))


def load_exported(path: Path | str) -> Predict:
    """Return an exported file as a function of (B, 3, S, S) float32, computed on the CPU."""
    _require_onnx()
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"image": batch})[0]


def eager(net: nn.Module) -> Predict:
    """Return the network itself, on the CPU, as a function like that of `load_exported`."""
    module = _plain(net)

    def predict(batch: Floats) -> Floats:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(batch)))

    return predict


def to_input(images: NDArray[np.uint8]) -> Floats:
    """Turn photos (n, S, S, 3) uint8 into the exported network's input."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def images_per_second(
    predictors: dict[str, Predict], size: int, *, batch: int = 1, turns: int = 10
) -> dict[str, float]:
    """Return the CPU speed of each, taken in turns so that a busy machine slows all alike."""
    image = np.random.default_rng(0).random((batch, 3, size, size), np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    for turn in range(turns + 3):
        for name, predict in predictors.items():
            started = time.perf_counter()
            predict(image)
            if turn > 2:  # the first turns compile and warm up
                seconds[name].append(time.perf_counter() - started)
    return {name: batch / float(np.median(taken)) for name, taken in seconds.items()}


class _Probability(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)["logits"].sigmoid()


def _plain(net: nn.Module) -> nn.Module:
    return _Probability(copy.deepcopy(net)).cpu().float().eval()


def _write(module: nn.Module, image: Tensor, path: Path) -> None:
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they report each step on the console
    torch.onnx.export(
        module,
        (image,),
        str(path),
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=["image"],
        output_names=["probability"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )


def _check(size: int, images: NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
        raise InputError(
            f"The real images are {images.dtype} of shape {images.shape}; give uint8 of "
            f"(n, {size}, {size}, 3), as resize_image makes them."
        )
    _require_onnx()


def _require_onnx() -> None:
    missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
    if missing:
        raise InputError(
            f"ONNX needs {', '.join(missing)}. Install with `pip install {' '.join(NEEDED)}`."
        )
