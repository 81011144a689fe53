"""Validation images while a run lives, with what the network makes of them, as HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from ..evaluation.metrics import cut
from .style import VERDICTS, error_map

IMAGES, TILE = 6, 136  # how many, and the side of one in pixels


def live_images(preview: Mapping[str, Any]) -> str:
    """Return validation images as HTML, a column each: image, mask, probability, verdict.

    `preview` is as in preview.npz (see `predictions.show_predictions`), the same images each time.
    """
    count = min(IMAGES, len(preview.get("names", ())))
    keys = ("names", "image", "mask", "probability")
    columns = [_column(*(preview[key][index] for key in keys)) for index in range(count)]
    colours = ", ".join(
        f'<span style="background:{colour};padding:0 5px">&nbsp;</span> {name}'
        for name, colour in VERDICTS.items()
    )
    title = f"<b>Validation images</b>, downwards: image, mask, probability, prediction ({colours})"
    return f'{title}<div style="display:flex;flex-wrap:wrap;gap:6px">{"".join(columns)}</div>'


def _column(name: str, image: Any, mask: Any, probability: Any) -> str:
    wanted = mask > 0
    shown = cut(probability, wanted)
    alarm = f"{100 * shown.found.mean():.1f} % false alarm"
    result = alarm if shown.iou is None else f"IoU {shown.iou:.2f}"
    greys = [np.repeat(each[..., None], 3, 2) for each in (wanted * np.uint8(255), probability)]
    tiles = [image, *greys, error_map(image, wanted, shown.found)]
    rim = ((0, max(len(image) // 64, 1)), (0, 0), (0, 0))
    stack = np.vstack([np.pad(tile, rim, constant_values=255) for tile in tiles])
    size = (TILE, TILE * len(stack) // len(image))
    picture = Image.fromarray(stack).resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, subsampling=0)  # a quarter of a PNG's size
    data = base64.b64encode(buffer.getvalue()).decode()
    short = name if len(name) < 22 else f"...{name[-18:]}"  # names differ at their ends
    name, short = escape(name), escape(short)
    return (
        f'<div style="flex:0 1 {TILE}px;min-width:0;font-size:11px"><img style="width:100%" '
        f'src="data:image/jpeg;base64,{data}" alt="{name}: {result}"><div title="{name}" style='
        f'"overflow:hidden;text-overflow:ellipsis;white-space:nowrap">{result}<br>{short}</div></div>'
    )
