"""The network: shapes at any size, routing, weights from files, and messages that repair."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from camoxpert_nb.errors import InputError
from camoxpert_nb.network import backbone as loading
from camoxpert_nb.network import model as modelling
from camoxpert_nb.network.mixture import (
    ALONE,
    BLURRED,
    SLICE,
    Mixture,
    Router,
    _Blurred,
    _enlarge,
    _side,
)
from camoxpert_nb.network.model import CamoXpert, Level
from camoxpert_nb.settings.config import EXPERTS, MIXED


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
    assert out["gates"].shape == out["router"].shape == (2, 2, 7)
    assert [cells.shape[:2] for cells in out["cells"]] == [(2, 7)] * 2
    assert all(out[name].isfinite().all() for name in ("logits", "gates", "router"))


def test_deep_heads_sit_at_strides_8_16_and_32_and_can_be_left_out() -> None:
    assert [tuple(deep.shape[2:]) for deep in make()(photo())["deep"]] == [(8, 8), (4, 4), (2, 2)]
    assert make(deep_supervision=False)(photo())["deep"] == []


@pytest.mark.parametrize("experts", range(1, 8))
def test_one_to_seven_experts(experts: int) -> None:
    net = make(experts=experts, top_k=3).train()
    out = net(photo())
    assert all(((cells > 0).sum(1) == min(3, experts)).all() for cells in out["cells"])
    torch.testing.assert_close(out["gates"].sum(-1), torch.ones(2, 2))
    torch.testing.assert_close(out["router"].sum(-1), torch.ones(2, 2))
    out["logits"].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_the_gates_of_a_cell_are_its_likeliest_experts_and_the_others_have_no_say() -> None:
    torch.manual_seed(0)
    mixture = Mixture(32, 7, 3).eval()
    torch.nn.init.normal_(mixture.router.choice.weight)  # cells differ
    x = torch.randn(2, 32, 16, 16)
    y, gates, probability = mixture(x)
    both, best = 0, torch.zeros_like(probability).scatter(1, probability.topk(3, 1).indices, 1.0)
    assert ((gates > 0) == best.bool()).all()
    torch.testing.assert_close(gates, probability * best / (probability * best).sum(1, True))
    for expert in range(7):
        other = copy.deepcopy(mixture)
        with torch.no_grad():
            other.merge.weight[:, expert * SLICE : (expert + 1) * SLICE] += 1.0
        weight = _enlarge(gates, _side(x), x.shape[-2:])[:, expert]
        changed = (other(x)[0] != y).any(1)
        assert not changed[weight == 0].any() and changed[weight > 0.1].all()
        both += bool((weight == 0).any() and (weight > 0.1).any())
    assert both > 2


def test_with_all_experts_the_gates_are_the_routers_probabilities() -> None:
    _, gates, probability = Mixture(32, 7, 7)(torch.randn(2, 32, 16, 16))
    assert gates is probability and (gates > 0).all()


@pytest.mark.parametrize("height, width", [(1, 1), (3, 2), (8, 8), (40, 40), (44, 44), (13, 40)])
def test_a_cell_is_decided_by_what_lies_in_it(height: int, width: int) -> None:
    torch.manual_seed(0)
    router, x = Router(32, 7, 7), torch.randn(1, 32, height, width)
    side = _side(x)
    before, _ = router(x, side)
    assert before.shape[2:] == (-(-height // side), -(-width // side))
    assert max(before.shape[2:]) <= 8
    x[..., height - 1, width - 1] += 5  # a place of the last cell
    changed = (router(x, side)[0] != before).any(1)[0]
    assert changed[-1, -1] and changed.sum() == 1


def test_cells_meet_smoothly_where_they_belong() -> None:
    cells = torch.zeros(1, 1, 2, 2)
    cells[..., 0, 1] = 1
    large = _enlarge(cells, 5, torch.Size((9, 10)))[0, 0]
    assert large.shape == (9, 10)
    assert large[2, 7] == 1 and large[[2, 7], [2, 7]].abs().max() < 1e-6  # the cells' middles
    along = [0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1]  # five places from middle to middle
    assert large[2].tolist() == pytest.approx(along, abs=1e-6)


def test_only_two_levels_have_a_mixture_and_the_finest_is_thin() -> None:
    net = make(width=64)
    mixed = [level.mixture is not None for level in net.levels]
    assert mixed == [stride in MIXED for stride in (4, 8, 16, 32)]
    assert [head.in_channels for head in net.heads] == [32, 64, 64, 64]


def test_a_sample_does_not_depend_on_its_batch() -> None:
    net = make()
    both, alone = net(photo(3)), net(photo(3)[:1])
    torch.testing.assert_close(both["logits"][:1], alone["logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both["gates"][:1], alone["gates"], rtol=1e-4, atol=1e-5)


def test_an_untrained_network_expects_little_object() -> None:
    probability = make()(photo(4))["logits"].sigmoid().mean()
    assert 0.02 < probability < 0.3
    # The share of a photo that a hidden object covers, as the logit of each head: 0.1.
    assert all(head.bias.sigmoid().item() == pytest.approx(0.1, abs=0.001) for head in make().heads)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_forward_remembers_nothing(backbone: str) -> None:
    """No module has another attribute, and none another value; in training too, but for norms."""
    net = make(backbone)
    for mode in (False, True):
        net.train(mode)
        before = {name: _values(module) for name, module in net.named_modules()}
        net(photo())
        assert before == {name: _values(module) for name, module in net.named_modules()}


def _values(module: nn.Module) -> dict[str, object]:
    """Return what a module holds itself: values, and sums of tensors but of norms' statistics."""
    norm = isinstance(module, nn.modules.batchnorm._NormBase)
    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    tensors = [*module._parameters.items(), *([] if norm else module._buffers.items())]
    return own | {name: None if x is None else x.double().sum().item() for name, x in tensors}


