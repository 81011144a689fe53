"""Means, intervals and groups against cases whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from camoxpert_nb.evaluation.metrics import MEASURES, Measured, measure
from camoxpert_nb.evaluation.scores import (
    LABELS,
    RESAMPLES,
    SIZES,
    Curves,
    Scores,
    bootstrap,
    build_scores,
    curve_table,
    labelled,
    number,
    percentile_interval,
    write_csv,
)

SHARES = (0.0, 0.0, 0.002, 0.0099, 0.01, 0.049, 0.05, 0.149, 0.15, 1.0)


def examined(count: int = 6, seed: int = 0, side: int = 40):
    """Rows and curves of random maps on boxes of 4 % to 36 %, by the real measures."""
    rng, rows, curves = np.random.default_rng(seed), [], []
    for place in range(count):
        mask = np.zeros((side, side), np.uint8)
        length = rng.integers(side // 5, side * 3 // 5)
        mask[3 : 3 + length, 5 : 5 + length] = 1
        values = measure(0.3 * mask + 0.7 * rng.random((side, side)), mask)
        rows.append({"name": f"image-{place}", **values.values})
        curves.append(values.curves)
    return pd.DataFrame(rows), {key: np.stack([c[key] for c in curves]) for key in curves[0]}


def with_values(values: np.ndarray, shares: np.ndarray | None = None, names: list | None = None):
    rows = pd.DataFrame(dict.fromkeys(MEASURES, values))
    rows.insert(0, "name", names or [f"image-{n}" for n in range(len(rows))])
    rows["object_share"] = 0.1 if shares is None else shares
    rows = rows.assign(intersection=values, union=1.0, raw_mae=0.5, false_alarm=0.25)
    return rows, {key: np.repeat(values[:, None], 256, 1) for key in ("e", "f", "iou")}


def test_every_measure_has_a_label() -> None:
    assert tuple(LABELS) == MEASURES


def test_means_are_plain_means_and_maxima_those_of_the_mean_curve() -> None:
    rows, curves = examined()
    found = build_scores(rows, curves)
    for name in set(MEASURES) - {"max_e", "max_f"}:
        assert found.mean[name] == pytest.approx(rows[name].mean(), abs=1e-12)
    assert found.mean["max_e"] == pytest.approx(curves["e"].mean(0).max())
    assert found.mean["max_f"] < rows["max_f"].mean()


def test_pooled_iou_is_that_of_all_pixels_as_one_image() -> None:
    rows, curves = examined()
    pooled = rows["intersection"].sum() / rows["union"].sum()
    found = build_scores(rows, curves)
    assert found.other["pooled_iou"] == pytest.approx(pooled)
    assert found.other["pooled_iou"] != pytest.approx(found.mean["iou"], abs=1e-3)


def test_the_best_threshold_is_where_its_iou_is() -> None:
    rows, curves = examined()
    found = build_scores(rows, curves)
    best = found.other["best_threshold_iou"]
    assert found.iou_at(found.other["best_threshold"]) == pytest.approx(best)
    assert best == pytest.approx(max(found.iou_at(level / 255) for level in range(256)))
    assert found.iou_at(0.5) == pytest.approx(found.mean["iou"], abs=0.02)


def test_the_interval_of_a_coin_is_that_of_the_textbook() -> None:
    coin = np.tile([0.0, 1.0], 200)
    low, high = build_scores(*with_values(coin)).interval["iou"]
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025), abs=0.006)
    reference = stats.bootstrap((coin,), np.mean, method="percentile", n_resamples=2000)
    assert (low, high) == pytest.approx(tuple(reference.confidence_interval), abs=0.008)


def test_the_interval_holds_the_truth_about_19_times_in_20() -> None:
    rng = np.random.default_rng(3)
    held = 0
    weights = bootstrap(60)
    for _ in range(400):
        low, high = percentile_interval(weights @ rng.beta(5, 2, 60))
        held += low < 5 / 7 < high
    assert 0.90 < held / 400 < 0.98


def test_resamples_are_repeatable_and_draw_n_images_each() -> None:
    weights = bootstrap(7)
    np.testing.assert_array_equal(weights, bootstrap(7))
    assert weights.shape == (RESAMPLES, 7)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights.mean(0), 1 / 7, atol=0.01)
    assert (bootstrap(7, seed=1) != weights).any()


def test_one_image_has_no_interval_and_equal_images_have_no_width() -> None:
    assert build_scores(*with_values(np.array([0.7]))).interval["iou"] is None
    low, high = build_scores(*with_values(np.full(9, 0.7))).interval["iou"]
    assert (low, high) == pytest.approx((0.7, 0.7))


def test_sizes_sum_to_n_and_their_means_to_the_mean() -> None:
    values = np.linspace(0, 0.9, len(SHARES))
    rows, curves = with_values(values, np.array(SHARES))
    found = build_scores(rows, curves)
    assert [(row["group"], row["n"]) for row in found.by_size] == list(
        zip(SIZES, (2, 2, 2, 2, 2), strict=True)
    )
    assert sum(row["n"] for row in found.by_size) == found.n == 10
    counted = [row for row in found.by_size if row["mean"]["iou"] is not None]
    assert len(counted) == 4
    mean = np.average([r["mean"]["iou"] for r in counted], weights=[r["n"] for r in counted])
    assert mean == pytest.approx(found.mean["iou"])
    assert "no object none (n 2)" in found.summary()


def test_groups_take_their_own_maximum_of_the_curve() -> None:
    rows, curves = examined()
    rows["object_share"] = [0.005, 0.005, 0.1, 0.1, 0.1, 0.1]
    small, large = build_scores(rows, curves).by_size
    assert small["mean"]["max_f"] == pytest.approx(curves["f"][:2].mean(0).max())
    assert large["mean"]["max_f"] == pytest.approx(curves["f"][2:].mean(0).max())
    assert small["interval"][0] <= small["mean"]["iou"] <= small["interval"][1]


def test_super_classes_come_from_the_names_of_cod10k_alone() -> None:
    names = [
        "COD10K-CAM-1-Aquatic-13-Pipefish-3564",
        "COD10K-CAM-2-Terrestrial-23-Cat-1506",
        "COD10K-NonCAM-1-Aquatic-3-Crab-9",
        "camourflage_00012",
    ]
    found = build_scores(*with_values(np.array([0.2, 0.4, 0.6, 0.8]), names=names))
    groups = {row["group"]: (row["n"], row["mean"]["iou"]) for row in found.by_class}
    expected = {"Aquatic": (2, 0.4), "Terrestrial": (1, 0.4), "other names": (1, 0.8)}
    assert groups == {name: (n, pytest.approx(mean)) for name, (n, mean) in expected.items()}
    assert build_scores(*examined()).by_class == []


def test_a_set_of_empty_masks_has_counts_and_no_means() -> None:
    rows, curves = with_values(np.zeros(3), np.zeros(3))
    found = build_scores(rows, curves)
    assert (found.n, found.n_empty, found.by_size[0]["n"]) == (3, 3, 3)
    assert set(found.mean.values()) | set(found.interval.values()) == {None}
    assert found.iou_at(0.5) is None
    assert found.empty == {"mae": 0.5, "false_alarm": 0.25}
    json.dumps(found.to_json(), allow_nan=False)


def test_the_table_of_all_images_is_written(tmp_path: Path) -> None:
    one, two = (build_scores(*examined(n, seed=n)) for n in (3, 4))
    tables = {"CAMO": one.per_image, "NC4K": two.per_image}
    table = pd.read_csv(write_csv(tables, tmp_path / "new" / "scores.csv"))
    assert list(table.columns[:2]) == ["dataset", "name"]
    assert table["dataset"].value_counts().to_dict() == {"CAMO": 3, "NC4K": 4}
    assert table["iou"][3:].to_numpy() == pytest.approx(two.per_image["iou"].to_numpy())


def test_curves_are_written_as_a_table_by_set_and_method(tmp_path: Path) -> None:
    one, two = (build_scores(*examined(n, seed=n)) for n in (3, 4))
    nothing = build_scores(*with_values(np.array([0.0, 0.0]), shares=np.zeros(2)))
    tables = {("CAMO", "a"): one, ("CAMO", "b"): two, ("NC4K", "a"): nothing}
    path = write_csv({key: curve_table(each) for key, each in tables.items()}, tmp_path / "c.csv")
    table = pd.read_csv(path)
    columns = ["dataset", "method", "threshold"]
    assert list(table)[:3] == columns and set(table) == {*columns, *one.curves}
    assert len(table) == 2 * 256 and set(table["dataset"]) == {"CAMO"}
    of_two = table[table["method"] == "b"]
    assert of_two["recall"].to_numpy() == pytest.approx(two.curves["recall"])
    assert of_two["threshold"].to_list() == [level / 255 for level in range(256)]


def test_curves_taken_one_by_one_are_those_of_all_at_once() -> None:
    rng, side, taken, every = np.random.default_rng(7), 30, Curves(5), []
    for place in range(5):
        mask = np.zeros((side, side), np.uint8)
        mask[4:20, 3 : 3 + 3 * place] = 1  # the first has no object
        measured = measure(rng.random((side, side)), mask)
        taken.take(measured)
        every.append(measured.curves)
    for name, curves in taken.of_images.items():
        assert np.array_equal(curves, np.stack([each[name] for each in every]))
    for name, mean in taken.means().items():
        np.testing.assert_allclose(mean, np.mean([each[name] for each in every[1:]], 0), 0, 1e-12)
    assert {*taken.of_images, *taken.means()} == set(every[0])


def test_tables_for_people_have_the_fields_names() -> None:
    frame = pd.DataFrame([{"name": "a", "s_measure": 0.5, "mean.mae": 0.1, "raw_mae": 0.2, "x": 1}])
    assert list(labelled(frame)) == [
        *("image", "S-measure (S_alpha)", "MAE", "MAE, not stretched", "x"),
    ]
    assert list(frame)[1] == "s_measure"  # the keys of files stay
    rows = [{"group": "all", "n": 3, "mean": {"iou": 0.5, "max_e": None}, "interval": (0, 1)}]
    assert list(labelled(rows)) == ["group", "images", "interval", "IoU", "max E"]


# ---- what is told, by hand -----------------------------------------------------------------------


def told(**how: Any) -> Scores:
    mean: dict[str, float | None] = {"iou": 0.5, "mae": 0.125}
    plain: dict[str, Any] = {"n": 3, "n_empty": 0, "mean": mean, "per_image": pd.DataFrame()}
    return Scores(**plain | {"curves": {}, "empty": {"mae": None, "false_alarm": None}} | how)


EMPTY = {"mae": 0.12345, "false_alarm": 0.01234}
APART = "MAE 0.1235, false alarm 1.23% of pixels"


def test_a_note_says_over_which_images_the_mean_is() -> None:
    assert told().note == "Mean over 3 images."
    assert told(n_empty=2, empty=EMPTY).note == (
        "Mean over the 1 of 3 images that have an object; empty masks are reported apart "
        f"({APART})."
    )
    assert told(n_empty=3, empty=EMPTY).note == f"No mean: all 3 masks are empty ({APART})."


def test_a_summary_has_a_line_for_each_mean_and_each_kind_of_group() -> None:
    assert told().summary() == "Mean over 3 images.\n  IoU                 0.5000\n" + (
        "  MAE                 0.1250"
    )
    groups = {
        "by_size": [
            {"group": "no object", "n": 1, "mean": {"iou": None}},
            {"group": "under 1 %", "n": 2, "mean": {"iou": 0.25}},
        ],
        "by_class": [{"group": "Aquatic", "n": 3, "mean": {"iou": 0.5}}],
    }
    full = told(
        interval={"iou": (0.25, 0.75), "mae": None},
        mean={"iou": 0.5, "max_f": None, "mae": 0.125},
        seconds_per_image=0.01234,
        **groups,
    )
    assert full.summary().split("\n") == [
        "Mean over 3 images. In brackets: 95 % intervals over the images.",
        "  IoU                 0.5000 (0.2500 to 0.7500)",
        "  MAE                 0.1250",
        "  IoU by object size: no object none (n 1), under 1 % 0.250 (n 2)",
        "  IoU by super-class: Aquatic 0.500 (n 3)",
        "  network: 0.0123 seconds per image",
    ]


def test_a_number_is_told_with_its_bounds() -> None:
    assert number(None) == number(None, 4, (0.1, 0.2)) == "none"
    assert (number(0.12345), number(0.12345, 4)) == ("0.123", "0.1235")
    assert number(0.5, 2, (0.25, 0.754)) == "0.50 (0.25 to 0.75)"
    assert number(0.5, interval=(0.25, 0.75)) == "0.500 (0.250 to 0.750)"


def test_values_for_a_file_hold_all_there_is() -> None:
    frame = pd.DataFrame([{"name": "a", "iou": 0.5}])
    curves = {"iou": np.linspace(0, 1, 256)}
    values = told(per_image=frame, curves=curves, seconds_per_image=0.5).to_json()
    assert [*values] == [
        *("n", "n_empty", "mean", "per_image", "curves", "empty", "interval", "other"),
        *("by_size", "by_class", "seconds_per_image", "note"),
    ]
    assert values["per_image"] == [{"name": "a", "iou": 0.5}]
    assert values["note"] == "Mean over 3 images." and values["seconds_per_image"] == 0.5
    assert [*values["curves"]] == ["threshold", "iou"]
    assert values["curves"]["iou"] == pytest.approx(values["curves"]["threshold"])
    assert told().to_json()["curves"] == {}


def test_an_iou_is_that_of_the_nearest_of_255_steps() -> None:
    scores = told(curves={"iou": np.arange(256.0)})
    assert [scores.iou_at(each) for each in (0, 0.5, 0.501, 1)] == [0, 128, 128, 255]
    assert scores.iou_at(51.4 / 255) == 51 and told().iou_at(0.5) is None


def test_the_middle_95_percent_are_left_without_a_fortieth_on_either_side() -> None:
    values = np.arange(0.0, 1001.0)
    assert percentile_interval(values) == pytest.approx((25, 975))
    assert percentile_interval(values, 0.9) == pytest.approx((50, 950))


def test_what_a_resample_draws_is_a_share_of_all_images() -> None:
    """Each row counts how often an image was drawn: whole numbers of fourths, in all of them."""
    weights = bootstrap(4)
    assert {*np.unique(weights * 4)} == {0, 1, 2, 3, 4}
    assert len(weights) == 1000 and (weights.sum(1) == 1).all()
    assert np.array_equal(bootstrap(4, seed=0), weights)


def test_the_best_threshold_is_that_of_the_mean_curve_of_images_with_an_object() -> None:
    """At level 51 the mean is 0.9; the image without an object would move it to level 200."""
    rows, curves = with_values(np.array([0.5, 0.5, 0.5]), np.array([0.1, 0.1, 0.0]))
    curves["iou"] = np.zeros((3, 256))
    curves["iou"][0, 51], curves["iou"][1, 51], curves["iou"][0, 200] = 0.8, 1.0, 1.0
    curves["iou"][2, 200] = 1.0
    found = build_scores(rows, curves, 0.5, {"recall": np.full(256, 0.75)})
    assert found.other["best_threshold"] == 51 / 255
    assert found.other["best_threshold_iou"] == pytest.approx(0.9)
    assert (found.n, found.n_empty, found.seconds_per_image) == (3, 1, 0.5)
    assert {*found.curves} == {"e", "f", "iou", "recall"} and found.curves["recall"][7] == 0.75
    assert found.curves["iou"][51] == pytest.approx(0.9)
    assert found.empty == {"mae": 0.5, "false_alarm": 0.25}
    assert [(row["group"], row["n"]) for row in found.by_size] == [
        *[("no object", 1), ("5 to 15 %", 2)]
    ]
    nothing = build_scores(rows[:2], {name: each[:2] for name, each in curves.items()})
    assert nothing.empty == {"mae": None, "false_alarm": None} and nothing.n_empty == 0
    assert {*nothing.curves} == {"e", "f", "iou"} and nothing.seconds_per_image is None


def test_without_a_union_the_pooled_iou_is_nothing() -> None:
    rows, curves = with_values(np.array([0.5, 0.25]))
    found = build_scores(rows.assign(intersection=[1.0, 2.0], union=[3.0, 5.0]), curves)
    assert found.other["pooled_iou"] == pytest.approx(3 / 8)
    small = build_scores(rows.assign(intersection=0.125, union=0.5), curves)
    assert small.other["pooled_iou"] == 0.25
    empty = build_scores(rows.assign(intersection=0.0, union=0.0), curves)
    assert empty.other["pooled_iou"] == 0.0
    none = build_scores(*with_values(np.zeros(2), np.zeros(2)))
    assert none.other == {"pooled_iou": None, "best_threshold_iou": None}


def test_tables_are_written_whole_and_in_order(tmp_path: Path) -> None:
    """A name that is no text of UTF-8 too, as files of other systems have."""
    one = pd.DataFrame({"name": ["a", "b\udcff"], "iou": [0.5, 0.25]}, index=[7, 9])
    path = tmp_path / "new" / "deeper" / "x.csv"
    assert write_csv({"CAMO": one, "sea": one[:1]}, path) == path
    assert path.read_text() == "dataset,name,iou\nCAMO,a,0.5\nCAMO,b\\udcff,0.25\nsea,a,0.5\n"
    write_csv({("CAMO", "ours"): one[:1]}, path)
    assert path.read_text() == "dataset,method,name,iou\nCAMO,ours,a,0.5\n"


def test_the_mean_of_a_curve_is_over_the_images_with_an_object() -> None:
    taken = Curves(3)
    for share, value in ((0.1, 1.0), (0.0, 50.0), (0.2, 3.0)):
        curves = {name: np.full(256, value) for name in ("e", "f", "iou", "recall")}
        taken.take(Measured({"object_share": share}, curves))
    assert {name: each[0] for name, each in taken.means().items()} == {"recall": 2.0}
    assert [*taken.of_images] == ["e", "f", "iou"]
    assert taken.of_images["f"][:, 9].tolist() == [1.0, 50.0, 3.0]
    assert Curves(1).means() == {}
