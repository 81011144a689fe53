"""Predicting and scoring: sizes, order, names, empty masks, and files that do not fit together."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import py_sod_metrics as toolbox
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from camoxpert_nb.data.images import read_grey, read_image, resize_image, write_map
from camoxpert_nb.data.layouts import Pair
from camoxpert_nb.data.masks import read_mask
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.metrics import MEASURES, OF_THE_FIELD, measure
from camoxpert_nb.evaluation.predict import PLAIN, Kept, Predictor, Views, predict_folder
from camoxpert_nb.evaluation.scores import LABELS
from camoxpert_nb.evaluation.scoring import evaluate, score_folder, score_maps

SIZE = 32
SIZES = ((60, 90), (41, 33), (24, 24), (80, 50), (33, 70))


class Brightness(nn.Module):
    """A stand-in for a network: bright is object. Has a norm that is frozen while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        self.norm = nn.BatchNorm2d(1)
        nn.init.constant_(self.conv.weight, 4.0)
        nn.init.constant_(self.conv.bias, -6.0)
        self.batches: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        assert image.min() >= 0 and image.max() <= 1
        self.batches.append(tuple(image.shape))
        return {"logits": self.norm(self.conv(image))}


def save(path: Path, image: NDArray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Images of five sizes: a bright ellipse that only nearly fits its mask; grey noise around."""
    rng, found = np.random.default_rng(0), []
    for number, (height, width) in enumerate(SIZES):
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        mask = (x**2 + y**2 * 2 < 0.3).astype(np.uint8)
        shown = ((x - 0.1) ** 2 + y**2 < 0.3) * rng.integers(90, 180)
        image = (shown[..., None] + rng.integers(0, 75, (height, width, 3))).astype(np.uint8)
        name = f"animal-{number}"
        files = save(tmp_path / f"Imgs/{name}.png", image), save(tmp_path / f"GT/{name}.png", mask)
        found.append(Pair(name, *files, "test"))
    return found


@pytest.fixture
def net() -> Brightness:
    return Brightness().eval()


def run(
    net: nn.Module, images: list, views: Views = PLAIN, **how: Any
) -> list[tuple[str, NDArray]]:
    found = Predictor(net, SIZE, "cpu", **how).predict(images, views)
    return [(each.name, each.probability) for each in found]


def test_maps_follow_the_protocol_in_order_and_at_their_own_size(
    net: Brightness, pairs: list[Pair]
) -> None:
    found = run(net, pairs, batch_size=2)
    assert [shape[0] for shape in net.batches] == [2, 2, 1]
    for (name, probability), pair in zip(found, pairs, strict=True):
        square = torch.from_numpy(resize_image(read_image(pair.image), SIZE)).permute(2, 0, 1) / 255
        with torch.inference_mode():
            logits = net(square[None])["logits"]
        size = read_mask(pair.mask).shape
        expected = functional.interpolate(logits, size, mode="bilinear").sigmoid()[0, 0]
        assert (name, probability.dtype, probability.shape) == (pair.name, np.float32, size)
        np.testing.assert_allclose(probability, expected.numpy(), atol=1e-6)


def test_many_images_keep_their_order(net: Brightness, pairs: list[Pair]) -> None:
    many = [pair.image for pair in pairs] * 8
    found = run(net, many)
    assert [name for name, _ in found] == [path.stem for path in many]
    assert [image.shape for _, image in found] == list(SIZES) * 8


def test_maps_do_not_depend_on_the_batch_nor_much_on_the_precision(
    net: Brightness, pairs: list[Pair]
) -> None:
    single, together = run(net, pairs, batch_size=1), run(net, pairs, batch_size=9)
    rough = run(net, [pair.image for pair in pairs], dtype=torch.bfloat16)
    for (name, one), (_, all_), (same, half) in zip(single, together, rough, strict=True):
        np.testing.assert_allclose(one, all_, atol=1e-6)
        np.testing.assert_allclose(one, half, atol=0.05)
        assert name == same
        assert not np.array_equal(one, half)


def test_a_pair_is_predicted_at_the_size_of_its_mask(
    net: Brightness, pairs: list[Pair], tmp_path: Path
) -> None:
    small = pairs[0]._replace(mask=save(tmp_path / "small.png", np.zeros((30, 45), np.uint8)))
    assert run(net, [small])[0][1].shape == (30, 45)
    assert run(net, [small.image])[0][1].shape == (60, 90)


def test_the_net_has_its_own_mode_whenever_it_is_not_computing(
    net: Brightness, pairs: list[Pair]
) -> None:
    net.train()
    net.norm.eval()
    for _ in Predictor(net, SIZE, "cpu", batch_size=2).predict(pairs):
        assert net.training and net.conv.training and not net.norm.training
    net.conv.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(net, pairs)
    assert net.training and not net.norm.training
    assert net.norm.num_batches_tracked == 0


def test_reading_ahead_is_bounded(net: Brightness, pairs: list[Pair]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield pairs[2].image

    maps = Predictor(net, SIZE, "cpu", batch_size=4).predict(endless())
    next(maps)
    assert taken < 40
    maps.close()


class Slope(nn.Module):
    """Sees objects on the right, and bright ones: what it finds depends on the image's side."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.sides: list[int] = []
        self.seconds = seconds

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        time.sleep(self.seconds)
        self.sides.append(image.shape[-1])
        return {"logits": 4 * image.mean(1, keepdim=True) + torch.linspace(-3, 1, image.shape[-1])}


def test_mirrored_views_find_the_same_in_a_mirrored_image(pairs: list[Pair]) -> None:
    image = read_image(pairs[0].image)
    mirrored = save(pairs[0].image.with_name("mirrored.png"), image[:, ::-1].copy())
    both = [pairs[0].image, mirrored]
    plain, other = (probability for _, probability in run(Slope(), both))
    assert np.abs(plain - other[:, ::-1]).max() > 0.3
    once, again = (probability for _, probability in run(Slope(), both, views=Views(flip=True)))
    np.testing.assert_allclose(once, again[:, ::-1], atol=1e-6)


def test_each_scale_is_seen_once_and_averaged_at_the_networks_size(pairs: list[Pair]) -> None:
    net = Slope()
    (item,) = run(net, pairs[:1], views=Views(flip=True, scales=(1, 2, 0.9)))
    assert net.sides == [32, 32, 64, 64, 32, 32]
    assert item[1].shape == SIZES[0]
    alone = Slope()
    np.testing.assert_array_equal(
        run(alone, pairs[:1], views=Views(scales=(1.0,)))[0][1], run(alone, pairs[:1])[0][1]
    )
    assert Views(True, (1, 1.25)).in_words() == "as it is and mirrored at scales 1, 1.25"


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, 9.0)])
def test_unusable_scales_are_refused(pairs: list[Pair], scales: tuple) -> None:
    with pytest.raises(InputError, match=r"give one or more of 0\.25 to 4"):
        run(Slope(), pairs, views=Views(scales=scales))