def test_the_photo_is_normalised_with_the_backbones_own_numbers() -> None:
    net = make("test_resnet")
    assert net.mean.flatten().tolist() == pytest.approx(net.backbone.pretrained_cfg["mean"])
    assert net.std.flatten().tolist() == pytest.approx(net.backbone.pretrained_cfg["std"])
    # Numbers that no two of are alike: those of the test networks are.
    net.mean.copy_(torch.tensor([0.5, 0.4, 0.1]).view(1, 3, 1, 1))
    net.std.copy_(torch.tensor([0.25, 0.2, 0.8]).view(1, 3, 1, 1))
    seen: list[Tensor] = []
    net.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.tensor([1.0, 0.0, 0.5]).view(1, 3, 1, 1).expand(1, 3, 64, 64))
    assert seen[0].amax((0, 2, 3)).tolist() == pytest.approx([2.0, -2.0, 0.5])
    assert seen[0].amin((0, 2, 3)).tolist() == pytest.approx([2.0, -2.0, 0.5])


def test_a_level_adds_the_one_above_to_its_feature() -> None:
    level = Level(3, 16, None)
    level.lateral, level.settle = nn.Sequential(nn.Conv2d(3, 16, 1)), nn.Sequential(nn.Identity())
    feature, above = torch.randn(1, 3, 4, 6), torch.randn(1, 16, 2, 3)
    large = F.interpolate(above, (4, 6), mode="bilinear")
    (alone,), (both,) = level(feature, None), level(feature, above)
    torch.testing.assert_close(alone, level.lateral(feature).clamp(min=0))
    torch.testing.assert_close(both, (level.lateral(feature) + large).clamp(min=0))


def test_levels_are_added_from_the_coarsest_up_at_stride_eight() -> None:
    net = make()
    levels = [torch.randn(1, 128, side, side) for side in (8, 4, 2)]
    thin = [reduce(level) for reduce, level in zip(net.reduce, levels, strict=True)]
    middle = thin[1] + F.interpolate(thin[2], (4, 4), mode="bilinear")
    expected = thin[0] + F.interpolate(middle, (8, 8), mode="bilinear")
    torch.testing.assert_close(net._fuse(levels), expected)


def test_gates_and_probabilities_are_the_means_of_their_cells() -> None:
    """Of few chosen experts they differ; at stride 8 first, and only the second is learned from."""
    net = make(top_k=2).train()
    seen: list[tuple[Tensor, Tensor]] = []
    for level in net.levels:
        if level.mixture is not None:
            level.mixture.router.register_forward_hook(lambda *call: seen.append(call[2]))
    out = net(photo(2, 64, 96))
    for place, (gates, probability) in enumerate(seen[::-1]):  # the deepest level is run first
        torch.testing.assert_close(out["cells"][place], gates)
        torch.testing.assert_close(out["gates"][:, place], gates.mean((2, 3)))
        torch.testing.assert_close(out["router"][:, place], probability.mean((2, 3)))
    assert out["router"].requires_grad and not out["gates"].requires_grad
    assert not torch.allclose(out["gates"], out["router"])


