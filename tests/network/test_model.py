"""The network: shapes at any size, routing, weights from files, and messages that repair."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from camoxpert_nb.errors import InputError
from camoxpert_nb.network import backbone as loading
from camoxpert_nb.network.model import EXPERTS, SLICE, CamoXpert


def make(backbone: str = "test_resnet", **options: object) -> CamoXpert:
    torch.manual_seed(0)
    return CamoXpert(backbone, **options).eval()  # type: ignore[arg-type]


def photo(batch: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


# ---- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (97, 61), (64, 128)])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_logits_have_the_size_of_the_image(backbone: str, size: tuple[int, int]) -> None:
    out = make(backbone)(photo(2, *size))
    assert out["logits"].shape == (2, 1, *size)
    assert [logits.shape[:2] for logits in out["deep"]] == [(2, 1)] * 3
    assert out["gates"].shape == out["router"].shape == (2, 4, 7)
    assert all(out[name].isfinite().all() for name in ("logits", "gates", "router"))


def test_deep_heads_sit_at_strides_8_16_and_32_and_can_be_left_out() -> None:
    assert [tuple(deep.shape[2:]) for deep in make()(photo())["deep"]] == [(8, 8), (4, 4), (2, 2)]
    assert make(deep_supervision=False)(photo())["deep"] == []


@pytest.mark.parametrize("experts", range(1, 8))
def test_one_to_seven_experts(experts: int) -> None:
    net = make(experts=experts).train()
    out = net(photo())
    chosen = (out["gates"] > 0).sum(-1)
    assert (chosen == min(3, experts)).all()
    torch.testing.assert_close(out["gates"].sum(-1), torch.ones(2, 4))
    torch.testing.assert_close(out["router"].sum(-1), torch.ones(2, 4))
    out["logits"].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_the_chosen_are_the_likeliest_and_the_others_have_no_say() -> None:
    net = make()
    out = net(photo(4))
    best = torch.zeros_like(out["router"]).scatter(2, out["router"].topk(3).indices, 1.0)
    assert ((out["gates"] > 0) == best.bool()).all()
    idle = int((out["gates"][0, 0] == 0).nonzero()[0])
    busy = int(out["gates"][0, 0].argmax())
    for expert, changes in ((idle, False), (busy, True)):
        other = copy.deepcopy(net)
        with torch.no_grad():
            other.stages[0].mixture.spread.weight[expert * SLICE] += 1.0  # type: ignore[union-attr, index]
        assert bool((other(photo(4))["logits"][0] != out["logits"][0]).any()) == changes


def test_a_sample_does_not_depend_on_its_batch() -> None:
    net = make()
    both, alone = net(photo(3)), net(photo(3)[:1])
    torch.testing.assert_close(both["logits"][:1], alone["logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both["gates"][:1], alone["gates"], rtol=1e-4, atol=1e-5)


def test_an_untrained_network_expects_little_object() -> None:
    probability = make()(photo(4))["logits"].sigmoid().mean()
    assert 0.02 < probability < 0.3


def test_forward_remembers_nothing() -> None:
    net = make().eval()
    before = {name: dict(module.__dict__) for name, module in net.named_modules()}
    net(photo())
    assert before.keys() == {name for name, _ in net.named_modules()}
    for name, module in net.named_modules():
        assert before[name].keys() == module.__dict__.keys()


def test_the_photo_is_normalised_with_the_backbones_own_numbers() -> None:
    net = make("test_convnext")
    seen: list[Tensor] = []
    net.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(photo())
    config = net.backbone.pretrained_cfg
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(seen[0] * std + mean, photo())


# ---- the experts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERTS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (13, 8)])
def test_experts_keep_the_shape_with_finite_gradients(name: str, size: tuple[int, int]) -> None:
    expert = EXPERTS[name]()
    for x in (torch.zeros(2, 16, *size), torch.randn(2, 16, *size) * 100):
        x.requires_grad_()
        y = expert(x)
        assert y.shape == x.shape
        y.square().sum().backward()
        assert x.grad is not None and x.grad.isfinite().all()


def test_attention_does_not_grow_with_the_image() -> None:
    attention = EXPERTS["attention"]()
    small, large = (attention(torch.randn(1, 16, s, s)).abs().max() for s in (8, 128))
    assert large < 2 * small
    half = attention.half()(60000 * torch.ones(1, 16, 8, 8).half())
    assert attention(torch.ones(1, 16, 64, 64).half()).isfinite().all() and half.dtype == torch.half


def test_the_edge_expert_sees_a_step_and_not_a_border() -> None:
    edge = EXPERTS["edge"]()
    step = torch.zeros(1, 16, 12, 12)
    step[..., 6:] = 1
    flat = edge(torch.ones(1, 16, 12, 12))
    torch.testing.assert_close(flat, flat[..., :1, :1].expand_as(flat))
    change = (edge(step) - flat).abs().sum(1)[0, 6]
    assert change[5:7].min() > 1e-3 and change[:4].max() < 1e-5


def test_mixed_precision_stays_finite() -> None:
    net = make().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(photo())
    assert out["logits"].dtype == torch.bfloat16 and out["gates"].dtype == torch.float32
    out["logits"].float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


# ---- the backbone --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backbone",
    ["test_resnet", "test_convnext", "test_efficientnet", "edgenext_xx_small", "pvt_v2_b0"],
)
def test_blocks_hold_every_backbone_parameter_once_in_order(backbone: str) -> None:
    net = make(backbone)
    groups = net.backbone_blocks()
    held = [id(p) for group in groups for part in group for p in part.parameters()]
    assert held == [id(p) for p in net.backbone.parameters()]
    assert len(groups) == 4 and all(groups)


def test_a_backbone_in_one_piece_is_one_deepest_group() -> None:
    net = make("sam2_hiera_tiny")
    assert [len(group) for group in net.backbone_blocks()] == [0, 0, 0, 1]
    held = {id(p) for part in net.backbone_blocks()[3] for p in part.parameters()}
    assert held == {id(p) for p in net.backbone.parameters()}


def test_an_unknown_backbone_offers_near_names() -> None:
    with pytest.raises(InputError, match="edgenext_base"):
        make("edgenet_base")


@pytest.mark.parametrize("backbone", ["test_vit", "hiera_tiny_224"])
def test_a_backbone_without_four_stages_says_what_it_has(backbone: str) -> None:
    with pytest.raises(InputError, match=r"strides.*four stages.*edgenext_base"):
        make(backbone)


@pytest.mark.parametrize("experts", [-1, 0, 8])
def test_a_wrong_number_of_experts_names_the_seven(experts: int) -> None:
    with pytest.raises(InputError, match=r"1 to 7.*" + ", ".join(EXPERTS)):
        make(experts=experts)


def test_a_single_chosen_expert_is_refused_because_its_router_could_not_learn() -> None:
    with pytest.raises(InputError, match="top_k"):
        make(top_k=1)


# ---- weights -------------------------------------------------------------------------------------


def classifier(name: str = "test_resnet") -> dict[str, Tensor]:
    torch.manual_seed(7)
    return timm.create_model(name, num_classes=5).state_dict()


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_a_classifiers_file_fills_the_backbone(name: str, tmp_path: Path) -> None:
    torch.save(classifier(name), tmp_path / "w.pth")
    net = make(name, weights=tmp_path / "w.pth")
    assert net.start.source == "file w.pth"
    reference = timm.create_model(name, num_classes=5).eval()
    reference.load_state_dict(classifier(name))
    image = photo(1)
    expected = reference.forward_intermediates(image, intermediates_only=True)[-1]
    torch.testing.assert_close(net.backbone(image)[-1], expected, rtol=1e-4, atol=1e-5)


def test_wrapped_prefixed_and_safetensors_files_load_alike(tmp_path: Path) -> None:
    state = classifier()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "a.pth")
    torch.save({"model": state, "epoch": 3}, tmp_path / "b.pth")
    save_file(state, tmp_path / "c.safetensors")
    nets = [make(weights=tmp_path / name) for name in ("a.pth", "b.pth", "c.safetensors")]
    for net in nets:
        torch.testing.assert_close(net.backbone.state_dict(), nets[0].backbone.state_dict())


def test_weights_of_another_architecture_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(classifier("test_convnext"), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"(?s)another architecture"):
        make(weights=tmp_path / "w.pth")


def test_a_single_missing_tensor_is_named(tmp_path: Path) -> None:
    state = classifier()
    del state["layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"layer2\.0\.conv1\.weight"):
        make(weights=tmp_path / "w.pth")


def test_a_missing_or_broken_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        make(weights=tmp_path / "none.pth")
    (tmp_path / "w.pth").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be read"):
        make(weights=tmp_path / "w.pth")


def test_without_a_connection_it_trains_from_scratch_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(loading.urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(loading, "try_to_load_from_cache", lambda *_: None)
    source = make(pretrained=True).start.source
    assert source.startswith("none: trains from scratch") and "no connection" in source


def test_weights_in_the_hubs_cache_need_no_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_file(classifier_of_1000(), tmp_path / "model.safetensors")
    cached = str(tmp_path / "model.safetensors")
    monkeypatch.setattr(loading, "try_to_load_from_cache", lambda *_: cached)
    net = make(pretrained=True)
    assert net.start.source.startswith("hub timm/test_resnet")
    for key, value in net.backbone.state_dict().items():
        torch.testing.assert_close(value, classifier_of_1000()[key])


def classifier_of_1000() -> dict[str, Tensor]:
    torch.manual_seed(8)
    return timm.create_model("test_resnet").state_dict()
