"""Which networks can be a backbone, what it begins with, and EdgeNeXt's positions, kept."""

from __future__ import annotations

import copy
import io
import urllib.error
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from timm.models.edgenext import PositionalEncodingFourier
from torch import Tensor, nn

from camoxpert_nb.errors import InputError
from camoxpert_nb.network import backbone as loading
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
    ("height", "found"),
    [
        ((4, 8, 16, 32), None),
        ((2, 4, 8, 16, 32), None),
        ((2, 4, 8, 16), [32, 16, 8, 4]),
        ((4, 8, 16, 16), [16, 8, 4, 4]),
    ],
)
def test_the_last_four_levels_must_lie_at_their_strides(
    height: tuple[int, ...], found: list[int] | None
) -> None:
    net = Columns(height, (2, 4, 8, 16, 32)[-len(height) :])
    if found is None:
        return check_stages(net)
    with pytest.raises(ValueError) as caught:
        check_stages(net)
    assert str(caught.value) == f"of an image of 64 x 96 they are {found} high"


# ---- names that are no backbone ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "near"),
    [
        (["resnet50"], "none"),
        ([f"edgenext_{each}" for each in "abcdefg"], ", ".join(f"edgenext_{e}" for e in "abcde")),
    ],
)
def test_an_unknown_network_is_answered_with_five_near_names(
    known: list[str], near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading.timm, "list_models", lambda: known)
    with pytest.raises(InputError) as caught:
        build_backbone("edgenext_", "", False)
    assert str(caught.value) == f"timm has no network 'edgenext_'. Near names: {near}."


def test_a_network_without_four_levels_says_which_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    advice = (
        "A backbone needs four stages, at strides 4, 8, 16, 32, for any image size, as "
        "edgenext_base or resnet50 has."
    )
    with pytest.raises(InputError) as caught:
        build_backbone("test_vit", "", False)
    assert str(caught.value) == (
        "test_vit has features at strides [16, 16, 16] (of an image of 64 x 96 they are [4, 4, 4] "
        f"high). {advice}"
    )

    def fails(name: str, features_only: bool) -> None:
        assert features_only
        raise RuntimeError("no features")

    monkeypatch.setattr(loading.timm, "create_model", fails)
    with pytest.raises(InputError) as caught:
        build_backbone("test_vit", "", False)
    assert str(caught.value) == f"test_vit has features at strides [] (no features). {advice}"


def test_a_look_at_a_network_moves_no_statistics_of_it() -> None:
    """Its levels are looked at with a black image, in evaluation mode and without gradients."""
    net, _ = build_backbone("test_resnet", "", False)
    assert int(net.state_dict()["bn1.num_batches_tracked"]) == 0


# ---- the hub -------------------------------------------------------------------------------------


class Hub:
    """timm's networks and their hub, as a test wants them; what was asked of them, in order."""

    def __init__(self, patch: pytest.MonkeyPatch, hf_hub_id: str, url: str) -> None:
        self.asked: list[object] = []
        self.cached: object = None
        self.error: Exception | None = None
        entry = SimpleNamespace(hf_hub_id=hf_hub_id, url=url)
        patch.setattr(loading.timm, "get_pretrained_cfg", lambda name: {"test_resnet": entry}[name])
        patch.setattr(loading, "try_to_load_from_cache", self.from_cache)
        patch.setattr(loading.urllib.request, "urlopen", self.opened)
        patch.setattr(loading.constants, "ENDPOINT", "https://hub")
        create = timm.create_model

        def created(name: str, **how: object) -> nn.Module:
            if "pretrained" in how:
                self.asked.append((name, how))
            return create(name, features_only=True)

        patch.setattr(loading.timm, "create_model", created)

    def from_cache(self, place: str, file: str) -> object:
        self.asked.append((place, file))
        return self.cached

    def opened(self, url: str, timeout: float) -> io.BytesIO:
        self.asked.append((url, timeout))
        if self.error:
            raise self.error
        return io.BytesIO()


def wanted(overlay: dict[str, str] | None) -> tuple[str, dict[str, object]]:
    how = {"features_only": True, "pretrained": True, "pretrained_cfg_overlay": overlay}
    return "test_resnet", how


LOOKED = ("timm/one", "model.safetensors")