# ---- the experts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERTS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (13, 8)])
def test_experts_keep_the_shape_with_finite_gradients(name: str, size: tuple[int, int]) -> None:
    expert = ALONE[name]() if name in ALONE else _Blurred([name])
    for x in (torch.zeros(2, 16, *size), torch.randn(2, 16, *size) * 100):
        x.requires_grad_()
        y = expert(x)
        assert y.shape == x.shape
        y.square().sum().backward()
        assert x.grad is not None and x.grad.isfinite().all()


def test_attention_does_not_grow_with_the_image() -> None:
    attention = ALONE["attention"]()
    small, large = (attention(torch.randn(1, 16, s, s)).abs().max() for s in (8, 128))
    assert large < 2 * small
    half = attention.half()(60000 * torch.ones(1, 16, 8, 8).half())
    assert attention(torch.ones(1, 16, 64, 64).half()).isfinite().all() and half.dtype == torch.half


def test_the_edge_expert_sees_a_step_and_not_a_border() -> None:
    edge = ALONE["edge"]()
    step = torch.zeros(1, 16, 12, 12)
    step[..., 6:] = 1
    flat = edge(torch.ones(1, 16, 12, 12))
    torch.testing.assert_close(flat, flat[..., :1, :1].expand_as(flat))
    change = (edge(step) - flat).abs().sum(1)[0, 6]
    assert change[5:7].min() > 1e-3 and change[:4].max() < 1e-5


def test_blurring_experts_share_a_pyramid_and_stay_apart() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2 * SLICE, 24, 24)
    both = _Blurred(["frequency", "contrast"])(x)
    for half, name in zip(x.chunk(2, 1), ("frequency", "contrast"), strict=True):
        alone = _Blurred([name])(half)
        torch.testing.assert_close(alone, both.chunk(2, 1)[name == "contrast"])
    flat = torch.ones(1, SLICE, 24, 24)
    assert _Blurred(["contrast"])(flat).abs().max() < 1e-5  # nothing differs from anything
    *bands, rest = _Blurred(["frequency"])(flat).chunk(4, 1)
    assert all(band.abs().max() < 1e-5 for band in bands) and (rest - 1).abs().max() < 1e-5
    *bands, rest = _Blurred(["frequency"])(x[:, :1].expand(-1, SLICE, -1, -1)).chunk(4, 1)
    torch.testing.assert_close(sum(bands) + rest, x[:, :1].expand(-1, 4, -1, -1))  # nothing is lost


def test_the_names_of_the_experts_are_those_of_the_settings() -> None:
    assert (*ALONE, *BLURRED) == EXPERTS


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


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("test_resnet", ["conv1 bn1 act1 maxpool layer1", "layer2", "layer3", "layer4"]),
        ("test_convnext", ["stem_0 stem_1 stages_0", "stages_1", "stages_2", "stages_3"]),
        (
            "test_efficientnet",
            ["conv_stem bn1 blocks.0 blocks.1", "blocks.2", "blocks.3", "blocks.4"],
        ),
    ],
)
def test_a_block_ends_with_one_of_the_last_four_features(
    backbone: str, expected: list[str]
) -> None:
    net = make(backbone)
    names = {id(module): name for name, module in net.backbone.named_modules()}
    found = [" ".join(names[id(part)] for part in group) for group in net.backbone_blocks()]
    assert found == expected


class Pieces(nn.Module):
    """A backbone of five features and a part behind the last; one part is opened, one is not."""

    def __init__(self, *ends: str) -> None:
        super().__init__()
        self.feature_info = [{"module": each} for each in ends]
        self.stem = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        self.stages = nn.Sequential(*(nn.Linear(1, 1) for _ in range(5)))
        self.mixed = nn.ModuleDict({"a": nn.Linear(1, 1)})
        self.after = nn.Linear(1, 1)
        self.last = nn.Linear(1, 1)


def test_what_comes_behind_the_last_feature_is_of_the_deepest_group() -> None:
    net = make()
    parts = Pieces("stages.0", "stages.1", "stages.2", "stages_3", "after")
    net.backbone = parts
    one, two, three, four = net.backbone_blocks()
    assert one == [parts.stem, parts.stages[0], parts.stages[1]]
    assert two == [parts.stages[2]]
    assert three == [parts.stages[3]]
    assert four == [parts.stages[4], parts.mixed, parts.after, parts.last]
    net.backbone = Pieces("stages.0", "stages.1", "stages.2", "mixed.a")  # it is not opened
    assert net.backbone_blocks() == [[], [], [], [net.backbone]]


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
    with pytest.raises(InputError) as caught:
        make(experts=experts)
    assert str(caught.value) == (
        f"{experts} experts: choose 1 to 7, the first of texture, attention, hybrid, edge, "
        "context, frequency, contrast."
    )


