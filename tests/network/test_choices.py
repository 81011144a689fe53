"""The list of backbones against what is published of them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import timm

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
        import torch

        torch.zeros(1).item()
        return create(name, **options)

    monkeypatch.setattr(choices.timm, "create_model", reads)
    (found,) = measured(["test_resnet"])
    assert isinstance(found, Choice)


@pytest.mark.parametrize(
    ("pattern", "some"),
    [
        ("edgenext", "edgenext_base"),
        ("EdgeNeXt_b", "edgenext_base"),
        ("resnet?0", "resnet50"),
        ("resnet50.a1_in1k", "resnet50"),
        ("*next_tiny", "convnext_tiny"),
    ],
)
def test_a_part_of_a_name_is_enough(pattern: str, some: str) -> None:
    assert some in matching(pattern)


def test_a_pattern_without_a_match_is_answered_with_near_names() -> None:
    with pytest.raises(InputError, match=r"Near names: .*edgenext_base"):
        matching("edgenxt_base")


def test_where_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = timm.get_pretrained_cfg("resnet18")
    monkeypatch.setattr(choices, "try_to_load_from_cache", lambda place, file: None)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert where_weights_are("resnet18", config) == "hub"
    assert where_weights_are("none", None) == "none"
    kept = tmp_path / "checkpoints" / config.url.rpartition("/")[2]
    kept.parent.mkdir()
    kept.touch()
    assert where_weights_are("resnet18", config) == "here"
    kept.unlink()
    monkeypatch.setattr(choices, "try_to_load_from_cache", lambda place, file: str(tmp_path))
    assert where_weights_are("resnet18", config) == "here"
    monkeypatch.setattr(choices, "try_to_load_from_cache", lambda place, file: None)
    monkeypatch.setenv("CAMOXPERT_WEIGHTS", str(tmp_path / "resnet18.safetensors"))
    assert where_weights_are("resnet18", config) == "here"
