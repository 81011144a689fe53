"""A batch of images as the network gets it: at its size, augmented, with the masks' outlines."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from ..data.augment import augment_batch
from ..data.batches import Batches, uniforms
from ..data.cache import open_cache
from ..data.own_augment import augmented
from ..data.selection import build_data
from ..errors import InputError
from ..outside.foreign import name_of
from ..settings.config import Config
from ..settings.decide import decide
from .canvas import STYLE, WIDTH, Picture
from .predictions import blank, outline, short

COLUMNS = 4


def show_batch(
    config: Config,
    *,
    augment: Callable[..., Any] | None = None,
    images: int = 8,
    epoch: int = 1,
) -> Figure:
    """Draw the first images of an epoch's first batch as the network gets them.

    They are decoded, squashed to `config.img_size`, augmented and masked as training does, on one
    device; `augment` is a function of your own, as `fit` takes it. `epoch` counts from 1: each
    augments anew. Raises InputError for data that cannot be used.
    """
    if images < 1 or epoch < 1:
        raise InputError(
            f"show_batch of {images} images in epoch {epoch}: expected 1 or more of both."
        )
    data = build_data(config)
    count = len(data.train)
    config = decide(config, count, 1)
    batch = min(config.batch_size, count)
    drawn = Batches(count, batch, seed=config.seed)
    drawn.set_epoch(epoch - 1)
    rows = np.array(next(iter(drawn)))[:images] % count
    chance = torch.from_numpy(uniforms(config.seed, epoch - 1, count)[rows])
    pairs = [data.train[row] for row in rows]
    with tempfile.TemporaryDirectory() as scratch:
        array = np.array(open_cache(pairs, config.img_size, Path(scratch)).array)
    pictures, masks = torch.from_numpy(array[:, :3].copy()), torch.from_numpy(array[:, 3:].copy())
    if augment is None:
        pictures, masks = augment_batch(pictures, masks, chance, config.augment)
        how = f"augmented with strength {config.augment:g}"
        how += " (0: as they are)" if config.augment == 0 else " of 1"
    else:
        pictures, masks = augmented(augment, pictures, masks, chance)
        name = name_of(augment)
        how = f"augmented by {'your own augment' if name == 'augment' else name}"
    title = (
        f"{len(rows)} of a batch of {batch} in epoch {epoch}, as the network gets them: "
        f"{config.img_size} x {config.img_size} px,\n{how}; mask outlined in yellow"
    )
    return _draw(pictures, masks, [pair.name for pair in pairs], title)


@rc_context(STYLE)
def _draw(pictures: Tensor, masks: Tensor, names: list[str], title: str) -> Figure:
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    side = WIDTH / COLUMNS
    figure = Picture(
        figsize=(max(columns * side, WIDTH * 0.7), 0.7 + rows * (side + 0.1)), layout="constrained"
    )
    shown = (pictures.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    for ax, image, mask, name in zip(
        blank(figure, rows, columns).flat, shown, masks.numpy(), names, strict=False
    ):
        ax.imshow(image)
        outline(ax, mask[0])
        if mask.shape[0] > 1 and mask[1].any():
            ax.imshow(np.where(mask[1] > 0, 0.5, np.nan), cmap="gray", vmin=0, vmax=1, alpha=0.8)
        ax.set_title(short(name, 30) + ("" if mask[0].any() else ": no object"), fontsize=8)
    figure.suptitle(title)
    return figure