def test_the_hub_is_asked_once_whether_it_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, "timm/one", "https://elsewhere/one.pth")
    _, start = build_backbone("test_resnet", "", True)
    assert start == (True, "hub timm/one")
    url = "https://hub/timm/one/resolve/main/config.json"
    assert hub.asked == [LOOKED, (url, 5.0), wanted(None)]


def test_weights_that_were_fetched_before_are_taken_from_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cache also answers with an object that says that the file is known not to exist."""
    hub = Hub(monkeypatch, "timm/one", "")
    hub.cached = "/cache/model.safetensors"
    _, start = build_backbone("test_resnet", "", True)
    assert start == (True, "hub timm/one")
    assert hub.asked == [LOOKED, wanted({"file": "/cache/model.safetensors"})]
    hub.asked.clear()
    hub.cached = object()
    build_backbone("test_resnet", "", True)
    assert hub.asked[2] == wanted(None)


def test_weights_with_an_address_are_asked_for_there(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, "", "https://elsewhere/one.pth")
    _, start = build_backbone("test_resnet", "", True)
    assert start == (True, "hub https://elsewhere/one.pth")
    assert hub.asked == [("https://elsewhere/one.pth", 5.0), wanted(None)]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError("no network here"), "no network here"),
        (OSError(101, "Network is unreachable"), "Network is unreachable"),
        (urllib.error.URLError(OSError(-2, "Name not known")), "Name not known"),
        (urllib.error.URLError("timed out"), "timed out"),
    ],
)
def test_without_a_connection_it_begins_from_scratch_and_says_why(
    error: Exception, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch, "timm/one", "")
    hub.error = error
    net, start = build_backbone("test_resnet", "", True)
    said = f"none: trains from scratch (no connection to timm/one? {why})"
    assert start == (False, said) and isinstance(net, nn.Module)
    assert len(hub.asked) == 2


def test_a_network_of_which_timm_has_no_weights_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, "", "")
    nothing = "none: trains from scratch (timm has no weights for test_resnet)"
    assert build_backbone("test_resnet", "", True)[1] == (False, nothing)
    monkeypatch.setattr(loading.timm, "get_pretrained_cfg", lambda name: None)
    assert build_backbone("test_resnet", "", True)[1] == (False, nothing)
    plain = "none: trains from scratch (no weights were asked for)"
    assert build_backbone("test_resnet", "", False)[1] == (False, plain)
    assert hub.asked == []


def test_positions_are_kept_in_a_network_from_the_hub_too(monkeypatch: pytest.MonkeyPatch) -> None:
    own = timm.create_model(NAME, features_only=True)
    monkeypatch.setattr(loading, "try_to_load_from_cache", lambda *of: "here")
    monkeypatch.setattr(loading.timm, "create_model", lambda name, **how: copy.deepcopy(own))
    net, _ = build_backbone(NAME, "", True)
    assert positions(net)


# ---- files ---------------------------------------------------------------------------------------


class Small(nn.Module):
    """Four tensors and a count, with names as timm's feature networks change them."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.inner = nn.Linear(2, 3)
        self.stages_0 = nn.Module()
        self.stages_0.conv = nn.Linear(1, 1, bias=False)
        self.norm = nn.BatchNorm1d(1, affine=False)


def in_file() -> dict[str, Tensor]:
    """The same as a classifier has it, with its own head."""
    numbers = torch.arange(6.0).view(3, 2)
    return {
        "inner.weight": numbers,
        "inner.bias": torch.tensor([7.0, 8.0, 9.0]),
        "stages.0.conv": torch.ones(5, 5),
        "stages.0.conv.weight": torch.tensor([[4.0]]),
        "norm.running_mean": torch.tensor([2.0]),
        "norm.running_var": torch.tensor([3.0]),
        "head.weight": torch.zeros(5, 3),
    }


def test_a_file_fills_the_network_by_its_own_the_flat_and_the_inner_names(tmp_path: Path) -> None:
    net = Small()
    torch.save(in_file(), tmp_path / "w.pth")
    assert loading._load_file("small", net, tmp_path / "w.pth") == "file w.pth"
    assert net.model.inner.weight.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert net.model.inner.bias.tolist() == [7, 8, 9]
    assert net.stages_0.conv.weight.tolist() == [[4]]
    assert (net.norm.running_mean.item(), net.norm.running_var.item()) == (2, 3)


