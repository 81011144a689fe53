"""Generated images are those they always were: results of demos compare over versions of the kit.

generated.json holds, of thirty images, the mean of each of 6 x 6 blocks, in colour and of the mask.
After a change that is meant, raise `synthetic.RECIPE` and write it anew:

    python tests/data/test_synthetic_as_ever.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from camoxpert_nb.data.synthetic import FAMILIES, RECIPE, _make_image

FILE = Path(__file__).with_name("generated.json")
BLOCKS = 6
IMAGES = 30
# A library's newer version may round otherwise, and a rank or an edge be drawn one place further.
TOLERANCE = {"colour": 4.0, "object": 0.06}  # of 255, of 1


def in_blocks(array: NDArray[Any]) -> NDArray[np.float64]:
    """The means of 6 x 6 blocks of an array (H, W, ...)."""
    rows = np.array_split(array.astype(float), BLOCKS, 0)
    return np.array(
        [[part.mean((0, 1)) for part in np.array_split(row, BLOCKS, 1)] for row in rows]
    )


def made(number: int) -> dict[str, Any]:
    empty = number % 15 == 14
    family, image, mask = _make_image(np.random.default_rng([3, number]), 64, empty)
    colour = np.rint(in_blocks(image)).astype(int).reshape(-1).tolist()
    share = np.rint(100 * in_blocks(mask)).astype(int).reshape(-1).tolist()
    return {"family": family, "shape": list(mask.shape), "colour": colour, "object": share}


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


def test_every_kind_of_image_is_among_them(known: dict[str, Any]) -> None:
    assert known["recipe"] == RECIPE, "another recipe: write generated.json anew"
    images = known["images"]
    assert len(images) == IMAGES and {each["family"] for each in images} == {*FAMILIES}
    shares = [sum(each["object"]) / (100 * BLOCKS**2) for each in images]
    assert sum(share == 0 for share in shares) == 2  # those without an object
    assert sum(0 < share < 0.04 for share in shares) > 3 and max(shares) > 0.15
    wide = [shape[1] > shape[0] for shape in (each["shape"] for each in images)]
    assert any(wide) and not all(wide)


@pytest.mark.parametrize("number", range(IMAGES))
def test_an_image_is_the_one_it_was(known: dict[str, Any], number: int) -> None:
    before, now = known["images"][number], made(number)
    assert (now["family"], now["shape"]) == (before["family"], before["shape"])
    for name, scale in (("colour", 1.0), ("object", 100.0)):
        apart = np.abs(np.subtract(now[name], before[name])).max() / scale
        assert apart <= TOLERANCE[name], f"{name}: {apart} apart"


if __name__ == "__main__":
    found = {"recipe": RECIPE, "images": [made(number) for number in range(IMAGES)]}
    FILE.write_text(json.dumps(found, separators=(",", ":")) + "\n")
