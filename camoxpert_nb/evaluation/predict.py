"""From images to maps at their own size: a network on files, with test-time augmentation.

The field's protocol: the photo is squashed to the network's square, the logits are stretched to
the mask's own size. Files are read and written in threads beside the network: Pillow, OpenCV and
NumPy let go of Python's lock.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..data.cache import Progress
from ..data.folders import SUFFIXES
from ..data.images import Array, read_image, refuse_foreign, resize_image, write_map
from ..data.masks import mask_size
from ..data.pairs import Pair
from ..errors import InputError, few
from ..network.backbone import STRIDES
from ..network.build import evaluating
from ..outside.paths import given
from ..settings.checks import in_strides
from .files import by_stem, cores, in_order

Unread = dict[Path, str]  # what cannot be read, and why


class Kept(NamedTuple):
    """A prediction small enough to keep for every image of a set: its map is an 8-bit PNG.

    uncertainty: sum of p (1 - p) over sum of p, at the network's size. gates: (stages, experts).
    cells: the gates of each cell, (experts, rows, columns) for each stage. deep: logits (1, h, w)
    of the decoder's coarser levels, fine to coarse. Gates, cells and deep are of the first view,
    and only of networks that have them.
    """

    png: bytes
    uncertainty: float
    gates: NDArray[np.float32]
    cells: list[NDArray[np.float32]]
    deep: list[Tensor]

    @property
    def probability(self) -> Array:
        """The map at its own size, (H, W) uint8 of 0...255."""
        return np.asarray(cv2.imdecode(np.frombuffer(self.png, np.uint8), cv2.IMREAD_GRAYSCALE))

    def levels(self) -> dict[str, Array]:
        """Return what each level of the decoder finds, coarse to fine, by name, as `probability`.

        The last one is the prediction itself.
        """
        levels = {"stride 4, the prediction": self.probability}
        for stride, logits in zip(STRIDES[1:], self.deep, strict=False):
            name = f"stride {stride}, {logits.shape[-1]} x {logits.shape[-2]} places"
            levels[name] = _8_bit(_stretch(logits, self.probability.shape))
        return dict(reversed(levels.items()))


class Prediction(NamedTuple):
    """What a network says of one image: its stem, a map (H, W) float32 of 0...1; more in `Kept`."""

    name: str
    probability: NDArray[np.float32]
    uncertainty: float
    gates: NDArray[np.float32]
    cells: list[NDArray[np.float32]]
    deep: list[Tensor]

    def kept(self) -> Kept:
        """Return the same with the map as 8-bit PNG, which takes a tenth of the memory."""
        _, png = cv2.imencode(".png", _8_bit(self.probability))
        return Kept(png.tobytes(), self.uncertainty, self.gates, self.cells, self.deep)


class Views(NamedTuple):
    """Test-time augmentation: the image is also seen mirrored, and at multiples of its size.

    The logits of all views are stretched to the network's own size and averaged. Scaled sides are
    rounded to multiples of 32, as backbones need.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    def sides(self, size: int) -> tuple[int, ...]:
        """Return the side in pixels at each scale; InputError for scales that cannot work."""
        if not self.scales or not all(0.25 <= scale <= 4 for scale in self.scales):
            raise InputError(f"Scales {self.scales}: give one or more of 0.25 to 4, as 1 1.25.")
        return tuple(size if scale == 1 else in_strides(size * scale) for scale in self.scales)

    def in_words(self) -> str:
        """Return the views in words."""
        words = ["as it is", *(["mirrored"] if self.flip else [])]
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return " and ".join(words) + (f" at scales {scales}" if self.scales != (1.0,) else "")


PLAIN = Views()
# On photos held out (benchmarks/ACCURACY.md).
MIRRORING = "in trainings of ours IoU rose by .006 to .011, for twice the network's time"


