"""The widgets without a front end: what they show, what they answer, what they hand out."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from camoxpert_nb.data.layouts import Pair
from camoxpert_nb.errors import InputError
from camoxpert_nb.figures.ranking import called, describe
from camoxpert_nb.notebook import gallery
from camoxpert_nb.notebook.viewer import image_viewer

COUNT = 5


@pytest.fixture
def judged(tmp_path: Path) -> Any:
    """Five scored images with masks of growing size; the maps lie in `maps`."""
    pairs, rng = [], np.random.default_rng(0)
    for folder in ("images", "masks", "maps"):
        (tmp_path / folder).mkdir()
    for number in range(COUNT):
        name, mask = f"COD10K-CAM-1-{'AB'[number % 2]}-1-X-{number}", np.zeros((20, 24), np.uint8)
        mask[: 4 * number] = 255
        files = {"images": rng.integers(0, 255, (20, 24, 3), np.uint8), "masks": mask, "maps": mask}
        for folder, array in files.items():
            Image.fromarray(array).save(tmp_path / folder / f"{name}.png")
        paths = (tmp_path / folder / f"{name}.png" for folder in ("images", "masks"))
        pairs.append(Pair(name, *paths, "set"))
    rows = {"name": [pair.name for pair in pairs], "iou": [0.0, 0.5, 0.9, 0.1, 0.7]}
    shares = {"object_share": [0.0, 0.2, 0.4, 0.6, 0.8], "mae": [0.5, 0.4, 0.3, 0.2, 0.1]}
    scores = SimpleNamespace(per_image=pd.DataFrame(rows | shares))
    return SimpleNamespace(pairs=pairs, scores=scores, maps=tmp_path / "maps")


@pytest.fixture
def shown(judged: Any) -> gallery.Gallery:
    return gallery.gallery(judged, judged.maps, rows=2)


def names(shown: gallery.Gallery) -> list[str]:
    said = [text.get_text() for text in shown.figure().findobj(Text)]
    return [text[-1] for text in said if re.fullmatch(r"COD10K.*-\d", text)]


def png(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_pages_are_sorted_and_end_where_the_images_do(shown: gallery.Gallery) -> None:
    assert shown.chosen() == [0, 3, 1, 4, 2]
    assert names(shown) == ["0", "3"]
    first = shown.picture.value
    for expected in (["1", "4"], ["2"], ["2"]):
        shown.turn(1)
        assert names(shown) == expected
    assert shown.message.value == "images 5 to 5 of 5"
    assert png(shown.picture.value).shape != png(first).shape
    shown.turn(-9)
    assert shown.picture.value == first


def test_filters_and_order_go_back_to_the_first_page(shown: gallery.Gallery) -> None:
    assert set(shown.filters) == {"class", "size"}  # one data set: nothing to choose
    shown.turn(1)
    shown.by.value, shown.ascending.value = "mae", False
    assert (shown.page, names(shown)) == (0, ["0", "1"])
    shown.filters["class"].value = "B"
    assert shown.chosen() == [1, 3]
    shown.filters["size"].value = "no object"
    assert shown.chosen() == []
    assert shown.message.value == "no image passes the filters"
    shown.filters["class"].value = "A"
    assert shown.chosen() == [0]


def test_it_is_sorted_by_measures_that_people_know(shown: gallery.Gallery) -> None:
    offered = [label for label, _ in shown.by.options]
    assert {"IoU", "MAE"} <= set(offered)
    assert called("s_measure") == "S-measure (S_alpha)" and called("mean_e") == "mean E (E_phi)"
    assert not {"intersection", "union", "raw_mae", "MAE, not stretched"} & set(offered)


def test_only_buttons_that_turn_can_be_pressed(shown: gallery.Gallery) -> None:
    def usable() -> tuple[bool, bool]:
        return not shown.back.disabled, not shown.on.disabled

    assert usable() == (False, True)
    shown.turn(1)
    assert usable() == (True, True)
    shown.turn(1)  # the last: five images on pages of two
    assert usable() == (True, False)


def test_the_buttons_turn_the_page(shown: gallery.Gallery) -> None:
    back, on = shown.box.children[-1].children
    on.click()
    assert shown.page == 1
    back.click()
    assert shown.page == 0


def test_maps_of_a_folder_and_of_a_network_show_the_same(judged: Any) -> None:
    seen = SimpleNamespace(table=describe(judged.scores.per_image, judged.pairs), **vars(judged))
    maps = [np.asarray(Image.open(judged.maps / f"{pair.name}.png")) for pair in judged.pairs]
    seen.map_of = maps.__getitem__
    both = [gallery.gallery(seen, rows=2), gallery.gallery(judged, judged.maps, rows=2)]
    assert both[0].picture.value == both[1].picture.value


def test_a_missing_map_is_said_in_the_place_of_the_picture(judged: Any) -> None:
    (judged.maps / f"{judged.pairs[0].name}.png").unlink()
    assert "no such file" in gallery.gallery(judged, judged.maps).message.value


def test_the_slider_cuts_the_map_anew() -> None:
    image, probability = np.full((8, 8, 3), 90, np.uint8), np.zeros((8, 8), np.uint8)
    probability[:4], probability[4:6] = 255, 100
    mask = (probability > 0).astype(np.uint8)
    slider = gallery.ThresholdSlider(image, probability, mask, "bird")
    before = slider.picture.value
    slider.slider.value = 0.3
    assert slider.picture.value != before
    said = [text.get_text() for text in slider.figure().findobj(Text)]
    assert any("IoU 1.00 at threshold 0.30" in text for text in said)
    assert "0.30" in repr(slider)


class Seen:
    """What a viewer asks of an `explore.Explored`."""

    table = pd.DataFrame({"name": ["bird", "frog", "moth"], "iou": [0.7, 0.2, float("nan")]})

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def row_of(self, image: str | int) -> int:
        return image if isinstance(image, int) else self.table["name"].tolist().index(image)

    def files_of(self, row: str | int) -> tuple[Any, Any, str]:
        row, grey = self.row_of(row), np.zeros((8, 8), np.uint8)
        grey[: row + 2] = 200
        return np.dstack([grey] * 3), grey > 0, str(self.table["name"][row])

    def map_of(self, row: str | int) -> Any:
        return self.files_of(row)[1] * np.uint8(255)

    def levels(self, row: int) -> Any:
        self.drawn.append(row)
        return SimpleNamespace(_repr_png_=lambda: f"drawn {row}".encode())


def test_any_image_can_be_chosen_the_worst_stand_first() -> None:
    seen = Seen()
    viewer = image_viewer(seen, "levels", "bird")
    assert viewer.which.options[0][0] == "frog, IoU 0.20" and viewer.which.value == 0
    viewer.which.value = 2
    assert seen.drawn == [0, 2] and bytes(viewer.picture.value) == b"drawn 2"
    assert "moth" in repr(viewer) and viewer.message.value == ""
    with pytest.raises(InputError, match="choose overlay, levels, routing, removed"):
        image_viewer(seen, "depth")


def test_the_worst_is_chosen_where_none_is_named() -> None:
    viewer = image_viewer(Seen(), "levels")
    assert viewer.which.value == viewer.which.options[0][1] == 1
    slider = gallery.threshold_slider(Seen())
    assert slider.which is not None and slider.which.value == 1 and slider.name == "frog"


def test_the_slider_moves_over_any_image() -> None:
    slider = gallery.threshold_slider(Seen(), 0)
    before = bytes(slider.picture.value)
    assert slider.which is not None and slider.which.value == 0
    slider.which.value = 1
    assert slider.name == "frog" and bytes(slider.picture.value) != before


def test_a_picture_where_nobody_can_press(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attended = shown._repr_mimebundle_()
    view = attended["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == shown.box.model_id
    monkeypatch.setenv("CAMOXPERT_BATCH", "1")
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png"}
    assert png(base64.b64decode(bundle["image/png"])).shape[1] == 1000


def test_a_gallery_of_files_needs_no_torch() -> None:
    code = "import sys, camoxpert_nb.notebook.gallery"
    code += ", camoxpert_nb.figures.ranking, camoxpert_nb.figures.predictions"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
