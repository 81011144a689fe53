"""Which map is scored, over what, and how long it took: with a predictor that is made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camoxpert_nb.data.masks import IGNORED
from camoxpert_nb.data.pairs import Pair
from camoxpert_nb.data.reading import MaskReading
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation import scoring
from camoxpert_nb.evaluation.metrics import MEASURES, measure
from camoxpert_nb.evaluation.predict import Prediction, Views
from camoxpert_nb.evaluation.scores import Curves, build_scores
from camoxpert_nb.evaluation.scoring import (
    evaluate,
    measure_map,
    refuse_other_shapes,
    score_folder,
    score_maps,
    scores_of,
    tabulated,
)

LEFT = np.zeros((8, 10), np.uint8)
LEFT[2:6, 1:5] = 1
NOTHING = np.zeros((8, 10), np.uint8)


def picture(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Three images whose masks are called otherwise; the last one has no object."""
    found = []
    for number, mask in enumerate((LEFT, LEFT, NOTHING)):
        image = picture(tmp_path / "Imgs" / f"i{number}.png", np.full((8, 10, 3), 90))
        found.append(
            Pair(
                f"i{number}", image, picture(tmp_path / "GT" / f"m{number}.png", 255 * mask), "made"
            )
        )
    return found


class Told:
    """Finds the left object in all images; its first batch takes long."""

    def __init__(self) -> None:
        self.views: list[Any] = []

    def predict(self, pairs: list[Pair], views: Any, seconds: list[float]) -> Iterator[Prediction]:
        self.views.append(views)
        for pair, took in zip(pairs, (50.0, 1.0, 3.0), strict=True):
            seconds.append(took)
            yield Prediction(
                pair.name, LEFT.astype(np.float32), 0.0, np.empty((0, 0), np.float32), [], []
            )


def test_a_network_is_scored_as_it_is_asked_and_timed_by_its_middle_batch(
    pairs: list[Pair],
) -> None:
    predictor, told, kept, views = Told(), [], {}, Views(flip=True)
    how: dict[str, Any] = {"views": views, "kept": kept}
    found = evaluate(predictor, pairs, progress=lambda *now: told.append(now), **how)  # type: ignore[arg-type]
    assert predictor.views == [views] and [*kept] == [pair.image for pair in pairs]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert found.seconds_per_image == 3.0
    assert found.mean["iou"] == 1.0 and (found.n, found.n_empty) == (3, 1)
    assert found.empty["false_alarm"] == pytest.approx(16 / 80)
    assert [len(each) for each in found.curves.values()] == [256] * 5
    for curve in ("iou", "f", "precision"):  # the image without an object counts in none
        assert found.curves[curve][128] == 1.0


def test_a_map_named_like_the_image_comes_before_one_named_like_the_mask(
    pairs: list[Pair], tmp_path: Path
) -> None:
    for number in range(2):
        picture(tmp_path / "maps" / f"m{number}.png", 255 * (1 - LEFT))
    assert score_maps(tmp_path / "maps", pairs[:2]).mean["iou"] == 0.0
    picture(tmp_path / "maps" / "i0.png", 255 * LEFT)
    assert score_maps(tmp_path / "maps", pairs[:2]).mean["iou"] == 0.5


def test_a_map_of_as_many_pixels_is_still_of_another_shape(
    pairs: list[Pair], tmp_path: Path
) -> None:
    picture(tmp_path / "maps" / "i0.png", 255 * LEFT.T)
    with pytest.raises(InputError, match=r"\(10, 8\), its mask \(8, 10\)"):
        score_maps(tmp_path / "maps", pairs[:1])


def test_masks_of_a_folder_mean_what_is_said_of_them(tmp_path: Path) -> None:
    """Value 3 is object, 7 counts nowhere: there the map may say what it likes."""
    mask = 3 * LEFT
    mask[:, 7:] = 7
    picture(tmp_path / "GT" / "a.png", mask)
    picture(tmp_path / "maps" / "a.png", 255 * np.maximum(LEFT, mask == 7))
    how = MaskReading(object="3", ignore=7)
    assert score_folder(tmp_path / "maps", tmp_path / "GT", how=how).mean["iou"] == 1.0


def test_what_is_missing_is_named_though_nothing_is_left_over(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / "GT" / f"{name}.png", 255 * LEFT)
    picture(tmp_path / "maps" / "a.png", 255 * LEFT)
    with pytest.raises(InputError, match=r"2 of 3 masks have no map: b, c"):
        score_folder(tmp_path / "maps", tmp_path / "GT")
    picture(tmp_path / "maps" / "z.png", 255 * LEFT)
    with pytest.raises(InputError, match=r"2 of 3 masks have no map: b, c"):
        score_folder(tmp_path / "maps", tmp_path / "GT")