def test_the_networks_seconds_are_those_it_takes(pairs: list[Pair]) -> None:
    slow, fast = Slope(0.04), Slope()
    found = score(slow, pairs, batch_size=2)
    assert 0.02 <= found.seconds_per_image < 0.1
    assert score(fast, pairs).seconds_per_image < 0.02
    twice = score(slow, pairs, batch_size=2, views=Views(flip=True))
    assert twice.seconds_per_image >= 0.04


def test_a_kept_prediction_is_the_map_in_8_bits(net: Brightness, pairs: list[Pair]) -> None:
    kept: dict[Path, Kept] = {}
    score(net, pairs, kept=kept)
    assert [*map(str, sorted(kept))] == [*map(str, sorted(pair.image for pair in pairs))]
    for (_, probability), pair in zip(run(net, pairs), pairs, strict=True):
        np.testing.assert_array_equal(kept[pair.image].probability, np.rint(probability * 255))
        assert len(kept[pair.image].png) < probability.nbytes / 4


def test_a_map_with_nan_is_refused(net: Brightness, pairs: list[Pair]) -> None:
    nn.init.constant_(net.conv.bias, float("nan"))
    with pytest.raises(InputError, match=r"animal-0.*NaN"):
        run(net, pairs)


def predict_into(net: Brightness, source: Path, output: Path, **more: Any) -> int:
    return predict_folder(Predictor(net, SIZE, "cpu"), source, output, **more)


