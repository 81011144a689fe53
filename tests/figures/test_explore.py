"""What is seen of a run: the data behind the figures, checked against the network itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from camoxpert_nb.data.images import read_image, resize_image
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.metrics import measure
from camoxpert_nb.figures.explore import Explored, explore, open_predictor, without
from camoxpert_nb.network.build import build_net
from camoxpert_nb.network.mixture import Router
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config


def make_run(folder: Path, **changes: object) -> Run:
    """A run whose network was never trained: its routers are spread, so that choices differ."""
    config = make_config("tiny", checkpoint_dir=str(folder), **changes)
    net = build_net(config)
    for module in net.modules():
        if isinstance(module, Router):
            torch.nn.init.normal_(module.choice.weight, std=30.0)
    folder.mkdir()
    config.save(folder / "config.json")
    run = Run(folder)
    run.save("best", {"config": config.as_dict(), "net": net.state_dict()})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def seen(run: Run, camouflage: Path) -> Explored:
    return explore(run, camouflage, split="all", limit=12, device="cpu")


def words(figure: Figure) -> str:
    figure.savefig(io.BytesIO(), format="png", dpi=50)
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_table_is_what_the_network_says(seen: Explored, run: Run) -> None:
    assert len(seen.table) == len(seen.pairs) == len(seen.gates) == 12
    assert "12 of " in seen.note and "evenly chosen" in seen.note
    net = open_predictor(run, "cpu").net
    for row in (0, 7):
        image = resize_image(read_image(seen.pairs[row].image), 64)
        batch = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            outputs = net(batch)
        probability = outputs["logits"].sigmoid()
        doubt = (probability * (1 - probability)).sum() / probability.sum()
        assert seen.table["uncertainty"][row] == pytest.approx(doubt.item(), rel=1e-4)
        np.testing.assert_allclose(seen.gates[row], outputs["gates"][0], atol=1e-5)
        _, mask, name = seen.files_of(row)
        assert name == seen.table["name"][row] == seen.pairs[row].name
        assert measure(seen.map_of(row), mask).values["iou"] == pytest.approx(
            seen.table["iou"][row]
        )


def test_an_image_may_be_named_or_numbered(seen: Explored) -> None:
    np.testing.assert_array_equal(seen.map_of(3), seen.map_of(seen.table["name"][3]))
    with pytest.raises(InputError, match="Give a row number from 0, or a name as"):
        seen.map_of("unknown")
    with pytest.raises(InputError, match="No image 12"):
        seen.map_of(12)


def test_shown_images_are_in_the_order_asked_for(seen: Explored) -> None:
    with_object = seen.table[seen.table["object_share"] > 0]
    said = words(seen.show("worst", 2))
    for name in with_object.sort_values("iou", kind="stable")["name"][:2]:
        assert name in said
    assert "2 of 12 images, lowest IoU first, at" in said
    assert "uncertainty = sum of p (1 - p) / sum of p" in said
    with pytest.raises(InputError, match="worst, best, uncertain, random"):
        seen.show("prettiest")


def test_levels_end_in_the_prediction(seen: Explored) -> None:
    one = seen.predictor.predict_one(seen.pairs[0])
    levels = one.levels()
    assert [name.split(",")[0] for name in levels] == [
        *("stride 32", "stride 16", "stride 8", "stride 4")
    ]
    assert "stride 16, 4 x 4 places" in levels
    np.testing.assert_array_equal([*levels.values()][-1], one.probability)
    assert {each.shape for each in levels.values()} == {one.probability.shape}
    np.testing.assert_allclose(one.gates, seen.gates[0], atol=1e-5)
    for name, level in seen.kept[0].levels().items():  # what was kept is what it says again
        np.testing.assert_allclose(level.astype(int), levels[name], atol=1)


def test_a_network_without_deep_heads_has_one_level(tmp_path: Path, seen: Explored) -> None:
    predictor = open_predictor(make_run(tmp_path / "run", deep_supervision=False), "cpu")
    assert list(predictor.predict_one(seen.pairs[0]).levels()) == ["stride 4, the prediction"]


def test_a_removed_expert_is_never_chosen_and_the_rest_take_over(seen: Explored) -> None:
    place = int(seen.gates.mean((0, 1)).argmax())
    other = without(seen.predictor, seen.experts[place])
    found = [other.predict_one(pair) for pair in seen.pairs[:4]]
    gates = np.stack([each.gates for each in found])
    assert (gates[..., place] == 0).all()
    np.testing.assert_allclose(gates.sum(2), 1, atol=1e-5)
    used = (seen.gates[:4, :, place] > 0).any(1)
    for row, each in enumerate(found):
        same = np.array_equal(each.probability, seen.map_of(row))
        assert same or used[row]
    assert seen.gates[0, :, place].sum() == pytest.approx(
        seen.predictor.predict_one(seen.pairs[0]).gates[:, place].sum(), abs=1e-5
    )  # the network itself kept its expert


def test_a_single_expert_cannot_be_removed(tmp_path: Path) -> None:
    predictor = open_predictor(make_run(tmp_path / "run", num_experts=1), "cpu")
    with pytest.raises(InputError, match="single expert"):
        without(predictor, "texture")


def test_every_other_figure_draws(seen: Explored) -> None:
    name = seen.table["name"][1]
    for figure in (seen.overlay(1), seen.threshold(1, 0.3), seen.levels(1), seen.removed(1)):
        assert name in words(figure)
    assert name in words(seen.routing(name))
    assert "n = 12" in words(seen.usage())
    assert f"(n = {(seen.table['size'] == '5 to 15 %').sum()})" in words(seen.usage("size"))
    with pytest.raises(InputError, match="dataset, class, size"):
        seen.usage("colour")