@pytest.mark.parametrize("low", [0, 60])
def test_what_counts_nowhere_is_as_good_as_cut_off(low: int) -> None:
    """Of a map that holds its lowest and highest level in the ignored part, too."""
    rng = np.random.default_rng(4)
    image = rng.integers(low, 200, (20, 30)).astype(np.uint8)
    mask, ignored = np.zeros((20, 30), np.uint8), np.zeros((20, 30), bool)
    mask[5:12, 3:11], ignored[:, 18:] = 1, True
    image[mask > 0] = np.minimum(image[mask > 0] + 30, 220)
    image[0, 20], image[0, 21] = 255, max(low - 50, 0)
    found = measure(image, mask, ignored)
    cut = measure(np.ascontiguousarray(image[:, :18]), np.ascontiguousarray(mask[:, :18]))
    for name in {*MEASURES, "raw_mae", "false_alarm", "object_share", "union"} - {
        *("weighted_f", "boundary_iou", "s_measure", "mean_e", "max_e", "adaptive_e")
    }:
        assert found.values[name] == pytest.approx(cut.values[name]), name
    for name in ("s_measure", "mean_e", "max_e", "adaptive_e"):
        assert found.values[name] == pytest.approx(cut.values[name], abs=0.005), name


def test_false_alarms_are_those_of_the_map_as_it_is_in_the_background_alone() -> None:
    """20 of 64 background pixels are above one half; stretched, 120 levels would be as well."""
    image = np.full((8, 10), 120, np.uint8)
    image[LEFT > 0], image[6:, :] = 0, 200
    found = measure(image, LEFT).values
    assert found["false_alarm"] == pytest.approx(20 / 64)
    assert found["raw_mae"] == pytest.approx((16 * 255 + 20 * 200 + 44 * 120) / 80 / 255)


# --- sets


def test_an_iou_is_read_off_at_the_nearest_level() -> None:
    rows, curves = tabulated(["a"], [measure(255 * LEFT, LEFT)])
    found = build_scores(rows, {**curves.of_images, "iou": np.arange(256.0)[None]})
    for threshold, level in ((0.0, 0), (0.7, 178), (0.3, 76), (1.0, 255)):
        assert found.iou_at(threshold) == level  # 178.5 and 76.5, rounded to even


def test_images_without_an_object_count_in_no_mean_and_no_curve() -> None:
    half = np.where(LEFT, 255, 0).astype(np.uint8)
    half[:, 3:] = 0  # two of four columns
    measured = [measure(255 * LEFT, LEFT), measure(half, NOTHING), measure(half, LEFT)]
    found = scores_of(["COD10K-CAM-1-Sea-1-x", "COD10K-CAM-1-Sea-2-x", "other"], measured)
    assert found.mean["iou"] == pytest.approx(0.75)
    assert found.curves["recall"][200] == pytest.approx(0.75)
    assert found.curves["iou"][200] == pytest.approx(0.75)
    assert {row["group"]: (row["n"], row["mean"]["iou"]) for row in found.by_class} == {
        "Sea": (2, 1.0),
        "other names": (1, 0.5),
    }
    assert found.empty["mae"] == pytest.approx(8 / 80)
    curves = Curves(3)
    for each in measured:
        curves.take(each)
    assert curves.means()["recall"][200] == pytest.approx(0.75)


# ---- refusals, in whole sentences ----------------------------------------------------------------


def refused(call: Callable[..., Any], *words: Any, **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*words, **how)
    return str(caught.value)


def test_a_folder_of_maps_that_does_not_fit_is_told_why(tmp_path: Path) -> None:
    maps, truth = tmp_path / "maps", tmp_path / "GT"
    for name in "abcd":
        picture(truth / f"{name}.png", 255 * LEFT)
    picture(maps / "x.png", 255 * LEFT)
    assert refused(score_folder, maps, truth) == (
        "No map has the name of a mask: maps x; masks a, b, c and 1 more. Map and mask belong "
        "together by file name without suffix."
    )
    picture(maps / "A.png", 255 * LEFT)
    picture(maps / "B.png", 255 * LEFT)
    assert refused(score_folder, maps, truth) == (
        "Names differ in upper and lower case: A for a, B for b. Rename the maps."
    )
    for old in ("A", "B"):
        (maps / f"{old}.png").rename(maps / f"{old.lower()}.png")
    assert refused(score_folder, maps, truth) == (
        "2 of 4 masks have no map: c, d. Predict them too, or give the masks of this set only."
    )
    for name in "cd":
        picture(maps / f"{name}.png", 255 * LEFT.T)
    assert refused(score_folder, maps, truth) == ("1 maps have no mask: x. Remove or score apart.")
    (maps / "x.png").unlink()
    assert refused(score_folder, maps, truth) == (
        f"{maps / 'c.png'} has (height, width) (10, 8), its mask (8, 10). Have the method stretch "
        "its maps to the mask's size before it writes them."
    )


