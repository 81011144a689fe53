"""What a prediction holds besides its map: by hand, with a network that says what it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation import predict as predicting
from camoxpert_nb.evaluation.predict import (
    Kept,
    Prediction,
    Predictor,
    Views,
    images_to_predict,
    predict_folder,
    refuse_all,
)


class Says(nn.Module):
    """Logits that grow to the right, and gates that tell how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, image: Tensor) -> dict[str, Any]:
        self.asked += 1
        across = torch.linspace(-2, 2, image.shape[-1]).expand(len(image), 1, image.shape[-2], -1)
        gates = torch.full((len(image), 2, 3), float(self.asked))
        return {"logits": across, "gates": gates, "cells": [gates[..., None]], "deep": [across]}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "wide.png"
    path.parent.mkdir()
    Image.fromarray(np.full((20, 50, 3), 90, np.uint8)).save(path)
    return path


def test_a_photo_is_answered_at_its_own_size_and_told_how_sure_it_is(photo: Path) -> None:
    (found,) = Predictor(Says(), 32, "cpu").predict([photo])
    assert found.probability.shape == (20, 50)
    assert found.probability[:, 0].max() < 0.5 < found.probability[:, -1].min()
    p = torch.linspace(-2, 2, 32).sigmoid()
    assert found.uncertainty == pytest.approx(float((p * (1 - p)).sum() / p.sum()), rel=1e-5)


def test_of_several_views_the_logits_are_averaged_and_the_rest_is_of_the_first(photo: Path) -> None:
    """Mirrored back, what grows to the right falls: the mean is nought, and so one half."""
    (found,) = Predictor(Says(), 32, "cpu").predict([photo], Views(flip=True, scales=(1.0, 2.0)))
    assert found.gates.tolist() == [[1.0] * 3] * 2 and found.cells[0].max() == 1.0
    np.testing.assert_allclose(found.probability, 0.5, atol=1e-6)
    assert found.uncertainty == pytest.approx(0.5)  # p (1 - p) / p
    assert [tuple(each.shape) for each in found.deep] == [(1, 32, 32)]


def test_scaled_sides_are_multiples_of_32_but_for_the_networks_own() -> None:
    assert Views(scales=(1.0, 1.25, 0.5, 0.26)).sides(100) == (100, 128, 64, 32)
    assert Views(scales=(1.5,)).sides(352) == (512,)  # 528 is 16.5 times 32, rounded to even


def test_levels_are_shown_from_the_coarsest_on() -> None:
    """Each map is stretched to the prediction's own size."""
    deep = [torch.full((1, 6 * n, 4 * n), float(logit)) for n, logit in ((4, -9), (2, 0), (1, 9))]
    even = np.full((30, 20), 0.25, np.float32)
    kept = Prediction("x", even, 0.0, np.empty((0, 0), np.float32), [], deep).kept()
    levels = kept.levels()
    assert [*levels] == [
        "stride 32, 4 x 6 places",
        "stride 16, 8 x 12 places",
        "stride 8, 16 x 24 places",
        "stride 4, the prediction",
    ]
    assert [int(each.max()) for each in levels.values()] == [255, 128, 0, 64]  # 127.5, 63.75
    assert all(each.shape == (30, 20) for each in levels.values())
    assert isinstance(kept, Kept)


def test_progress_counts_what_can_be_read(photo: Path, tmp_path: Path) -> None:
    for number in range(3):
        (photo.parent / f"{number}.png").write_bytes(b"no picture")
    told: list[tuple[int, int]] = []
    unread: dict[Path, str] = {}
    how: dict[str, Any] = {"progress": lambda *now: told.append(now), "unread": unread}
    assert predict_folder(Predictor(Says(), 32, "cpu"), photo.parent, tmp_path / "out", **how) == 1
    assert told[-1] == (1, 1) and len(unread) == 3
    with pytest.raises(InputError):
        predict_folder(Predictor(Says(), 32, "cpu"), photo.parent, tmp_path / "other")


# ---- sentences, and what is asked, by hand -------------------------------------------------------


def nothing() -> Any:
    return np.empty((0, 0), np.float32)


def test_views_are_told_in_words() -> None:
    assert Views().in_words() == "as it is"
    assert Views(True).in_words() == "as it is and mirrored"
    assert Views(scales=(0.5,)).in_words() == "as it is at scales 0.5"
    assert Views(True, (1.0, 1.25)).in_words() == "as it is and mirrored at scales 1, 1.25"


@pytest.mark.parametrize("scales", [(), (0.24,), (1.0, 4.01)])
def test_scales_that_cannot_work_are_told(scales: tuple[float, ...]) -> None:
    with pytest.raises(InputError) as caught:
        Views(scales=scales).sides(64)
    said = f"Scales {scales}: give one or more of 0.25 to 4, as 1 1.25."
    assert str(caught.value) == said
    assert Views(scales=(0.25, 4.0)).sides(64) == (32, 256)  # 16 is made 32


