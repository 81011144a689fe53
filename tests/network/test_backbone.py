"""EdgeNeXt's positions: kept, and the same as timm's."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from camoxpert_nb.errors import InputError
from camoxpert_nb.network.backbone import (
    KeptPositions,
    build_backbone,
    check_stages,
    keep_positions,
)

NAME = "edgenext_xx_small"


@pytest.fixture
def twins() -> tuple[nn.Module, nn.Module]:
    """timm's own network, and the same with kept positions."""
    torch.manual_seed(0)
    own = timm.create_model(NAME, features_only=True).train()
    return own, keep_positions(copy.deepcopy(own))


def positions(net: nn.Module) -> list[KeptPositions]:
    return [module for module in net.modules() if isinstance(module, KeptPositions)]


def gradients(net: nn.Module, image: Tensor) -> list[Tensor]:
    net.zero_grad()
    torch.manual_seed(1)  # of drop path
    sum(level.square().mean() for level in net(image)).backward()
    return [p.grad for p in net.parameters() if p.grad is not None]


def test_outputs_and_gradients_are_timms(twins: tuple[nn.Module, nn.Module]) -> None:
    own, kept = twins
    assert positions(kept) and not positions(own)
    assert own.state_dict().keys() == kept.state_dict().keys()
    for shape in ((2, 3, 64, 96), (3, 3, 64, 64), (2, 3, 64, 96)):
        image = torch.rand(shape)
        pairs = zip(gradients(own, image), gradients(kept, image), strict=True)
        for expected, found in pairs:
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_positions_are_made_once_for_a_size(
    twins: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, net = twins
    made = []
    monkeypatch.setattr(KeptPositions, "_waves", _counted(made))
    for count in (1, 4, 2):
        net(torch.rand(count, 3, 64, 64))
    assert len(made) == len(positions(net))


def _counted(made: list[tuple[int, ...]]) -> object:
    whole = KeptPositions._waves

    def counted(self: KeptPositions, shape: tuple[int, int, int]) -> Tensor:
        made.append(shape)
        return whole(self, shape)

    return counted


def test_a_network_trains_after_it_was_only_looked_at() -> None:
    """What is made in a validation, in inference mode and half precision, serves a training."""
    net, _ = build_backbone(NAME, "", pretrained=False)
    image = torch.rand(2, 3, 64, 64)
    for module in positions(net):
        module.kept.clear()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        net.eval()(image)
    for module in positions(net):
        assert all(value.dtype == torch.float32 for value in module.kept.values())
    assert gradients(net.train(), image)


def _other_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return files that are no weights, and what is to be said of each."""
    made = {
        "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        "page.pth": (b"<!DOCTYPE html><html>no</html>", "web page"),
        "photo.pth": (b"\xff\xd8\xff\xe0" + bytes(100), "JPEG image"),
        "nothing.pth": (b"", "empty"),
        "nothing.safetensors": (b"", "empty"),
        "words.bin": (b"hello", "it is text"),
        "noise.safetensors": (b"\x07\x93" * 90, "neither text nor"),
        "packed.pth": (b"\x1f\x8b" + bytes(90), "gzip"),
    }
    files = {name: (folder / name, words) for name, (_, words) in made.items()}
    for name, (data, _) in made.items():
        (folder / name).write_bytes(data)
    for name, value, words in (
        ("list.pth", [1, 2], "no named weights"),
        ("tensor.pth", torch.zeros(3), "no named weights"),
        ("module.pth", nn.Linear(2, 2), "may run code"),
    ):
        torch.save(value, folder / name)
        files[name] = (folder / name, words)
    with (folder / "arrays.pth").open("wb") as file:
        np.savez(file, a=np.zeros(3))
    whole = (folder / "module.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    files["arrays.pth"] = (folder / "arrays.pth", "NumPy")
    files["cut.pth"] = (folder / "cut.pth", "cut short")
    files["folder.pth"] = (folder / "folder.pth", "irectory")
    (folder / "folder.pth").mkdir()
    files["gone.pth"] = (folder / "gone.pth", "No such file")
    return files


def test_files_that_are_no_weights_are_named_for_what_they_are(tmp_path: Path) -> None:
    for path, words in _other_files(tmp_path).values():
        with pytest.raises(InputError) as caught:
            build_backbone(NAME, path, pretrained=False)
        text = str(caught.value)
        assert words in text and str(path) in text and "--weights" in text, text
        assert "weights_only" not in text and "()" not in text, text


def test_a_file_of_weights_runs_no_code_whatever_timm_does_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As timm 1.0.9 does, which unpickles anything unless it is told not to."""

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    def older(path: str, weights_only: bool = False) -> object:
        return torch.load(path, weights_only=weights_only)

    monkeypatch.setattr("camoxpert_nb.network.backbone.load_state_dict", older)
    torch.save({"state_dict": Evil()}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="may run code"):
        build_backbone("test_resnet", tmp_path / "weights.pt", False)
    assert not (tmp_path / "executed").exists()


def test_what_a_backbone_begins_with_is_known(tmp_path: Path) -> None:
    """Weights from a file count as those of photos, random ones do not; both train."""
    scratch, start = build_backbone("test_resnet", "", False)
    assert not start.pretrained and start.source.startswith("none: trains from scratch")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    filled, start = build_backbone("test_resnet", tmp_path / "w.pth", True)
    assert start == (True, "file w.pth")
    assert scratch.training and filled.training
    assert all(module.training for module in (*scratch.modules(), *filled.modules()))


def test_a_tensor_of_another_shape_is_a_missing_one(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    name = next(key for key, value in state.items() if value.ndim == 4)
    torch.save(state | {name: state[name][:1]}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"1 of the \d+ tensors of test_resnet are missing or of"):
        build_backbone("test_resnet", tmp_path / "w.pth", False)


class Columns(nn.Module):
    """Features that are right along one side of the image alone."""

    def __init__(self, height: tuple[int, ...], width: tuple[int, ...]) -> None:
        super().__init__()
        self.strides = list(zip(height, width, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.zeros(1, 1, x.shape[2] // h, x.shape[3] // w) for h, w in self.strides]


@pytest.mark.parametrize(
    ("height", "fits"),
    [((4, 8, 16, 32), True), ((2, 4, 8, 16), False), ((4, 8, 16, 16), False)],
)
def test_four_levels_must_lie_at_their_strides(height: tuple[int, ...], fits: bool) -> None:
    net = Columns(height, (4, 8, 16, 32))
    if fits:
        return check_stages(net)
    with pytest.raises(ValueError, match="of an image of 64 x 96"):
        check_stages(net)