def test_images_without_a_map_are_counted_and_named(pairs: list[Pair], tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    picture(maps / "m1.png", 255 * LEFT)
    picture(maps / "other.png", 255 * LEFT)
    assert refused(score_maps, maps, pairs) == (
        f"{maps}: 2 of 3 images have no map there: i0, i2 (maps: m1, other). Give the folder that "
        "holds a map of each image that is scored, named like it; maps of several sets in a folder "
        "each, named like the set."
    )
    assert refused(score_maps, maps, []) == (
        "There are no images to score. Give a folder, or a split, that has some."
    )


def test_masks_of_another_shape_are_listed_up_to_five(tmp_path: Path) -> None:
    image = picture(tmp_path / "i.png", np.zeros((8, 10, 3)))
    wrong = picture(tmp_path / "w.png", np.zeros((8, 20)))
    right = picture(tmp_path / "r.png", np.zeros((16, 20)))  # of another size alone
    refuse_other_shapes([Pair("a", image, right, "x")])
    pairs = [Pair("a", image, right, "x"), *[Pair("a", image, wrong, "x")] * 7]
    lines = refused(refuse_other_shapes, pairs).split("\n")
    assert lines[0] == "7 of 8 masks cannot be scored:" and len(lines) == 8
    assert all(line.startswith("  ") and "20x8" in line for line in lines[1:6])
    assert lines[6:] == [
        "  ... and 2 more",
        "Put the mask that belongs to the image in its place, or remove both. Where the photos are "
        "turned by EXIF, --mask-exif says how the masks were drawn.",
    ]
    assert "more" not in refused(refuse_other_shapes, pairs[:6])


def test_progress_and_threads_are_as_asked(
    pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, threads = [], []
    whole = scoring.in_order

    def ordered(function: Any, items: Any, *, workers: int) -> Any:
        threads.append(workers)
        return whole(function, items, workers=workers)

    monkeypatch.setattr(scoring, "in_order", ordered)
    monkeypatch.setattr(scoring, "cores", lambda: 3)
    for number in range(3):
        picture(tmp_path / "maps" / f"m{number}.png", 255 * LEFT)
    maps = tmp_path / "maps"
    how: dict[str, Any] = {"progress": lambda *now: told.append(now)}
    found = score_folder(maps, tmp_path / "GT", workers=2, **how)
    assert threads == [2] and told == [(1, 3), (2, 3), (3, 3)]
    assert found.per_image["name"].tolist() == ["m0", "m1", "m2"]
    assert found.seconds_per_image is None and {*found.curves} == {
        *("e", "f", "iou", "precision", "recall")
    }
    told.clear()
    by_pairs = score_maps(maps, pairs, **how)
    assert threads == [2, 3] and told == [(1, 3), (2, 3), (3, 3)]
    assert by_pairs.per_image["name"].tolist() == ["i0", "i1", "i2"]
    assert {*by_pairs.curves} == {*found.curves} and by_pairs.mean == found.mean
    score_folder(maps, tmp_path / "GT")
    evaluate(Told(), pairs)  # type: ignore[arg-type]
    assert threads == [2, 3, 3, 3]


def test_what_is_measured_already_is_scored_with_its_names_and_times() -> None:
    measured = [measure_map(LEFT * 255, LEFT), measure_map(NOTHING, LEFT)]
    found = scores_of(["a", "b"], measured, 0.25)
    assert found.per_image["name"].tolist() == ["a", "b"] and found.seconds_per_image == 0.25
    assert found.mean["iou"] == 0.5 and len(found.curves) == 5
    assert scores_of(["a"], measured[:1]).seconds_per_image is None
    with pytest.raises(ValueError, match="zip"):
        scores_of(["a"], measured)


def test_labels_of_a_mask_say_what_counts() -> None:
    """1 is the object, and what is ignored counts nowhere, whatever was found there."""
    labels = LEFT.copy()
    labels[:, 7:] = IGNORED
    found = np.maximum(LEFT, labels == IGNORED) * np.uint8(255)
    values = measure_map(found, labels).values
    assert values["iou"] == 1.0 and values["object_share"] == pytest.approx(16 / 56)
