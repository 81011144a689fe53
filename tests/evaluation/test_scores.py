"""Means, intervals and groups against cases whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from camoxpert_nb.evaluation.metrics import MEASURES, measure
from camoxpert_nb.evaluation.scores import (
    LABELS,
    RESAMPLES,
    SIZES,
    Curves,
    bootstrap,
    build_scores,
    curve_table,
    labelled,
    percentile_interval,
    write_csv,
)

SHARES = (0.0, 0.0, 0.002, 0.0099, 0.01, 0.049, 0.05, 0.149, 0.15, 1.0)


def examined(count: int = 6, seed: int = 0, side: int = 40):
    """Rows and curves of random maps on boxes of 4 % to 36 %, by the real measures."""
    rng, rows, curves = np.random.default_rng(seed), [], []
    for number in range(count):
        mask = np.zeros((side, side), np.uint8)
        length = rng.integers(side // 5, side * 3 // 5)
        mask[3 : 3 + length, 5 : 5 + length] = 1
        values = measure(0.3 * mask + 0.7 * rng.random((side, side)), mask)
        rows.append({"name": f"image-{number}", **values.values})
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
    for number in range(5):
        mask = np.zeros((side, side), np.uint8)
        mask[4:20, 3 : 3 + 3 * number] = 1  # the first has no object
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
