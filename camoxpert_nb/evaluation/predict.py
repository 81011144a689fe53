"""From images to maps at their own size: a network on files, with test-time augmentation.

The field's protocol: the photo is squashed to the network's square, the logits are stretched to
the mask's own size. Files are read and written in threads beside the network: Pillow, OpenCV and
NumPy let go of Python's lock.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..data.cache import Progress
from ..data.images import Array, image_size, read_image, resize_image, write_map
from ..data.layouts import SUFFIXES, Pair
from ..errors import InputError
from ..network.build import evaluating

_AHEAD = 16  # images read or maps scored beyond the one in turn: bounds the memory


Item = TypeVar("Item")


Result = TypeVar("Result")


class Prediction(NamedTuple):
    """A map: name (the image's stem) and probability (H, W) float32 of 0...1."""

    name: str
    probability: NDArray[np.float32]


class Views(NamedTuple):
    """Test-time augmentation: the image is also looked at mirrored, and at multiples of its size.

    The logits of all views are stretched to the network's own size and averaged. Scaled sides are
    rounded to multiples of 32, as backbones need.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    def sides(self, size: int) -> tuple[int, ...]:
        """Return the side in pixels at each scale; InputError for scales that cannot work."""
        if not self.scales or not all(0.25 <= scale <= 4 for scale in self.scales):
            raise InputError(f"Scales {self.scales}: give one or more of 0.25 to 4, as 1 1.25.")
        return tuple(
            size if scale == 1 else max(round(size * scale / 32), 1) * 32 for scale in self.scales
        )

    def describe(self) -> str:
        """Return the views in words."""
        words = ["as it is", *(["mirrored"] if self.flip else [])]
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return " and ".join(words) + (f" at scales {scales}" if self.scales != (1.0,) else "")


PLAIN = Views()


def predict(
    net: nn.Module,
    images: Iterable[Pair | Path],
    *,
    size: int,
    device: torch.device | str,
    batch_size: int = 8,
    dtype: torch.dtype | None = None,
    views: Views = PLAIN,
    seconds: list[float] | None = None,
) -> Iterator[Prediction]:
    """Yield the map of each image, in order, at its own size (of a Pair: the mask's size).

    net: on `device`, (B, 3, size, size) of 0...1 to {"logits": (B, 1, size, size)}. It computes in
    eval mode, and has its own mode again whenever it is not computing. dtype: autocast's, None =
    off. views: see `Views`. seconds: takes the network's seconds per image of each batch.
    Raises InputError for an unreadable file, and for a map with NaN.
    """
    load = partial(_load, sides=views.sides(size))
    loaded = _in_order(load, images, workers=min(4, _cores()))
    while batch := list(islice(loaded, batch_size)):
        names, squares, sizes = zip(*batch, strict=True)
        started = time.perf_counter()
        layers = [np.stack(side) for side in zip(*squares, strict=True)]
        maps = _look(net, layers, size, torch.device(device), dtype, views.flip)
        if seconds is not None:
            seconds.append((time.perf_counter() - started) / len(batch))
        for name, square, own in zip(names, maps, sizes, strict=True):
            yield Prediction(name, _at_size(name, square, own))


def predict_folder(
    net: nn.Module,
    source: Path,
    output: Path,
    *,
    size: int,
    device: torch.device | str,
    batch_size: int = 8,
    dtype: torch.dtype | None = None,
    views: Views = PLAIN,
    progress: Progress | None = None,
) -> int:
    """Write output/<stem>.png, 8-bit at the image's own size, for a file or folder; return n.

    Arguments as in `predict`. Raises InputError when there is no image, two share a stem, or a map
    would replace an image.
    """
    source = Path(source)
    paths = _by_stem(source) if source.is_dir() else {source.stem: source}
    targets = {stem: Path(output) / f"{stem}.png" for stem in paths}
    for stem, path in paths.items():
        if targets[stem].resolve() == path.resolve():
            raise InputError(f"{path} would be replaced by its own map: use another output folder.")
    how: Any = {"size": size, "device": device, "batch_size": batch_size, "dtype": dtype}
    maps = predict(net, paths.values(), **how, views=views)

    def write(item: Prediction) -> None:
        write_map(targets[item.name], item.probability)

    for done, _ in enumerate(_in_order(write, maps, workers=_cores()), 1):
        if progress:
            progress(done, len(paths))
    return len(paths)


def _load(item: Pair | Path, sides: Sequence[int]) -> tuple[str, list[Array], tuple[int, int]]:
    path = item.image if isinstance(item, Pair) else Path(item)
    image = read_image(path)
    own = image_size(item.mask) if isinstance(item, Pair) else image.shape[:2]
    return path.stem, [resize_image(image, side) for side in sides], (own[0], own[1])


@torch.inference_mode()
def _look(
    net: nn.Module,
    layers: Sequence[Array],
    size: int,
    device: torch.device,
    dtype: torch.dtype | None,
    flip: bool,
) -> Tensor:
    """layers: (B, S, S, 3) uint8 at each scale; returns the mean logits (B, 1, size, size)."""
    seen = []
    for images in layers:
        batch = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous().float() / 255
        seen.append(_logits(net, batch, dtype))
        if flip:
            seen.append(_logits(net, batch.flip(-1), dtype).flip(-1))
    same = [
        functional.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
        if logits.shape[-1] != size
        else logits
        for logits in seen
    ]
    mean = torch.stack(same).mean(0) if len(same) > 1 else same[0]
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # else the clock would stop before the network does
    return mean


def _logits(net: nn.Module, batch: Tensor, dtype: torch.dtype | None) -> Tensor:
    """batch: (B, 3, S, S) of 0...1; returns (B, 1, S, S) float32 on the same device."""
    on = dtype is not None
    with evaluating(net), torch.autocast(batch.device.type, dtype=dtype, enabled=on):
        return net(batch)["logits"].float()


@torch.inference_mode()
def _at_size(name: str, logits: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    stretched = functional.interpolate(logits[None], size, mode="bilinear", align_corners=False)
    probability = stretched.sigmoid()[0, 0].cpu().numpy()
    if math.isnan(probability.sum()):
        raise InputError(f"{name}: the network's map has NaN. Predict in float32 (dtype=None).")
    return probability


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by stem, sorted."""
    found: dict[str, Path] = {}
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in files:
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise InputError(f"{found[path.stem]} and {path.name} share a stem: rename one.")
            found[path.stem] = path
    if not found:
        state = "has no images" if folder.is_dir() else "is no folder"
        raise InputError(f"{folder} {state}. Give the folder that holds {', '.join(SUFFIXES)}.")
    return found


def _cores() -> int:
    return min(8, os.cpu_count() or 1)


def _in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """Yield function(item) for each item, in order, computed a few items ahead in threads."""
    pool, waiting = ThreadPoolExecutor(workers), deque[Future[Result]]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C or an error ends now, not at the last image