@dataclass(frozen=True)
class Predictor:
    """A network, and how it predicts.

    net: on `device`, returns what `CamoXpert.forward` does, or "logits" alone. It computes in eval
    mode, and has its own mode again whenever it is not computing. dtype: autocast's, None = off.
    """

    net: nn.Module
    size: int
    device: torch.device | str
    batch_size: int = 8
    dtype: torch.dtype | None = None

    def predict(
        self,
        images: Iterable[Pair | Path],
        views: Views | None = None,
        seconds: list[float] | None = None,
        unread: Unread | None = None,
    ) -> Iterator[Prediction]:
        """Yield the prediction of each image, in order, at its own size (of a Pair: its mask's).

        seconds: takes the network's seconds per image of each batch. unread: takes the reason for
        each image that cannot be read, which is then passed over. Raises InputError for such a file
        without it, and for a map with NaN.
        """
        views = views or PLAIN
        load = partial(_load, sides=views.sides(self.size), unread=unread)
        loaded = filter(None, in_order(load, images, workers=min(4, cores())))
        while batch := list(islice(loaded, self.batch_size)):
            names, squares, sizes = zip(*batch, strict=True)
            started = time.perf_counter()
            maps, outputs = self._outputs(list(map(np.stack, zip(*squares, strict=True))), views)
            if seconds is not None:
                seconds.append((time.perf_counter() - started) / len(batch))
            for name, logits, own, more in zip(
                names, maps, sizes, _each(maps, outputs), strict=True
            ):
                probability = _stretch(logits, own)
                if math.isnan(probability.sum()):
                    raise InputError(
                        f"{name}: the network's map has NaN. Predict in float32 (dtype=None)."
                    )
                yield Prediction(name, probability, *more)

    def predict_one(self, image: Pair | Path) -> Kept:
        """Return the prediction of one image."""
        (prediction,) = self.predict([image])
        return prediction.kept()

    @torch.inference_mode()
    def _outputs(self, layers: list[Array], views: Views) -> tuple[Tensor, dict[str, Any]]:
        """layers: (B, S, S, 3) uint8 at each scale.

        Returns the mean logits (B, 1, size, size), and what the net says of the first view.
        """
        device, outputs = torch.device(self.device), []
        for images in layers:
            batch = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous() / 255
            outputs.append(self._forward(batch))
            if views.flip:
                flipped = self._forward(batch.flip(-1))
                outputs.append(flipped | {"logits": flipped["logits"].flip(-1)})
        size = (self.size, self.size)
        logits = [
            functional.interpolate(each["logits"], size, mode="bilinear", align_corners=False)
            for each in outputs
        ]
        mean = torch.stack(logits).mean(0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # else the clock would stop before the network does
        return mean, outputs[0]

    def _forward(self, batch: Tensor) -> dict[str, Any]:
        """batch: (B, 3, S, S) of 0...1; returns what the net says, its logits in float32."""
        on = self.dtype is not None
        with evaluating(self.net), torch.autocast(batch.device.type, self.dtype, on):
            outputs = self.net(batch)
        return outputs | {"logits": outputs["logits"].float()}


class Predicts(Protocol):
    """What gives a map for each image: one network (`Predictor`), or several (`Ensemble`)."""

    def predict(
        self,
        images: Iterable[Pair | Path],
        views: Views | None = None,
        *,
        unread: Unread | None = None,
    ) -> Iterator[Prediction]:
        """Yield the prediction of each image, in order, but of those in `unread`."""
        ...


def images_to_predict(source: Path, output: Path, *, overlays: bool = False) -> list[Path]:
    """Return the images of a file or folder, whose maps can be written to `output`.

    Raises InputError when there is no image, two share a stem, the maps would lie among the images,
    or a map (or overlay) would replace an image or a picture that this kit did not write.
    """
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        raise InputError(
            f"--output {output} is named like a picture, but is the folder for the maps, in which "
            f"that of {source.name} becomes {source.stem}.png. Name a folder, as maps."
        )
    paths = [*by_stem(source).values()] if source.is_dir() else [source]
    targets = [output / f"{path.stem}.png" for path in paths]
    targets += [output / "overlays" / target.name for target in targets if overlays]
    real = {os.path.realpath(path) for path in paths}
    for target in targets:
        if os.path.realpath(target) in real:
            raise InputError(
                f"{target} is an image to predict, and would be replaced by its own map, or that "
                "of another one: use another --output."
            )
    if source.is_dir() and output.exists() and output.samefile(source):
        raise InputError(
            f"--output {output} is the folder of the images: maps would lie among them, and be "
            "taken for images the next time. Use another --output."
        )
    refuse_foreign(targets, "Use another --output, or remove them.")
    return paths


def predict_folder(
    predictor: Predicts,
    source: Path,
    output: Path,
    *,
    views: Views = PLAIN,
    progress: Progress | None = None,
    unread: Unread | None = None,
) -> int:
    """Write output/<stem>.png, 8-bit at the image's own size, for a file or folder; return n.

    unread: takes the reason for each image of a folder that cannot be read; the others are written.
    Raises InputError as `images_to_predict` and `Predictor.predict` do, and if none can be read.
    """
    output, source = given(output, "--output"), given(source, "--input")
    paths = images_to_predict(source, output)
    passed = unread if source.is_dir() else None

    def write(item: Prediction) -> None:
        write_map(output / f"{item.name}.png", item.probability)

    maps, done = predictor.predict(paths, views, unread=passed), 0
    for done, _ in enumerate(in_order(write, maps, workers=cores()), 1):
        if progress:
            progress(done, len(paths) - len(passed or ()))
    if not done:
        refuse_all(paths, passed or {})
    return done


def refuse_all(paths: Sequence[Path], unread: Unread) -> None:
    """Raise InputError: of these pictures none can be read."""
    raise InputError(f"none of {len(paths)} pictures can be read: {few([*unread.values()])}")


def _load(
    item: Pair | Path, sides: Sequence[int], unread: Unread | None
) -> tuple[str, list[Array], tuple[int, int]] | None:
    path = item.image if isinstance(item, Pair) else Path(item)
    try:
        image = read_image(path)
    except InputError as error:
        if unread is None:
            raise
        unread[path] = str(error)
        return None
    own = mask_size(item) if isinstance(item, Pair) else image.shape[:2]
    return path.stem, [resize_image(image, side) for side in sides], (own[0], own[1])


@torch.inference_mode()
def _each(maps: Tensor, outputs: dict[str, Any]) -> list[tuple[float, Any, Any, list[Tensor]]]:
    """Return (uncertainty, gates, cells, deep) of each image of a batch, on the CPU."""
    p = maps.sigmoid().flatten(1)
    doubts = ((p * (1 - p)).sum(1) / p.sum(1).clamp(min=1e-6)).tolist()
    gates = outputs.get("gates", torch.empty(len(maps), 0, 0)).float().cpu().numpy()
    cells = [each.float().cpu().numpy() for each in outputs.get("cells", [])]
    deep = [logits.half().cpu() for logits in outputs.get("deep", [])]
    return [
        (d, g, [each[i] for each in cells], [each[i] for each in deep])
        for i, (d, g) in enumerate(zip(doubts, gates, strict=True))
    ]


@torch.inference_mode()
def _stretch(logits: Tensor, size: Sequence[int]) -> NDArray[np.float32]:
    """Return logits (1, h, w) as probabilities (H, W) of 0...1 at a size (H, W)."""
    stretched = functional.interpolate(
        logits[None].float(), tuple(size), mode="bilinear", align_corners=False
    )
    return np.asarray(stretched.sigmoid()[0, 0].cpu().numpy(), np.float32)


def _8_bit(probability: NDArray[np.float32]) -> Array:
    return np.rint(probability * 255).astype(np.uint8)