@pytest.mark.parametrize(
    ("gone", "misses", "guess"),
    [
        (("inner.bias", "norm.running_var"), "2|model.inner.bias, norm.running_var", ""),
        (
            ("inner.weight", "inner.bias", "norm.running_mean", "stages.0.conv.weight"),
            "4|model.inner.weight, model.inner.bias, stages_0.conv.weight",
            "; probably the file is of another architecture",
        ),
    ],
)
def test_a_file_that_lacks_tensors_names_three_of_them(
    gone: tuple[str, ...], misses: str, guess: str, tmp_path: Path
) -> None:
    state = {name: value for name, value in in_file().items() if name not in gone}
    torch.save({**state, "norm.running_var": [1]} if guess == "" else state, tmp_path / "w.pth")
    count, names = misses.split("|")
    with pytest.raises(InputError) as caught:
        loading._load_file("small", Small(), tmp_path / "w.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'w.pth'}: {count} of the 5 tensors of small are missing or of other shape "
        f"({names}, ...){guess}. Give it timm's own small weights."
    )


def test_half_of_the_tensors_is_no_other_architecture(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(1, 1))
    torch.save({"0.weight": torch.ones(1, 1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"1 of the 2 tensors .*\(0\.bias, \.\.\.\)\. Give it"):
        loading._load_file("small", net, tmp_path / "w.pth")


GIVE = "Give --weights a file of timm's weights (.pth, .pt, .bin, .safetensors), or copy it again."


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("it broke"), "it broke"),
        (OSError(), "the file cannot be opened"),
        (AttributeError("x"), "it holds no named weights (a state dict)"),
        (TypeError("x"), "it holds no named weights (a state dict)"),
    ],
)
def test_what_a_file_breaks_with_is_said_in_a_sentence(
    error: Exception, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: str, weights_only: bool) -> None:
        assert weights_only and Path(path).is_absolute()
        raise error

    torch.save(in_file(), tmp_path / "w.pth")
    monkeypatch.setattr(loading, "load_state_dict", fails)
    with pytest.raises(InputError) as caught:
        loading._read_file(tmp_path / "w.pth")
    path = tmp_path / "w.pth"
    assert str(caught.value) == f"{path}: cannot be read as a file of weights: {found}. {GIVE}"


def test_what_is_read_and_is_no_dictionary_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(in_file(), tmp_path / "w.pth")
    monkeypatch.setattr(loading, "load_state_dict", lambda *of, **how: [1])
    with pytest.raises(InputError) as caught:
        loading._read_file(tmp_path / "w.pth")
    assert (
        str(caught.value) == f"{tmp_path / 'w.pth'}: holds a list, expected named weights. {GIVE}"
    )


# ---- positions -----------------------------------------------------------------------------------


def positional(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """timm's encoding of places, and the same that keeps them."""
    torch.manual_seed(0)
    own = PositionalEncodingFourier(hidden_dim=4, dim=6)
    return own.to(dtype), keep_positions(copy.deepcopy(nn.Sequential(own))).to(dtype)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_positions_are_in_the_precision_of_the_weights(dtype: torch.dtype) -> None:
    own, kept = positional(dtype)
    found = kept((2, 3, 5))
    assert found.dtype == dtype and found.shape == (2, 6, 3, 5)
    torch.testing.assert_close(found, own((2, 3, 5)), rtol=1e-5, atol=1e-6)
    ((key, value),) = kept.kept.items()
    assert key == (3, 5, torch.device("cpu"))
    assert value.shape == (1, 8, 3, 5) and value.dtype == torch.float32


def test_a_tall_map_has_not_the_positions_of_a_wide_one() -> None:
    own, kept = positional()
    for shape in ((1, 3, 5), (1, 5, 3), (1, 3, 5)):
        torch.testing.assert_close(kept(shape), own(shape))
    assert len(kept.kept) == 2


def test_what_is_kept_is_exact_and_no_part_of_a_graph_whoever_comes_first() -> None:
    own, kept = positional()
    seen: list[Tensor] = []
    own.token_projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    own((1, 3, 5))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        kept((1, 3, 5))
    (value,) = kept.kept.values()
    assert torch.equal(value, seen[0])
    assert not value.requires_grad and not value.is_inference()
    assert not kept.token_projection._forward_pre_hooks


def test_a_network_that_is_traced_keeps_nothing() -> None:
    kept = positional()[1].requires_grad_(False)

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + kept((1, x.shape[2], x.shape[3]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing
        torch.jit.trace(Reads(), torch.zeros(1, 6, 3, 5), check_trace=False)
    assert kept.kept == {}