def test_a_single_chosen_expert_is_refused_because_its_router_could_not_learn() -> None:
    for experts in (2, 7):
        with pytest.raises(InputError) as caught:
            make(experts=experts, top_k=1)
        said = "top_k is 1; choose at least 2, or the router cannot learn."
        assert str(caught.value) == said
    assert make(experts=1, top_k=1)(photo())["gates"].shape == (2, 2, 1)
    assert make(experts=2, top_k=2)(photo())["gates"].shape == (2, 2, 2)


# ---- what is asked for by itself, and on request -------------------------------------------------


def test_by_itself_it_is_large_from_scratch_and_supervised_at_each_level() -> None:
    net = make()
    assert net.start == (False, "none: trains from scratch (no weights were asked for)")
    assert net.checkpointing is False and len(net.heads) == 4
    mixtures = [level.mixture for level in net.levels if level.mixture is not None]
    assert [(m.router.top_k, m.router.choice.out_channels) for m in mixtures] == [(7, 7)] * 2
    assert [level.settle[0].weight.shape for level in net.levels] == [
        *[(64, 64, 3, 3), (128, 128, 3, 3), (128, 128, 3, 3), (128, 128, 3, 3)]
    ]
    channels = [info["num_chs"] for info in net.backbone.feature_info][-4:]
    found = [level.lateral[0].weight.shape for level in net.levels]
    assert found == [(w, c, 1, 1) for w, c in zip((64, 128, 128, 128), channels, strict=True)]


def test_what_makes_levels_thin_has_no_bias_and_a_checkpoint_no_colours() -> None:
    names = {*make(width=64).state_dict()}
    assert {name for name in names if not name.startswith(("backbone.", "levels."))} == {
        *(f"reduce.{place}.weight" for place in range(3)),
        *(f"heads.{place}.{kind}" for place in range(4) for kind in ("weight", "bias")),
    }
    shapes = [each.weight.shape for each in make(width=64).reduce]
    assert shapes == [(32, 64, 1, 1)] * 3
    assert [each.kernel_size for each in make(width=64).heads] == [(1, 1)] * 4


def test_memory_is_saved_on_request_alone_and_where_gradients_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[dict[str, object]] = []

    def watched(level: nn.Module, *inputs: object, **how: object) -> object:
        calls.append(how)
        return level(*inputs)

    monkeypatch.setattr(modelling, "checkpoint", watched)
    plain, saving = make(), make(checkpointing=True)
    for net, grad, times in ((plain, True, 0), (plain, False, 0), (saving, False, 0)):
        with torch.set_grad_enabled(grad):
            net(photo())
        assert len(calls) == times
    saving(photo())
    assert calls == [{"use_reentrant": False}] * 4
    assert (plain.backbone.grad_checkpointing, saving.backbone.grad_checkpointing) == (False, True)


def test_a_backbone_inside_another_module_is_told_to_save_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As timm wraps those whose features it takes from their middle."""
    told: list[object] = []
    whole = modelling.build_backbone

    def built(*how: object) -> object:
        backbone, start = whole(*how)
        backbone.set_grad_checkpointing = lambda on: told.append(("outside", on))
        inner = SimpleNamespace(set_grad_checkpointing=lambda on: told.append(("inside", on)))
        object.__setattr__(backbone, "model", inner)
        return backbone, start

    monkeypatch.setattr(modelling, "build_backbone", built)
    make(checkpointing=True)
    assert told == [("inside", True)]


def test_a_level_with_experts_settles_what_they_add_and_gives_their_gates() -> None:
    torch.manual_seed(0)
    mixture = Mixture(16, 7, 3)
    level = Level(3, 16, mixture)
    level.lateral, level.settle = nn.Sequential(nn.Conv2d(3, 16, 1)), nn.Sequential(nn.Identity())
    feature = torch.randn(1, 3, 4, 6)
    found, *chosen = level(feature, None)
    expected, *gates = mixture(level.lateral(feature))
    assert torch.equal(found, expected.clamp(min=0)) and len(chosen) == len(gates) == 2
    assert all(torch.equal(a, b) for a, b in zip(chosen, gates, strict=True))


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
