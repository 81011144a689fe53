"""The measures against pysodmetrics, against counting by hand, and on maps with a known answer."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import py_sod_metrics as toolbox
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.metrics import OF_THE_FIELD, cut, measure
from camoxpert_nb.evaluation.metrics_of_batches import batch_iou, batch_mae
from camoxpert_nb.evaluation.weighted_f import (
    _nearest_table,
    _reach,
    _squared_distance,
    _squared_nearby,
)

Array = NDArray[np.uint8]


def values_of(image: NDArray, mask: NDArray) -> dict[str, float]:
    return measure(image, mask).values


def oracle(image: Array, mask: Array) -> tuple[dict[str, float], dict[str, NDArray]]:
    handlers = {
        "f": toolbox.FmeasureHandler(True, True),
        "iou": toolbox.IOUHandler(True, False, with_binary=True),
        "dice": toolbox.DICEHandler(False, False, with_binary=True),
        "precision": toolbox.PrecisionHandler(True, False),
        "recall": toolbox.RecallHandler(True, False),
    }
    steps = (toolbox.Smeasure(), toolbox.WeightedFmeasure(), toolbox.MAE(), toolbox.Emeasure())
    for step in (*steps, counted := toolbox.FmeasureV2(handlers)):
        step.step(image, mask * np.uint8(255))
    s, weighted, mae, e = (step.get_results() for step in steps)
    found = counted.get_results()
    curves = {name: found[name]["dynamic"][::-1] for name in ("f", "iou", "precision", "recall")}
    curves["e"] = e["em"]["curve"][::-1]
    values = {"iou": found["iou"]["binary"], "dice": found["dice"]["binary"], "s_measure": s["sm"]}
    values |= {"weighted_f": weighted["wfm"], "mae": mae["mae"]}
    for name, adaptive in (("e", e["em"]["adp"]), ("f", found["f"]["adaptive"])):
        values[f"mean_{name}"], values[f"max_{name}"] = curves[name].mean(), curves[name].max()
        values[f"adaptive_{name}"] = adaptive
    return values, curves


def blobs(rng: np.random.Generator, height: int, width: int, count: int, radius: int) -> Array:
    mask = np.zeros((height, width), np.uint8)
    for _ in range(count):
        center = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.integers(1, radius)), int(rng.integers(1, radius))
        cv2.ellipse(mask, center, axes, int(rng.integers(180)), 0, 360, 1, -1)
    return mask


def masks(rng: np.random.Generator, height: int, width: int) -> Iterator[tuple[str, Array]]:
    empty = np.zeros((height, width), np.uint8)
    yield "empty", empty
    yield "full", empty + 1
    for name, base, value in (("one pixel", empty, 1), ("all but one pixel", empty + 1, 0)):
        mask = base.copy()
        mask[rng.integers(height - 1), rng.integers(width - 1)] = value
        yield name, mask
    yield "huge", 1 - blobs(rng, height, width, 2, 8)
    yield "one object", blobs(rng, height, width, 1, 30)
    yield "many objects", blobs(rng, height, width, 12, 6)
    for share in (0.004, 0.05, 0.5):
        yield f"scattered {share}", (rng.random((height, width)) < share).astype(np.uint8)
    half = empty.copy()
    half[:, width // 2 :] = 1  # a quadrant all object, another all background
    yield "half", half


def maps(rng: np.random.Generator, mask: Array) -> Iterator[tuple[str, Array]]:
    soft = cv2.GaussianBlur(mask * np.float32(255), (0, 0), 3)
    noise = rng.normal(0, 20, mask.shape)
    yield "perfect", mask * np.uint8(255)
    yield "inverted", (1 - mask) * np.uint8(255)
    for level in (0, 77, 127, 255):
        yield f"constant {level}", np.full_like(mask, level)
    yield "random", rng.integers(0, 256, mask.shape, dtype=np.uint8)
    yield "soft", np.rint(soft).astype(np.uint8)
    yield "noisy", np.rint((soft + noise).clip(0, 255)).astype(np.uint8)
    yield "weak", np.rint(soft * 0.03 + 40).astype(np.uint8)
    yield "binary, moved", np.roll(mask, 3, 1) * np.uint8(255)
    yield "few levels", (np.rint(soft / 85) * 60).astype(np.uint8)
    one = np.zeros_like(mask)
    one[rng.integers(len(one)), 0] = 9
    yield "one pixel", one


def pairs() -> Iterator[tuple[str, Array, Array]]:
    rng = np.random.default_rng(0)
    for height, width in ((61, 117), (96, 64)):
        for mask_name, mask in masks(rng, height, width):
            for name, image in maps(rng, mask):
                yield f"{name} map, {mask_name} mask, {height} x {width}", image, mask


def test_every_measure_and_curve_equals_pysodmetrics() -> None:
    count = 0
    for name, image, mask in pairs():
        expected, curves = oracle(image, mask)
        found = measure(image, mask)
        for key in OF_THE_FIELD:
            assert found.values[key] == pytest.approx(expected[key], abs=1e-9), f"{key}: {name}"
        for key, curve in curves.items():
            np.testing.assert_allclose(found.curves[key], curve, 0, 1e-9, err_msg=f"{key}: {name}")
        count += 1
    assert count >= 200


def kinds() -> Iterator[tuple[str, Array, Array]]:
    """Pairs as large as need be for what the measures treat apart, each with other maps."""
    rng, shape = np.random.default_rng(5), (150, 210)
    thin = np.zeros(shape, np.uint8)
    for _ in range(12):
        start, end = (tuple(rng.integers(0, shape[1], 2).tolist()) for _ in range(2))
        cv2.line(thin, start, end, 1, int(rng.integers(1, 4)))
    huge = np.ones(shape, np.uint8)  # whole rows and columns of it part the background
    huge[:40, :30] = huge[100:, 55:90] = huge[:25, 150:] = huge[:, 120:123] = 0
    huge[97, :] = huge[3, 40] = 0
    objects = {"blobs": blobs(rng, *shape, 25, 14), "one object": blobs(rng, *shape, 1, 60)}
    for what, mask in (objects | {"thin": thin, "huge": huge, "huge, turned": huge.T}).items():
        soft = cv2.GaussianBlur(np.ascontiguousarray(mask) * np.float32(230), (0, 0), 5)
        yield f"{what}, soft map", np.rint(soft).astype(np.uint8), mask
        noisy = soft + rng.uniform(0, 20, mask.shape)
        yield f"{what}, noise everywhere", np.rint(noisy).astype(np.uint8), mask
        nearly = 255 / (1 + np.exp(-(soft - 115) / 3))
        yield f"{what}, nearly binary map", np.rint(nearly).astype(np.uint8), mask
        yield f"{what}, map of noise", rng.integers(0, 256, mask.shape, np.uint8), mask
        yield f"{what}, map of zeros", np.zeros(mask.shape, np.uint8), mask
        yield f"{what}, faint map", np.rint(soft / 60 + 90).astype(np.uint8), mask


@pytest.mark.parametrize(
    ("image", "mask"), [pytest.param(image, mask, id=what) for what, image, mask in kinds()]
)
def test_each_kind_of_map_equals_pysodmetrics_but_for_rounding(image: Array, mask: Array) -> None:
    expected, curves = oracle(image, mask)
    found = measure(image, mask)
    assert {key: found.values[key] for key in OF_THE_FIELD} == pytest.approx(
        expected, rel=0, abs=1e-12
    )
    for key, curve in curves.items():
        np.testing.assert_allclose(found.curves[key], curve, 0, 1e-12, err_msg=key)


@pytest.mark.parametrize("level", [51, 102, 153, 204])
def test_a_level_that_is_the_adaptive_threshold_falls_on_the_side_of_the_toolbox(
    level: int,
) -> None:
    rng = np.random.default_rng(level)
    levels = np.zeros(100, np.uint8)
    levels[:25], levels[25 : 25 + level * 100 // 1020] = level, 255
    assert 2 * levels.mean() == level
    mask = blobs(rng, 10, 10, 1, 5)
    mask[-1] = mask[:, -1] = 0  # keeps pysodmetrics from NaN
    for _ in range(30):
        image = rng.permutation(levels).reshape(10, 10)
        expected, found = oracle(image, mask)[0], values_of(image, mask)
        for key in ("adaptive_e", "adaptive_f"):
            assert found[key] == pytest.approx(expected[key], abs=1e-12)


def test_distance_counts_far_beyond_the_window_that_is_looked_at() -> None:
    mask = np.zeros((40, 700), np.uint8)
    mask[10, 3] = 1
    image = mask * np.uint8(255)
    image[:, 500:] = 90
    assert values_of(image, mask)["weighted_f"] == pytest.approx(
        oracle(image, mask)[0]["weighted_f"], abs=1e-9
    )


def test_tiny_images_equal_pysodmetrics() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        height, width = rng.integers(2, 9, 2)
        mask = (rng.random((height, width)) < 0.4).astype(np.uint8)
        mask[-1] = mask[:, -1] = 0  # keeps pysodmetrics from NaN
        image = rng.integers(0, 256, (height, width), dtype=np.uint8)
        expected = oracle(image, mask)[0]
        found = values_of(image, mask)
        assert {key: found[key] for key in OF_THE_FIELD} == pytest.approx(expected, abs=1e-9)


def scenes(rng: np.random.Generator) -> Iterator[Array]:
    """Objects with many equally near pixels, whole rows and columns of them, and odd sizes."""
    height, width = (int(side) for side in rng.integers(5, 120, 2))
    yield blobs(rng, height, width, int(rng.integers(1, 30)), int(rng.integers(2, 12)))
    grid = np.zeros((height, width), np.uint8)
    grid[:: int(rng.integers(2, 9)), :: int(rng.integers(2, 9))] = 1  # ties everywhere between
    yield grid
    yield np.maximum(grid, blobs(rng, height, width, 2, 9))
    lines = np.zeros((height, width), np.uint8)
    lines[rng.integers(0, height, 2)] = 1
    lines[:, rng.integers(0, width, 2)] = 1
    yield lines
    yield 1 - grid
    yield (rng.random((height, width)) < rng.choice([0.002, 0.3, 0.9])).astype(np.uint8)


@pytest.mark.parametrize("seed", range(25))
def test_weighted_f_equals_pysodmetrics_however_far_something_was_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for mask in scenes(rng):
        reach = int(rng.integers(0, 60))  # on both sides of where another distance map begins
        around = cv2.dilate(mask, np.ones((2 * reach + 1,) * 2, np.uint8))
        image = np.asarray(rng.integers(0, 256, mask.shape) * around, np.uint8)
        expected = toolbox.WeightedFmeasure()
        expected.step(image, mask * np.uint8(255))
        wanted = expected.get_results()["wfm"]
        assert values_of(image, mask)["weighted_f"] == pytest.approx(wanted, rel=0, abs=1e-12)


@pytest.mark.parametrize("seed", range(25))
def test_squared_distances_are_exact_wherever_something_was_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for mask in filter(np.any, scenes(rng)):
        distance = np.rint(distance_transform_edt(mask == 0) ** 2)
        for reach in (0, 3, 12, 30, 200):
            found = ((distance <= reach**2) & (rng.random(mask.shape) < 0.2)).astype(np.uint8)
            squared = _squared_distance(found, mask)
            needed = (found > 0) | (distance <= 18)  # the blur's window reaches sqrt(18) pixels
            np.testing.assert_array_equal(squared[needed], distance[needed])
            assert (squared >= distance).all()
        for reach in (1, 2, 7, 40):
            near = distance <= reach**2
            np.testing.assert_array_equal(_squared_nearby(mask, reach)[near], distance[near])


def test_the_distance_looked_at_is_no_less_than_that_of_what_was_found() -> None:
    mask = np.zeros((130, 130), np.uint8)
    mask[65, 65] = 1
    distance = distance_transform_edt(mask == 0)
    for row, column in np.ndindex(33, 33):  # all directions, and all places in a cell
        found = np.zeros_like(mask)
        found[65 + row, 65 - column] = 1
        reach = _reach(found, mask)
        assert (
            distance[65 + row, 65 - column] <= reach <= distance[65 + row, 65 - column] * 1.02 + 12
        )


def test_an_object_in_the_last_corner_has_numbers_where_pysodmetrics_has_nan() -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[-1, -1] = 1
    assert values_of(mask * np.uint8(255), mask)["s_measure"] == pytest.approx(1)
    assert 0 <= values_of((1 - mask) * np.uint8(255), mask)["s_measure"] < 0.1


def test_known_answers() -> None:
    mask = np.zeros((50, 80), np.uint8)
    mask[10:30, 20:60] = 1  # a fifth of the image
    perfect, inverted = values_of(mask * 255, mask), values_of((1 - mask) * np.uint8(255), mask)
    for key in ("iou", "dice", "s_measure", "weighted_f", "max_f", "adaptive_f"):
        assert perfect[key] == pytest.approx(1), key
        assert inverted[key] == pytest.approx(0, abs=0.02) or key == "max_f", key
    assert inverted["max_f"] == pytest.approx(1.3 * 0.2 / (0.3 * 0.2 + 1))  # threshold 0: all
    for key in ("max_e", "adaptive_e"):  # the definition divides by n - 1
        assert perfect[key] == pytest.approx(4000 / 3999)
    assert perfect["mae"] == 0
    assert inverted["mae"] == 1
    everything = values_of(np.full_like(mask, 255), mask)
    assert everything["iou"] == everything["mae"] / 4 == pytest.approx(0.2)
    assert everything["dice"] == pytest.approx(1 / 3)
    assert everything["false_alarm"] == 1
    nothing = values_of(np.zeros_like(mask), mask)
    assert nothing["iou"] == nothing["dice"] == nothing["false_alarm"] == 0
    assert nothing["weighted_f"] == pytest.approx(0)
    assert nothing["mae"] == nothing["object_share"] == pytest.approx(0.2)


def test_an_empty_mask_has_iou_0_whatever_is_predicted() -> None:
    mask = np.zeros((20, 30), np.uint8)
    right, wrong = values_of(mask, mask), values_of(mask + 255, mask)
    for key in ("iou", "dice", "weighted_f", "max_f", "object_share"):
        assert right[key] == wrong[key] == 0
    assert (right["mae"], right["s_measure"]) == (0, 1)
    assert (wrong["mae"], wrong["s_measure"], wrong["raw_mae"], wrong["false_alarm"]) == (
        1,
        0,
        1,
        1,
    )
    faint = mask.copy()
    faint[0, 0] = 5  # min-max blows it up, which "raw_mae" does not
    assert values_of(faint, mask)["mae"] == pytest.approx(1 / 600)
    assert values_of(faint, mask)["raw_mae"] == pytest.approx(5 / 255 / 600)


def test_a_map_is_stretched_first_and_a_float_map_rounded_as_a_png_is() -> None:
    rng = np.random.default_rng(0)
    mask = blobs(rng, 40, 60, 2, 15)
    image = (cv2.blur(mask * np.uint8(255), (9, 9)) // 5) * 5
    image[0, 0], image[0, 1] = 0, 255  # 51 steps: no level is exactly half
    assert values_of(image // 5 + 100, mask)["iou"] == values_of(image, mask)["iou"]
    probability = rng.random((40, 60)).astype(np.float32)
    assert values_of(probability, mask) == values_of(
        np.rint(probability * 255).astype(np.uint8), mask
    )
    assert values_of(image, mask.astype(bool)) == values_of(image, mask)
    assert values_of(image[:, ::-1], mask[:, ::-1])["iou"] == values_of(image, mask)["iou"]


def test_a_cut_map_is_what_the_measures_score() -> None:
    for name, image, mask in pairs():
        shown, measured = cut(image, mask), measure(image, mask)
        assert (shown.found & (mask > 0)).sum() == measured.values["intersection"] or not mask.any()
        assert shown.iou == (measured.values["iou"] if mask.any() else None), name
        several = cut(image, mask, 0.5, 0.0, 0.9)
        assert several.curves["iou"][0] == shown.curves["iou"][0]
        np.testing.assert_array_equal(several.found, shown.stretched > 0.5)
        np.testing.assert_array_equal(
            several.curves["false_alarm"],
            [((shown.stretched > at) & (mask == 0)).mean() for at in (0.5, 0.0, 0.9)],
        )


def test_a_map_is_stretched_before_its_cut_where_there_is_an_object() -> None:
    faint, wanted = np.array([[0.1, 0.15, 0.3]]), np.array([[False, False, True]])
    assert cut(faint, wanted).found.tolist() == [[False, False, True]]
    assert not cut(faint, np.zeros_like(wanted)).found.any()
    half, found = np.array([[1, 1, 0, 0]], bool), np.array([[1.0, 0.0, 1.0, 0.0]])
    assert cut(found, half).iou == pytest.approx(1 / 3)
    assert cut(found, np.zeros_like(half)).iou is None


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8), "Resize the map"),
        (np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5), np.uint8), "must be \\(H, W\\)"),
        (np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8), "must be \\(H, W\\)"),
        (np.full((4, 5), 3.0), np.zeros((4, 5), np.uint8), "from 3.0 to 3.0.*sigmoid"),
        (np.full((4, 5), -0.1), np.zeros((4, 5), np.uint8), "sigmoid"),
        (np.full((4, 5), np.nan), np.zeros((4, 5), np.uint8), "from nan"),
        (np.zeros((4, 5), np.int64), np.zeros((4, 5), np.uint8), "int64"),
        (np.zeros((4, 5), np.uint8), np.full((4, 5), 255, np.uint8), "up to 255.*read_mask"),
        (np.zeros((4, 5), np.uint8), np.zeros((4, 5)), "float64"),
    ],
)
def test_unusable_input_is_refused(image: NDArray, mask: NDArray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        values_of(image, mask)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    found = [(image, mask) for _, image, mask in pairs() if image.shape == (96, 64)]
    images, wanted = (
        torch.from_numpy(np.stack(part))[:, None] for part in zip(*found, strict=True)
    )
    return images.float() / 255, wanted


def test_batch_measures_equal_the_measures_of_each_image() -> None:
    probability, mask = batch()
    single = [
        values_of(image[0].numpy(), wanted[0].numpy())
        for image, wanted in zip(probability, mask, strict=True)
    ]
    assert batch_iou(probability, mask).tolist() == [values["iou"] for values in single]
    assert batch_mae(probability, mask.float()).tolist() == pytest.approx(
        [values["mae"] for values in single], abs=1e-12
    )


def test_batch_measures_round_as_the_measures_do() -> None:
    rng = np.random.default_rng(4)
    probability = rng.random((20, 1, 12, 17), dtype=np.float32) * rng.random((20, 1, 1, 1))
    probability, mask = probability.astype(np.float32), rng.integers(0, 2, probability.shape)
    single = [
        values_of(image[0], wanted[0].astype(np.uint8))["iou"]
        for image, wanted in zip(probability, mask, strict=True)
    ]
    assert batch_iou(torch.from_numpy(probability), torch.from_numpy(mask)).tolist() == single


def test_batch_measures_do_not_depend_on_the_batch_or_the_type_of_the_mask() -> None:
    probability, mask = batch()
    whole = batch_iou(probability, mask)
    parts = [batch_iou(*part) for part in zip(probability.split(7), mask.split(7), strict=True)]
    assert whole.shape == (len(mask),)
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole, batch_iou(probability, mask.float()))
    assert torch.equal(batch_mae(probability, mask), batch_mae(probability, mask.double()))


def test_ignored_pixels_change_no_measure_whatever_is_predicted_there() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        mask = (rng.random((40, 50)) > 0.6).astype(np.uint8)
        ignored = np.zeros(mask.shape, bool)
        ignored[rng.integers(0, 20) :, rng.integers(5, 40) :] = True
        first = rng.integers(0, 256, mask.shape).astype(np.uint8)
        second = np.where(ignored, rng.integers(0, 256, mask.shape), first).astype(np.uint8)
        one, other = (measure(image, mask, ignored) for image in (first, second))
        assert one.values == other.values
        assert all(np.array_equal(one.curves[key], other.curves[key]) for key in one.curves)
        outside = ~ignored
        levels = first[outside].astype(float)
        found = (levels - levels.min()) / (levels.max() - levels.min()) > 0.5
        wanted = mask[outside] > 0
        assert one.values["iou"] == pytest.approx((found & wanted).sum() / (found | wanted).sum())
        assert one.values["object_share"] == pytest.approx(wanted.mean())
        plain = measure(first, mask)
        same = measure(first, mask, np.zeros(mask.shape, bool))
        assert plain.values == same.values
        both = torch.from_numpy(np.stack([mask, ignored.astype(np.uint8)]))[None].float()
        probability = torch.from_numpy(first / np.float32(255))[None, None]
        assert batch_iou(probability, both).item() == pytest.approx(one.values["iou"])
        assert batch_mae(probability, both).item() == pytest.approx(one.values["mae"])


def test_an_image_of_ignored_pixels_alone_is_one_without_an_object() -> None:
    mask = np.ones((8, 9), np.uint8)
    found = measure(mask * 200, mask, np.ones(mask.shape, bool))
    assert found.values["object_share"] == 0
    assert all(np.isfinite(value) for value in found.values.values())


def test_of_equally_near_pixels_the_leftmost_then_the_topmost_is_taken() -> None:
    """Steps (x, y) of each squared length; lengths without a step, and what is left over, are 0."""
    table = _nearest_table()
    assert table.shape == (8, 19, 2) and table.dtype == np.intp
    by_hand = {
        0: [(0, 0)],
        1: [(-1, 0), (0, -1), (0, 1), (1, 0)],
        2: [(-1, -1), (-1, 1), (1, -1), (1, 1)],
        5: [(-2, -1), (-2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2), (2, -1), (2, 1)],
        16: [(-4, 0), (0, -4), (0, 4), (4, 0)],
        17: [(-4, -1), (-4, 1), (-1, -4), (-1, 4), (1, -4), (1, 4), (4, -1), (4, 1)],
        18: [(-3, -3), (-3, 3), (3, -3), (3, 3)],
        3: [],
        7: [],
        11: [],
    }
    for squared, steps in by_hand.items():
        padded = [*steps, *[(0, 0)] * (8 - len(steps))]
        assert [tuple(step) for step in table[:, squared].tolist()] == padded


@pytest.mark.parametrize(
    ("image", "mask", "said"),
    [
        (
            np.zeros((4, 5), np.uint8),
            np.zeros((5, 4), np.uint8),
            "The map has (height, width) (4, 5), the mask (5, 4). Resize the map to the mask's "
            "size before measuring.",
        ),
        (
            np.zeros((4, 5, 1), np.uint8),
            np.zeros((4, 5), np.uint8),
            "A map must be (H, W); this one has the shape (4, 5, 1).",
        ),
        (
            np.full((4, 5), 1.5),
            np.zeros((4, 5), np.uint8),
            "A map must be uint8 or float of 0...1; this one is float64 from 1.5 to 1.5. Apply the "
            "sigmoid to logits, and divide other ranges by their maximum.",
        ),
        (
            np.zeros((4, 5), np.uint8),
            np.full((4, 5), 2, np.uint8),
            "A mask must be uint8 or bool of 0 and 1; this one is uint8 up to 2. Read it with "
            "masks.read_mask.",
        ),
    ],
)
def test_unusable_input_is_told_what_it_is(image: NDArray, mask: NDArray, said: str) -> None:
    with pytest.raises(InputError) as caught:
        measure(image, mask)
    assert str(caught.value) == said


def test_what_is_cut_at_several_thresholds_is_counted_at_each() -> None:
    """A map of 0, 1/5, 2/5 and 1 whose object is the second and last pixel."""
    image, mask = np.array([[0, 51, 102, 255]], np.uint8), np.array([[0, 1, 0, 1]], np.uint8)
    found = cut(image, mask, 0.1, 0.3, 0.9)
    assert found.stretched.tolist() == [pytest.approx([0, 0.2, 0.4, 1])]
    assert found.found.tolist() == [[False, True, True, True]]
    assert found.iou == pytest.approx(2 / 3)
    assert found.curves["iou"].tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 2])
    assert found.curves["false_alarm"].tolist() == [0.25, 0.25, 0]
    # precision 2/3, 1/2, 1 and recall 1, 1/2, 1/2
    f = [1.3 * p * r / (0.3 * p + r) for p, r in ((2 / 3, 1), (1 / 2, 1 / 2), (1, 1 / 2))]
    assert found.curves["f"].tolist() == pytest.approx(f)
    assert cut(image, mask).found.tolist() == [[False, False, False, True]]
    assert cut(image, mask, 51 / 255).found.tolist() == [[False, False, True, True]]


def test_measures_of_a_case_computed_by_hand() -> None:
    """Four pixels of 0, 1/5, 2/5 and 1, of which the second and the last are the object."""
    image, mask = np.array([[0, 51, 102, 255]], np.uint8), np.array([[0, 1, 0, 1]], np.uint8)
    values, curves = measure(image, mask)
    assert (values["intersection"], values["union"]) == (1, 2)
    assert values["iou"] == 0.5 and values["dice"] == pytest.approx(2 / 3)
    assert values["mae"] == values["raw_mae"] == pytest.approx((0 + 0.8 + 0.4 + 0) / 4)
    assert (values["object_share"], values["false_alarm"]) == (0.5, 0)
    # above the first level 3 are found, from 52 on 2, from 103 on one alone
    assert [curves["precision"][at] for at in (0, 1, 51, 52, 102, 103, 255)] == pytest.approx(
        [1 / 2, 2 / 3, 2 / 3, 1 / 2, 1 / 2, 1, 1]
    )
    assert [curves["recall"][at] for at in (0, 51, 52, 255)] == [1, 1, 0.5, 0.5]
    assert [curves["iou"][at] for at in (0, 1, 52, 103)] == pytest.approx([0.5, 2 / 3, 1 / 3, 0.5])
    # The adaptive threshold is twice the mean, 0.8: only the last is found.
    assert values["adaptive_f"] == pytest.approx(1.3 * 0.5 / (0.3 + 0.5))
    assert values["max_f"] == pytest.approx(max(curves["f"]))
    assert values["mean_f"] == pytest.approx(sum(curves["f"]) / 256)


def test_a_map_above_one_half_off_the_object_is_a_false_alarm_as_it_is() -> None:
    """128 of 255 is more than one half, 127 is not; a third of the background is above."""
    image = np.array([[255, 128, 127, 0]], np.uint8)
    values = measure(image, np.array([[1, 0, 0, 0]], bool)).values
    assert values["false_alarm"] == pytest.approx(1 / 3)
    faint = measure(image // 2, np.array([[1, 0, 0, 0]], bool)).values
    assert faint["false_alarm"] == 0 and faint["iou"] == 0.5
    assert faint["raw_mae"] == pytest.approx((128 + 64 + 63) / 255 / 4)
    assert faint["mae"] == pytest.approx((0 + 64 + 63) / 127 / 4)
