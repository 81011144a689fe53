"""The list of backbones against what is published of them."""

from __future__ import annotations

import fnmatch
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch

from camoxpert_nb.errors import InputError
from camoxpert_nb.network import choices
from camoxpert_nb.network.backbone import build_backbone
from camoxpert_nb.network.choices import USUAL, Choice, matching, measured, where_weights_are


def test_the_usual_dozen_can_be_used_and_no_network_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*words: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = list(measured(matching("")))
    assert len(found) == len(USUAL) == 12
    rows = [each for each in found if isinstance(each, Choice)]
    assert [row.name for row in rows] == [*USUAL]
    assert [row.multiply_adds for row in rows] == sorted(row.multiply_adds for row in rows)
    assert all(row.weights in ("hub", "here") and row.licence for row in rows)
    by_name = {row.name: row for row in rows}
    # ResNet-50 has 25.56 million parameters, of them 2.05 in its classifier, and 4.09 thousand
    # million multiply-adds at 224 px (torchvision's table); convolutions grow with the area.
    assert by_name["resnet50"].parameters == pytest.approx(25.56 - 2.05, abs=0.01)
    assert by_name["resnet50"].multiply_adds == pytest.approx(4.09 * (320 / 224) ** 2, rel=0.01)
    assert by_name["resnet50"].trained_at == 224


def test_the_list_and_the_training_agree_on_what_can_be_used() -> None:
    names = ["test_resnet", "test_vit", "swin_tiny_patch4_window7_224", "test_convnext"]
    usable = []
    for found in measured(names):
        if isinstance(found, Choice):
            backbone, _ = build_backbone(found.name, "", pretrained=False)
            own = sum(each.numel() for each in backbone.parameters()) / 1e6
            assert found.parameters == pytest.approx(own)
            usable.append(found.name)
        else:
            with pytest.raises(InputError):
                build_backbone(found, "", pretrained=False)
    assert usable == ["test_resnet", "test_convnext"]


def test_a_network_that_reads_numbers_is_built_with_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = timm.create_model

    def reads(name: str, **options: object) -> object:
        torch.zeros(1).item()
        return create(name, **options)

    monkeypatch.setattr(choices.timm, "create_model", reads)
    (found,) = measured(["test_resnet"])
    assert isinstance(found, Choice)


@pytest.fixture
def few_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if timm had four networks."""
    names = ["convnext_tiny", "edgenext_base", "resnet50", "resnet50d"]
    monkeypatch.setattr(choices.timm, "list_models", lambda like="*": fnmatch.filter(names, like))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("edgenext", ["edgenext_base"]),
        ("EdgeNeXt_b", ["edgenext_base"]),
        ("next", ["convnext_tiny", "edgenext_base"]),
        ("resnet50", ["resnet50", "resnet50d"]),
        ("resnet50.a1_in1k", ["resnet50", "resnet50d"]),
        ("resnet50.a1.in1k", ["resnet50", "resnet50d"]),
        ("resnet?0", ["resnet50"]),
        ("[r]esnet50", ["resnet50"]),
        ("*next_tiny", ["convnext_tiny"]),
        ("resnet*", ["resnet50", "resnet50d"]),
    ],
)
@pytest.mark.usefixtures("few_names")
def test_a_part_of_a_name_is_enough_and_with_stars_it_is_all_of_it(
    pattern: str, found: list[str]
) -> None:
    assert matching(pattern) == found


def test_of_the_usual_dozen_those_are_named_that_timm_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices.timm, "is_model", lambda name: name.startswith("convnext"))
    assert matching("") == ["convnext_tiny", "convnext_small"]


@pytest.mark.parametrize(
    ("pattern", "near"), [("*edgenxt_base*", "edgenext_base"), ("Zebra", "none")]
)
@pytest.mark.usefixtures("few_names")
def test_a_pattern_without_a_match_is_answered_with_near_names(pattern: str, near: str) -> None:
    with pytest.raises(InputError) as caught:
        matching(pattern)
    assert str(caught.value) == (
        f"timm has no network that matches {pattern!r}. Near names: {near}. "
        "A part of a name is enough: convnext, or 'resnet*d'."
    )


def test_no_more_than_five_near_names_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"edgenext_{letter}" for letter in "abcdefg"]
    monkeypatch.setattr(
        choices.timm, "list_models", lambda like=None: [] if like == "*edgenet_*" else names
    )
    with pytest.raises(InputError, match=", ".join(names[:5]) + r"\. A part"):
        matching("edgenet_")


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("Tensor.item() cannot be called on META tensors", ["meta", "cpu"]),
        ("no such layer", ["meta"]),
    ],
)
def test_a_network_that_cannot_be_built_is_tried_with_numbers_once(
    message: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []

    def fails(name: str, **_: object) -> None:
        devices.append(torch.empty(0).device.type)
        raise NotImplementedError(message)

    monkeypatch.setattr(choices.timm, "create_model", fails)
    assert list(measured(["one"])) == ["one"]
    assert devices == asked


def test_a_network_is_built_without_numbers_and_counted_in_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create, devices = timm.create_model, []

    def watched(name: str, **options: object) -> object:
        devices.append(torch.empty(0).device.type)
        return create(name, **options)

    monkeypatch.setattr(choices.timm, "create_model", watched)
    assert isinstance(next(measured(["test_resnet"])), Choice)
    assert devices == ["meta"] and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("licence", "said"), [("mit", "mit"), (None, "unknown"), ("", "unknown")])
def test_a_row_holds_what_was_counted_and_what_timm_knows(
    licence: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = SimpleNamespace(input_size=(3, 160, 192), license=licence, hf_hub_id="", url="x/y.pth")
    monkeypatch.setattr(choices.timm, "get_pretrained_cfg", {"one": known}.get)
    network = torch.nn.Linear(2000, 500)  # a million weights, and 500
    row = choices._choice("one", network, 3e9)
    assert row == ("one", 1.0005, 3.0, 192, "hub", said)
    assert choices._choice("other", network, 3e9) == ("other", 1.0005, 3.0, 0, "none", "unknown")


def test_where_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached: set[tuple[str, str]] = set()
    monkeypatch.setattr(
        choices,
        "try_to_load_from_cache",
        lambda place, file: str(tmp_path) if (place, file) in cached else object(),
    )
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    on_hub = SimpleNamespace(hf_hub_id="timm/one", url="")
    by_url = SimpleNamespace(hf_hub_id="", url="https://some.where/one/weights.pth")
    assert [where_weights_are("one", each) for each in (on_hub, by_url, None)] == [
        *("hub", "hub", "none")
    ]
    assert where_weights_are("one", SimpleNamespace(hf_hub_id="", url="")) == "none"
    for file in ("model.safetensors", "pytorch_model.bin"):
        cached |= {("timm/one", file)}
        assert where_weights_are("one", on_hub) == "here" and len(cached) == 1
        cached.clear()
    (tmp_path / "checkpoints" / "weights.pth").touch()
    assert where_weights_are("one", by_url) == "here" and where_weights_are("one", on_hub) == "hub"
    monkeypatch.setenv("CAMOXPERT_WEIGHTS", str(tmp_path / "one.safetensors"))
    assert where_weights_are("one", on_hub) == where_weights_are("one", None) == "here"
    assert where_weights_are("other", on_hub) == "hub"
