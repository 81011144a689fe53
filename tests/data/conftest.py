"""Ten photos with their masks, for the tests of the cache and of the batches."""

import numpy as np
import pytest
from PIL import Image

from camoxpert_nb.data.layouts import Pair


def ellipse(size=(60, 48), left=0.25):
    """A mask of 0 and 1 whose object fills a known part of the picture."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    return (((x / width - left) / 0.2) ** 2 + ((y / height - 0.5) / 0.3) ** 2 < 1).astype(np.uint8)


@pytest.fixture
def pairs(tmp_path):
    """Ten photos whose red channel is bright exactly where the mask is; blue tells them apart."""
    made = []
    for number in range(10):
        mask = ellipse(left=0.3 + 0.04 * number)
        image = np.stack([40 + 160 * mask, 90 * np.ones_like(mask), 20 * number + 0 * mask], 2)
        pair = Pair(f"p{number}", tmp_path / f"p{number}.jpg", tmp_path / f"p{number}.png", "made")
        Image.fromarray(image.astype(np.uint8)).save(pair.image, quality=95)
        Image.fromarray(mask * 255).save(pair.mask)
        made.append(pair)
    return made