def test_a_kept_map_is_its_nearest_level_and_all_else_as_it_was() -> None:
    deep, cells = [torch.zeros(1, 2, 2)], [np.ones((3, 1, 1), np.float32)]
    probability = np.array([[0.0, 0.5, 1.0], [0.1, 0.2, 0.3]], np.float32)
    gates = np.ones((2, 3), np.float32)
    kept = Prediction("a", probability, 0.25, gates, cells, deep).kept()
    assert kept.probability.tolist() == [[0, 128, 255], [26, 51, 76]]  # 127.5, 25.5, 76.5: even
    assert kept[1:] == (0.25, gates, cells, deep) and kept.png.startswith(b"\x89PNG")


class Dark(nn.Module):
    """Logits of one number that are 4 at the left edge; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], object, bool]] = []

    def forward(self, image: Tensor) -> dict[str, Any]:
        on = torch.is_autocast_enabled("cpu")
        kind = torch.get_autocast_dtype("cpu") if on else None
        self.seen.append((tuple(image.shape), kind, self.training))
        return {"logits": image[:, :1].half() * 4}


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_a_network_without_gates_predicts_in_batches_and_its_precision(
    photo: Path, dtype: torch.dtype | None
) -> None:
    """A photo of 90 of 255 everywhere: the logit is 4 * 90 / 255."""
    net, seconds = Dark().train(), list[float]()
    predictor = Predictor(net, 32, "cpu", 2, dtype)
    found = [*predictor.predict([photo] * 5, seconds=seconds)]
    assert net.seen == [((n, 3, 32, 32), dtype, False) for n in (2, 2, 1)] and net.training
    assert len(seconds) == 3 and all(each > 0 for each in seconds)
    p = 1 / (1 + np.exp(-4 * 90 / 255))
    for each in found:
        assert each.name == "wide" and each.probability.dtype == np.float32
        np.testing.assert_allclose(each.probability, np.full((20, 50), p), rtol=1e-3)
        assert each.uncertainty == pytest.approx(1 - p, rel=1e-3)
        assert each.gates.shape == (0, 0) and each.cells == each.deep == []
    assert Predictor(net, 32, "cpu") == Predictor(net, 32, "cpu", 8, None)


@pytest.mark.parametrize(("logit", "doubt"), [(-9.0, 1.0), (-100.0, 0.0)])
def test_where_next_to_nothing_is_found_it_is_still_told_how_sure(
    photo: Path, logit: float, doubt: float
) -> None:
    """At -9 all of the map adds up to 1/8: p (1 - p) / p is nearly 1."""

    class Faint(nn.Module):
        def forward(self, image: Tensor) -> dict[str, Any]:
            return {"logits": torch.full_like(image[:, :1], logit)}

    (found,) = Predictor(Faint(), 32, "cpu").predict([photo])
    assert found.uncertainty == pytest.approx(doubt, abs=1e-3)


def test_a_batch_takes_its_share_of_the_time(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 16.0, 20.0, 21.0])
    monkeypatch.setattr("camoxpert_nb.evaluation.predict.time.perf_counter", lambda: next(now))
    seconds: list[float] = []
    list(Predictor(Dark(), 32, "cpu", 3).predict([photo] * 4, seconds=seconds))
    assert seconds == [2.0, 1.0]


def test_each_image_of_a_batch_has_its_own_answer(photo: Path, tmp_path: Path) -> None:
    """Two photos of different shape and brightness; what is deep is kept in half precision."""

    class Several(nn.Module):
        def forward(self, image: Tensor) -> dict[str, Any]:
            bright = image.mean((1, 2, 3))
            gates = bright[:, None, None].expand(-1, 2, 3)
            deep = bright[:, None, None, None].expand(-1, 1, 4, 4)
            return {"logits": image[:, :1], "gates": gates, "cells": [deep], "deep": [deep]}

    other = tmp_path / "in" / "tall.png"
    Image.fromarray(np.full((40, 10, 3), 255, np.uint8)).save(other)
    one, two = Predictor(Several(), 32, "cpu").predict([photo, other])
    assert [each.probability.shape for each in (one, two)] == [(20, 50), (40, 10)]
    for each, bright in ((one, 90 / 255), (two, 1.0)):
        assert each.gates.tolist() == [[pytest.approx(bright)] * 3] * 2
        assert each.cells[0].shape == (1, 4, 4) and each.cells[0].max() == pytest.approx(bright)
        assert each.deep[0].dtype == torch.float16
        assert each.deep[0].max().item() == pytest.approx(bright, rel=1e-3)
        assert each.uncertainty == pytest.approx(1 - 1 / (1 + np.exp(-bright)), rel=1e-5)
    kept = Predictor(Several(), 32, "cpu").predict_one(other)
    assert kept.probability.tolist() == [[186] * 10] * 40  # sigmoid of 1 is 0.731


def test_a_map_without_numbers_names_its_image(photo: Path) -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> dict[str, Any]:
            return {"logits": image[:, :1] * float("nan")}

    with pytest.raises(InputError) as caught:
        list(Predictor(Broken(), 32, "cpu").predict([photo]))
    said = "wide: the network's map has NaN. Predict in float32 (dtype=None)."
    assert str(caught.value) == said


def refused(source: Path, output: Path, **how: bool) -> str:
    with pytest.raises(InputError) as caught:
        images_to_predict(source, output, **how)
    return str(caught.value)


def test_maps_never_lie_where_they_would_do_harm(photo: Path, tmp_path: Path) -> None:
    folder, out = photo.parent, tmp_path / "out"
    assert images_to_predict(photo, out) == images_to_predict(folder, out) == [photo]
    assert refused(photo, tmp_path / "map.PNG") == (
        f"--output {tmp_path / 'map.PNG'} is named like a picture, but is the folder for the maps, "
        "in which that of wide.png becomes wide.png. Name a folder, as maps."
    )
    (tmp_path / "odd.png").mkdir()
    assert images_to_predict(photo, tmp_path / "odd.png") == [photo]
    replaced = (
        f"{photo} is an image to predict, and would be replaced by its own map, or that of another "
        "one: use another --output."
    )
    assert refused(photo, folder) == refused(folder, folder) == replaced
    photo.rename(folder / "wide.jpg")
    assert refused(folder, folder) == (
        f"--output {folder} is the folder of the images: maps would lie among them, and be taken "
        "for images the next time. Use another --output."
    )
    assert images_to_predict(folder / "wide.jpg", folder) == [folder / "wide.jpg"]


def test_pictures_of_others_are_not_replaced_by_maps_or_overlays(
    photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "overlays").mkdir(parents=True)
    target = tmp_path / "out" / "overlays" / "wide.png"
    Image.new("L", (5, 5)).save(target)
    assert images_to_predict(photo, tmp_path / "out") == [photo]
    said = refused(photo, tmp_path / "out", overlays=True)
    assert str(target) in said and said.endswith("Use another --output, or remove them.")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    assert "would be replaced by its own map" in refused(photo, tmp_path / "linked")


def test_a_folder_of_which_none_can_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(b"no picture")
    with pytest.raises(InputError) as caught:
        refuse_all([tmp_path], {tmp_path / "a": "one", tmp_path / "b": "two"})
    assert str(caught.value) == "none of 1 pictures can be read: one, two"
    predictor = Predictor(Dark(), 32, "cpu")
    unread: dict[Path, str] = {}
    with pytest.raises(InputError, match=r"^none of 2 pictures can be read: .*a\.png"):
        predict_folder(predictor, tmp_path / "in", tmp_path / "out", unread=unread)
    assert [*unread] == [tmp_path / "in" / "a.png", tmp_path / "in" / "b.png"]
    with pytest.raises(InputError, match="--output"):
        predict_folder(predictor, tmp_path / "in", "")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--input"):
        predict_folder(predictor, "", tmp_path / "out")  # type: ignore[arg-type]


def test_a_folder_is_predicted_in_the_views_asked_for(photo: Path, tmp_path: Path) -> None:
    asked: list[Any] = []

    class Told:
        def predict(self, images: Any, views: Any, *, unread: Any = None) -> Any:
            asked.append((images, views, unread))
            yield Prediction("wide", np.full((2, 3), 0.25, np.float32), 0, nothing(), [], [])

    views, unread = Views(flip=True), dict[Path, str]()
    how: dict[str, Any] = {"views": views, "unread": unread}
    assert predict_folder(Told(), photo.parent, tmp_path / "a", **how) == 1
    assert predict_folder(Told(), photo, tmp_path / "b", **how) == 1
    assert predict_folder(Told(), photo.parent, tmp_path / "c") == 1
    assert asked == [([photo], views, unread), ([photo], views, None), ([photo], Views(), None)]
    with Image.open(tmp_path / "a" / "wide.png") as image:
        assert np.asarray(image).tolist() == [[64] * 3] * 2


@pytest.mark.parametrize(("there", "reading"), [(8, 4), (2, 2)])
def test_at_most_four_threads_read_and_all_write(
    there: int, reading: int, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, whole = [], predicting.in_order

    def ordered(function: Any, items: Any, *, workers: int) -> Any:
        asked.append(workers)
        return whole(function, items, workers=workers)

    monkeypatch.setattr(predicting, "in_order", ordered)
    monkeypatch.setattr(predicting, "cores", lambda: there)
    assert predict_folder(Predictor(Dark(), 32, "cpu"), photo, tmp_path / "out") == 1
    assert sorted(asked) == sorted([reading, there])