def test_a_folder_becomes_maps_of_8_bit(net: Brightness, pairs: list[Pair], tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    source, output = tmp_path / "Imgs", tmp_path / "new" / "maps"
    (source / "notes.txt").write_text("not an image")
    assert predict_into(net, source, output, progress=lambda *call: calls.append(call)) == 5
    assert calls == [(done, 5) for done in range(1, 6)]
    assert sorted(path.name for path in output.iterdir()) == [f"animal-{n}.png" for n in range(5)]
    for name, probability in run(net, pairs):
        with Image.open(output / f"{name}.png") as image:
            assert image.mode == "L"
        np.testing.assert_array_equal(read_grey(output / f"{name}.png"), np.rint(probability * 255))
    assert predict_into(net, pairs[3].image, tmp_path / "one") == 1
    assert read_grey(tmp_path / "one" / "animal-3.png").shape == SIZES[3]


def test_unusable_folders_are_refused(net: Brightness, pairs: list[Pair], tmp_path: Path) -> None:
    source = tmp_path / "Imgs"
    with pytest.raises(InputError, match="replaced by its own map"):
        predict_into(net, source, source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        predict_into(net, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="no such file"):
        predict_into(net, tmp_path / "typo", tmp_path / "out")
    save(source / "animal-1.jpg", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="share a stem"):
        predict_into(net, source, tmp_path / "out")
    (source / "animal-1.jpg").write_bytes(b"\xff\xd8 cut short")
    (source / "animal-1.png").unlink()
    with pytest.raises(InputError, match=r"animal-1\.jpg.*damaged"):
        predict_into(net, source, tmp_path / "out")


def pysodmetrics(maps: Path, pairs: list[Pair]) -> dict[str, float]:
    handlers = {
        "f": toolbox.FmeasureHandler(True, True),
        "iou": toolbox.IOUHandler(False, False, with_binary=True),
        "dice": toolbox.DICEHandler(False, False, with_binary=True),
    }
    steps = (toolbox.Smeasure(), toolbox.WeightedFmeasure(), toolbox.MAE(), toolbox.Emeasure())
    steps += (toolbox.FmeasureV2(handlers),)
    for pair in pairs:
        for step in steps:
            step.step(read_grey(maps / f"{pair.name}.png"), read_mask(pair.mask) * np.uint8(255))
    s, weighted, mae, e, other = (step.get_results() for step in steps)
    mean = {"iou": other["iou"]["binary"], "dice": other["dice"]["binary"], "mae": mae["mae"]}
    mean |= {"s_measure": s["sm"], "weighted_f": weighted["wfm"]}
    mean |= {"adaptive_e": e["em"]["adp"], "adaptive_f": other["f"]["adaptive"]}
    for name, curve in (("e", e["em"]["curve"]), ("f", other["f"]["dynamic"])):
        mean |= {f"mean_{name}": curve.mean(), f"max_{name}": curve.max()}
    return mean


def of_the_field(mean: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: mean[name] for name in OF_THE_FIELD}


def score(net: nn.Module, pairs: list[Pair], batch_size: int = 8, **more: Any):
    return evaluate(Predictor(net, SIZE, "cpu", batch_size), pairs, **more)


def test_means_equal_pysodmetrics_and_the_folder_scores_the_same(
    net: Brightness, pairs: list[Pair], tmp_path: Path
) -> None:
    predict_into(net, tmp_path / "Imgs", tmp_path / "maps")
    calls: list[tuple[int, int]] = []
    found = score(net, pairs, progress=lambda *call: calls.append(call), batch_size=2)
    assert calls == [(done, 5) for done in range(1, 6)]
    expected = pysodmetrics(tmp_path / "maps", pairs)
    assert of_the_field(found.mean) == pytest.approx(expected, abs=1e-9)
    assert tuple(found.mean) == MEASURES
    assert found.mean["max_f"] < found.per_image["max_f"].mean()  # the maximum of the mean curve
    again = score_folder(tmp_path / "maps", tmp_path / "GT", workers=3)
    assert again.to_json() == found.to_json() | {"seconds_per_image": None}
    assert list(found.per_image["name"]) == [pair.name for pair in pairs]
    row = found.per_image.iloc[3]
    for key, value in measure(
        read_grey(tmp_path / "maps/animal-3.png"), read_mask(pairs[3].mask)
    ).values.items():
        assert row[key] == value


CONTRACT = {"n", "n_empty", "mean", "per_image", "interval", "by_size", "by_class"}


def test_scores_as_json(net: Brightness, pairs: list[Pair]) -> None:
    found = score(net, pairs)
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (values["n"], values["n_empty"], len(values["per_image"])) == (5, 0, 5)
    assert set(values) >= CONTRACT | {"seconds_per_image"}
    for name, (low, high) in values["interval"].items():
        assert low <= values["mean"][name] <= high
    assert set(values["mean"]) == set(MEASURES)
    assert set(values["per_image"][0]) >= {"name", *MEASURES}
    assert found.note == "Mean over 5 images."
    for name, value in found.mean.items():
        assert f"{LABELS[name]:<19} {value:.4f}" in found.summary()


@pytest.fixture
def with_empty(pairs: list[Pair], tmp_path: Path) -> list[Pair]:
    for number in (1, 4):
        save(tmp_path / f"GT/animal-{number}.png", np.zeros(SIZES[number], np.uint8))
    return pairs


def test_empty_masks_are_counted_and_reported_apart(
    net: Brightness, with_empty: list[Pair], tmp_path: Path
) -> None:
    predict_into(net, tmp_path / "Imgs", tmp_path / "maps")
    found = score(net, with_empty)
    others = [pair for pair in with_empty if pair.name not in ("animal-1", "animal-4")]
    assert (found.n, found.n_empty, len(found.per_image)) == (5, 2, 5)
    expected = pysodmetrics(tmp_path / "maps", others)
    assert of_the_field(found.mean) == pytest.approx(expected, abs=1e-9)
    maps = [read_grey(tmp_path / f"maps/animal-{number}.png") / 255 for number in (1, 4)]
    assert found.empty["mae"] == pytest.approx(np.mean([image.mean() for image in maps]))
    false = np.mean([(image > 0.5).mean() for image in maps])
    assert found.empty["false_alarm"] == pytest.approx(false) != 0
    assert "3 of 5 images" in found.note


@pytest.mark.parametrize("empty", [(), (0,), (1, 4)])
def test_curves_of_a_set_equal_pysodmetrics(
    net: Brightness, pairs: list[Pair], tmp_path: Path, empty: tuple[int, ...]
) -> None:
    """Over the images with an object, at each of the 256 thresholds."""
    for number in empty:
        save(tmp_path / f"GT/animal-{number}.png", np.zeros(SIZES[number], np.uint8))
    predict_into(net, tmp_path / "Imgs", tmp_path / "maps")
    handlers = {
        "f": toolbox.FmeasureHandler(True, False),
        "precision": toolbox.PrecisionHandler(True, False),
        "recall": toolbox.RecallHandler(True, False),
        "iou": toolbox.IOUHandler(True, False),
    }
    steps = toolbox.FmeasureV2(handlers), toolbox.Emeasure()
    for number, pair in enumerate(pairs):
        for step in steps if number not in empty else ():
            step.step(read_grey(tmp_path / f"maps/{pair.name}.png"), read_mask(pair.mask) * 255)
    counted, e = (step.get_results() for step in steps)
    expected = {name: counted[name]["dynamic"] for name in handlers} | {"e": e["em"]["curve"]}
    ways = score(net, pairs, batch_size=2), score_folder(tmp_path / "maps", tmp_path / "GT")
    for found in ways:
        assert set(found.curves) == set(expected)
        for name, curve in expected.items():
            np.testing.assert_allclose(found.curves[name], curve[::-1], 0, 1e-9, err_msg=name)
        table = json.loads(json.dumps(found.to_json(), allow_nan=False))["curves"]
        assert table["threshold"] == [level / 255 for level in range(256)]
        assert table["recall"] == found.curves["recall"].tolist()
        assert max(table["f"]) == pytest.approx(found.mean["max_f"], abs=1e-12)


def test_maps_of_a_method_are_found_by_the_names_of_images_or_masks(
    net: Brightness, pairs: list[Pair], tmp_path: Path
) -> None:
    predict_into(net, tmp_path / "Imgs", tmp_path / "maps")
    by_image = score_maps(tmp_path / "maps", pairs[:3])  # others may lie there too
    assert by_image.to_json() == score(net, pairs[:3]).to_json() | {"seconds_per_image": None}
    renamed = [
        pair._replace(mask=pair.mask.rename(pair.mask.with_stem(f"{pair.name}_gt")))
        for pair in pairs[:3]
    ]
    assert score_maps(tmp_path / "maps", renamed).mean == by_image.mean
    for pair in renamed:
        path = tmp_path / "maps" / f"{pair.name}.png"
        path.rename(path.with_stem(pair.mask.stem))
    assert score_maps(tmp_path / "maps", renamed).mean == by_image.mean
    (tmp_path / "maps" / "animal-1_gt.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 images have no map there: animal-1 \(maps: "):
        score_maps(tmp_path / "maps", renamed)
    save(tmp_path / "maps" / "animal-1.png", np.zeros((3, 3), np.uint8))
    with pytest.raises(InputError, match=r"animal-1\.png has \(height, width\) \(3, 3\)"):
        score_maps(tmp_path / "maps", renamed)


def test_a_set_of_empty_masks_has_no_mean_and_says_so(
    net: Brightness, with_empty: list[Pair]
) -> None:
    found = score(net, [with_empty[1], with_empty[4]])
    assert (found.n, found.n_empty) == (2, 2)
    assert set(found.mean.values()) == {None}
    assert found.summary().startswith("No mean: all 2 masks are empty")
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["mean"]["iou"] is None


def test_nothing_to_score_is_refused(net: Brightness) -> None:
    with pytest.raises(InputError, match="no images"):
        score(net, [])


def colour(folder: Path) -> None:
    save(folder / "animal-2.png", np.full((24, 24, 3), (1, 2, 3), np.uint8))


def other_size(folder: Path) -> None:
    save(folder / "animal-2.png", np.zeros((48, 48), np.uint8))


def cut_short(folder: Path) -> None:
    (folder / "animal-2.png").write_bytes((folder / "animal-2.png").read_bytes()[:60])


def missing(folder: Path) -> None:
    (folder / "animal-2.png").unlink()


def extra(folder: Path) -> None:
    save(folder / "plant.png", np.zeros((24, 24), np.uint8))


def other_case(folder: Path) -> None:
    (folder / "animal-2.png").rename(folder / "Animal-2.png")


def no_common_name(folder: Path) -> None:
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"{number}.png")


def floating(folder: Path) -> None:
    (folder / "animal-2.png").unlink()
    save(folder / "animal-2.tif", np.full((24, 24), 0.5, np.float32))


def twice(folder: Path) -> None:
    save(folder / "animal-2.jpg", np.zeros((24, 24), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (colour, r"animal-2\.png is coloured"),
        (other_size, r"animal-2\.png.*\(48, 48\).*\(24, 24\)"),
        (cut_short, r"animal-2\.png.*damaged"),
        (missing, "1 of 5 masks have no map: animal-2"),
        (extra, "1 maps have no mask: plant"),
        (other_case, "case: Animal-2 for animal-2"),
        (no_common_name, r"No map has the name of a mask: maps 0, 1, 2 and 2 more; masks animal-0"),
        (twice, "share a stem"),
        (floating, r"animal-2\.tif.*floating-point values; save it as 8-bit PNG"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    pairs: list[Pair], tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    for pair in pairs:
        write_map(tmp_path / f"maps/{pair.name}.png", read_mask(pair.mask).astype(np.float32))
    assert score_folder(tmp_path / "maps", tmp_path / "GT").mean["iou"] == 1
    spoil(tmp_path / "maps")
    with pytest.raises(InputError, match=words):
        score_folder(tmp_path / "maps", tmp_path / "GT")


ALL = {"iou", "dice", "s_measure", "weighted_f", "max_e", "max_f", "adaptive_f", "adaptive_e"}


@pytest.mark.parametrize(
    ("drawn", "ones", "zeros", "mae"),
    [
        (lambda mask: mask * 255, ALL, (), 0.0),  # perfect
        # inverted; max F and E are those of threshold 0, which calls everything object
        (lambda mask: 255 - mask * 255, (), {"iou", "dice", "weighted_f", "adaptive_f"}, 1.0),
        # empty; its adaptive threshold is 0, which calls everything object
        (lambda mask: mask * 0, (), {"iou", "dice", "weighted_f"}, "share"),
    ],
)
def test_maps_score_what_the_definitions_demand(
    pairs: list[Pair], tmp_path: Path, drawn: Callable, ones: set, zeros: set, mae: float | str
) -> None:
    masks = [read_mask(pair.mask) for pair in pairs]
    for pair, mask in zip(pairs, masks, strict=True):
        save(tmp_path / f"maps/{pair.name}.png", drawn(mask).astype(np.uint8))
    found = score_folder(tmp_path / "maps", tmp_path / "GT")
    # E divides by one pixel less than there are: on these small images it is a little above 1
    full = pytest.approx(1, abs=0.003)
    assert {name for name in ALL if found.mean[name] == full} == set(ones)
    assert {name for name in zeros if found.mean[name] == pytest.approx(0, abs=0.02)} == set(zeros)
    share = float(np.mean([mask.mean() for mask in masks]))
    assert found.mean["mae"] == pytest.approx(share if mae == "share" else mae)


@pytest.mark.parametrize("level", [1, 127, 128, 255])
def test_a_constant_map_is_not_stretched(pairs: list[Pair], tmp_path: Path, level: int) -> None:
    shares = []
    for pair in pairs:
        mask = read_mask(pair.mask)
        shares.append(mask.mean())
        save(tmp_path / f"maps/{pair.name}.png", np.full(mask.shape, level, np.uint8))
    found, value = score_folder(tmp_path / "maps", tmp_path / "GT"), level / 255
    share = float(np.mean(shares))
    assert found.mean["mae"] == pytest.approx(share * (1 - value) + (1 - share) * value)
    assert found.mean["iou"] == pytest.approx(share if value > 0.5 else 0)  # all object, or none


def test_a_folder_of_empty_masks_is_scored_apart(with_empty: list[Pair], tmp_path: Path) -> None:
    for pair in (with_empty[1], with_empty[4]):
        mask = read_mask(pair.mask)
        save(tmp_path / f"empty/{pair.name}.png", mask)
        save(tmp_path / f"maps/{pair.name}.png", np.full(mask.shape, 51, np.uint8))
    found = score_folder(tmp_path / "maps", tmp_path / "empty")
    assert found.note == (
        "No mean: all 2 masks are empty (MAE 0.2000, false alarm 0.00% of pixels)."
    )


def test_a_folder_of_maps_is_scored_without_torch(pairs: list[Pair], tmp_path: Path) -> None:
    for pair in pairs:
        write_map(tmp_path / f"maps/{pair.name}.png", read_mask(pair.mask).astype(np.float32))
    folders = ["--predictions", str(tmp_path / "maps"), "--ground-truth", str(tmp_path / "GT")]
    code = f"import sys; from camoxpert_nb.cli.main import main; main({['evaluate', *folders]})"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert f"{'IoU':<19} 1.0000" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_16_bit_maps_and_grey_ones_stored_in_colour_are_read_as_what_they_mean(
    pairs: list[Pair], tmp_path: Path
) -> None:
    rng, folder = np.random.default_rng(1), tmp_path / "maps"
    levels = [rng.integers(0, 256, size, dtype=np.uint8) for size in SIZES]
    for pair, level in zip(pairs, levels, strict=True):
        save(folder / f"{pair.name}.png", level)
    plain = score_folder(folder, tmp_path / "GT").to_json()
    for pair, level in zip(pairs[:2], levels, strict=False):
        save(folder / f"{pair.name}.png", level.astype(np.uint16) * 257)
    save(folder / f"{pairs[2].name}.png", np.dstack([levels[2]] * 3))
    assert score_folder(folder, tmp_path / "GT").to_json() == plain


def test_of_a_folder_the_readable_images_are_predicted_and_the_others_named(
    tmp_path: Path,
) -> None:
    images, unread = tmp_path / "images", dict[Path, str]()
    images.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30), (9, 99, 9)).save(images / name)
    bad = [images / "aa.jpg", images / "z.png"]
    for path in bad:
        path.write_bytes(b"no picture")
    predictor = Predictor(Slope(), SIZE, "cpu")
    assert predict_folder(predictor, images, tmp_path / "maps", unread=unread) == 2
    assert sorted(unread) == bad and all(path.name in unread[path] for path in bad)
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["a.png", "b.png"]
    with pytest.raises(InputError, match=r"aa\.jpg"):  # one alone is refused
        predict_folder(predictor, bad[0], tmp_path / "other", unread={})
    for name in ("a.png", "b.png"):
        (images / name).unlink()
    with pytest.raises(InputError, match=r"none of 2 pictures can be read: .*aa\.jpg"):
        predict_folder(predictor, images, tmp_path / "other", unread={})


def test_a_folder_of_folders_of_images_names_them(tmp_path: Path) -> None:
    (tmp_path / "Test" / "Image").mkdir(parents=True)
    with pytest.raises(InputError, match="nor has a folder in it"):
        predict_folder(Predictor(Slope(), SIZE, "cpu"), tmp_path, tmp_path / "maps")
    Image.new("RGB", (40, 30)).save(tmp_path / "Test" / "Image" / "a.png")
    with pytest.raises(InputError, match=r"folders in it have: .*Image \(1\)\. Give one of them"):
        predict_folder(Predictor(Slope(), SIZE, "cpu"), tmp_path, tmp_path / "maps")
