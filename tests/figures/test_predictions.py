from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from camoxpert_nb.data.images import read_image
from camoxpert_nb.data.layouts import Pair
from camoxpert_nb.data.masks import read_labels
from camoxpert_nb.data.reading import MaskReading
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.metrics import measure
from camoxpert_nb.figures import predictions
from camoxpert_nb.figures.style import PURPLE


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def draw(figure: Figure) -> None:
    """Render: layout and ticks are worked out only then, and warnings are errors here."""
    figure.savefig(io.BytesIO(), format="png", dpi=50)


@pytest.fixture
def scene() -> tuple[Any, Any, Any]:
    """An image of 30 x 40 px, a soft and noisy map of 20...229, and a mask it half meets."""
    rng = np.random.default_rng(0)
    mask = np.zeros((30, 40), np.uint8)
    mask[8:20, 10:25] = 1
    soft = np.zeros((30, 40))
    soft[12:26, 8:22] = 160
    probability = (soft + rng.integers(20, 70, soft.shape)).astype(np.uint8)
    return rng.integers(0, 256, (30, 40, 3), np.uint8), probability, mask


@pytest.fixture
def preview() -> dict[str, Any]:
    """Three images of 8 px: one half right, one with nothing found, one with nothing to find."""
    mask, probability = np.zeros((2, 3, 8, 8), np.uint8)
    mask[:2, 2:4, 2:6] = 1
    probability[0, 3:5, 2:6] = 254  # the map's highest level, which a stretch takes to 1
    probability[0, 7, 7] = 127
    return {
        "names": np.array(["half", "missed", "x" * 60]),
        "image": np.full((3, 8, 8, 3), 100, np.uint8),
        "mask": mask,
        "probability": probability,
    }


def test_predictions_show_hits_misses_and_false_alarms(preview: dict[str, Any]) -> None:
    figure = predictions.show_predictions(preview)
    draw(figure)
    shown = [np.asarray(ax.images[0].get_array()) for ax in figure.axes[:4]]
    np.testing.assert_array_equal(shown[0], preview["image"][0])
    np.testing.assert_array_equal(shown[1], preview["mask"][0])
    np.testing.assert_allclose(shown[2], preview["probability"][0] / 255)
    errors = shown[3]
    hit, miss, alarm, ground = errors[3, 2], errors[2, 2], errors[4, 2], errors[7, 7]
    assert hit.argmax() == 2  # blue
    assert miss[:2].min() > miss[2]  # yellow
    assert alarm.argmax() == 0  # red
    assert np.ptp(ground) == 0  # grey: one half of the stretched map is not above it
    said = words(figure)
    assert "IoU 0.33" in said  # 4 hits, 4 misses, 4 false alarms
    assert "IoU 0.00" in said
    assert "no object, 0.0 % false alarm" in said
    assert "3 of 3 images at 8 x 8 px; mean IoU of these 2: 0.17" in said
    assert "hit / (hit + miss + false alarm)" in said
    assert "half" in said
    assert "x" * 60 not in said  # long names are shortened


def test_predictions_keep_to_the_number_of_rows(preview: dict[str, Any]) -> None:
    figure = predictions.show_predictions(preview, rows=1)
    assert len(figure.axes) == 4
    assert "1 of 3 images" in words(figure)
    assert "No prediction" in words(predictions.show_predictions({}))


def test_pairs_keep_each_size_and_outline_the_object() -> None:
    images = [np.zeros((20, 30, 3), np.uint8), np.zeros((10, 10, 3), np.uint8)]
    masks = [np.zeros((20, 30), np.uint8), np.zeros((10, 10), np.uint8)]
    masks[0][5:10, 10:22] = 1
    figure = predictions.show_pairs(images, masks, ["animal", "nothing"])
    draw(figure)
    assert "30 x 20 px, object 10.0 %" in words(figure)
    assert "10 x 10 px, object 0.0 %" in words(figure)
    assert "n = 2" in words(figure)
    outline = np.concatenate([path.vertices for path in figure.axes[0].collections[0].get_paths()])
    np.testing.assert_allclose(outline.min(0), [9.5, 4.5])
    np.testing.assert_allclose(outline.max(0), [21.5, 9.5])
    assert not figure.axes[2].collections
    assert "no image" in words(predictions.show_pairs([], [], []))


def test_predictions_may_have_several_sizes_and_notes(scene: tuple[Any, Any, Any]) -> None:
    image, probability, mask = scene
    preview = {
        "names": ["whole", "part"],
        "image": [image, image[:, 5:]],
        "mask": [mask, mask[:, 5:]],
        "probability": [probability, probability[:, 5:]],
        "notes": ["doubt 0.25", ""],
    }
    figure = predictions.show_predictions(preview, note="\ndoubt is explained")
    draw(figure)
    said = words(figure)
    assert f"IoU {measure(probability, mask).values['iou']:.2f}, doubt 0.25" in said
    assert "at the masks' own sizes" in said
    assert "doubt is explained" in said


def test_an_overlay_with_a_mask_scores_as_the_metrics_do(scene: tuple[Any, Any, Any]) -> None:
    image, probability, mask = scene
    figure = predictions.show_overlay(image, probability, mask, "bird")
    draw(figure)
    assert len(figure.axes) == 3
    assert f"IoU {measure(probability, mask).values['iou']:.2f}; IoU = hit" in words(figure)
    assert "bird" in words(figure)


def test_an_overlay_without_a_mask_is_not_stretched(scene: tuple[Any, Any, Any]) -> None:
    image, probability, _ = scene
    figure = predictions.show_overlay(image, probability // 4, name="nothing")
    draw(figure)
    assert len(figure.axes) == 2
    assert "0.0 % of the image above probability 0.5" in words(figure)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image)


def test_the_tint_covers_what_was_found_and_nothing_else(scene: tuple[Any, Any, Any]) -> None:
    image, probability, _ = scene
    found = probability > 127
    tinted = predictions.overlay(image, found)
    assert tinted.dtype == np.uint8
    np.testing.assert_array_equal(tinted[~found], image[~found])
    assert (tinted[found] != image[found]).any(1).all()
    colour = np.array([*bytes.fromhex(PURPLE[1:])])
    np.testing.assert_array_equal(tinted[12, 8], colour)  # a corner: on the outline
    inside = tinted[18, 15].astype(int)
    np.testing.assert_allclose(inside, 0.6 * image[18, 15] + 0.4 * colour, atol=1)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.9])
def test_the_threshold_view_cuts_where_it_says(
    scene: tuple[Any, Any, Any], threshold: float
) -> None:
    image, probability, mask = scene
    figure = predictions.show_threshold(image, probability, mask, threshold, "bird")
    draw(figure)
    level = probability / 255
    found = (level - level.min()) / np.ptp(level) > threshold
    iou = (found & (mask > 0)).sum() / (found | (mask > 0)).sum()
    assert f"IoU {iou:.2f} at threshold {threshold:.2f}" in words(figure)
    assert f"IoU: {iou:.2f} here" in words(figure)


def test_the_curves_are_those_of_the_metrics(scene: tuple[Any, Any, Any]) -> None:
    image, probability, mask = scene
    figure = predictions.show_threshold(image, probability, mask)
    iou, _, f, _, _ = figure.axes[3].lines
    assert iou.get_ydata()[50] == measure(probability, mask).values["iou"]
    reference = measure(probability, mask).curves  # map >= k / 255, where ours is map > k / 100
    for line, name in ((iou, "iou"), (f, "f")):
        at = np.floor(line.get_xdata() * 255).astype(int) + 1
        np.testing.assert_allclose(line.get_ydata(), reference[name][at], atol=0.04)
        assert line.get_ydata().max() == pytest.approx(reference[name].max(), abs=0.02)


@pytest.mark.parametrize("empty", [False, True])
def test_no_line_runs_through_the_legend(scene: tuple[Any, Any, Any], empty: bool) -> None:
    image, probability, mask = scene
    figure = predictions.show_threshold(image, probability, mask * (not empty))
    draw(figure)
    curves = figure.axes[3]
    legend = curves.get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    assert box.y1 <= curves.get_window_extent().y0
    assert figure.bbox.contains(*box.get_points()[0]) and figure.bbox.contains(*box.get_points()[1])


def test_a_threshold_of_an_image_without_object_shows_false_alarms() -> None:
    image, probability = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    probability[:2] = 200
    figure = predictions.show_threshold(image, probability, np.zeros((8, 8), np.uint8), 0.5)
    draw(figure)
    assert "no object, 25.0 % false alarm at threshold 0.50" in words(figure)
    curve, _ = figure.axes[3].lines
    assert curve.get_ydata()[[0, 78, 79]].tolist() == [0.25, 0.25, 0.0]  # 200 / 255 = 0.784


def test_a_threshold_outside_0_to_1_is_refused(scene: tuple[Any, Any, Any]) -> None:
    with pytest.raises(InputError, match=r"choose one of 0 to 1"):
        predictions.show_threshold(*scene, threshold=1.5)


def test_overlays_are_written_beside_the_maps(tmp_path: Path, scene: tuple[Any, Any, Any]) -> None:
    image, probability, _ = scene
    (tmp_path / "photos").mkdir()
    (tmp_path / "maps").mkdir()
    Image.fromarray(image).save(tmp_path / "photos" / "bird.png")
    Image.fromarray(probability).save(tmp_path / "maps" / "bird.png")
    photo = tmp_path / "photos" / "bird.png"
    assert predictions.write_overlays([photo], tmp_path / "maps") == 1
    written = read_image(tmp_path / "maps" / "overlays" / "bird.png")
    np.testing.assert_array_equal(written, predictions.overlay(image, probability > 127))
    Image.fromarray(probability[:5]).save(tmp_path / "maps" / "bird.png")
    with pytest.raises(InputError, match="Predict this image again"):
        predictions.write_overlays([photo], tmp_path / "maps")


def test_an_image_is_read_at_its_masks_size(tmp_path: Path) -> None:
    Image.new("RGB", (40, 31)).save(tmp_path / "a.png")
    Image.new("L", (40, 30)).save(tmp_path / "b.png")
    image, mask = predictions.read_pair(Pair("a", tmp_path / "a.png", tmp_path / "b.png", "set"))
    assert image.shape == (30, 40, 3)
    assert mask.shape == (30, 40)


def test_what_counts_nowhere_is_drawn_so(tmp_path: Path, scene: Any) -> None:
    """The IoU of a figure is the one that is scored, and a sample shows what is ignored."""
    image, probability, mask = scene
    stored = mask * np.uint8(100)
    stored[20:26, 5:25] = 255
    for name, values in (("a.jpg", image), ("a.png", stored)):
        Image.fromarray(values).save(tmp_path / name)
    how = MaskReading(object="nonzero", ignore=255)
    pair = Pair("a", tmp_path / "a.jpg", tmp_path / "a.png", "set", how)
    shown = predictions.preview_of([pair], [probability])
    scored = measure(probability, mask, stored == 255).values["iou"]
    assert f"IoU {scored:.2f}" in words(predictions.show_predictions(shown))
    plain = measure(probability, mask).values["iou"]
    assert abs(plain - scored) > 0.05  # so that the one above says something
    sample = predictions.show_pairs([image], [read_labels(pair)], ["a"])
    draw(sample)
    assert "10.0 % ignored (grey)" in words(sample)
