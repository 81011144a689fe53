"""The losses against hand-made references, and the contract that parallel training rests on."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from camoxpert_nb.network.losses import (
    Supervised,
    balance_loss,
    boundary_weight,
    object_and_counted,
    structure_loss,
    total,
    uncertainty_loss,
)
from camoxpert_nb.network.mixture import Router
from camoxpert_nb.network.model import CamoXpert


def square(size: int = 32, batch: int = 1) -> Tensor:
    mask = torch.zeros(batch, 1, size, size)
    for index in range(batch):
        mask[index, :, size // 4 : size // 2, size // 4 + index : size // 2 + 2 * index + 1] = 1
    return mask


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- structure loss ------------------------------------------------------------------------------


def published(logits: Tensor, mask: Tensor, slip: bool) -> Tensor:
    """F3Net's loss as printed (AAAI 2020), or with the slip that about 30 repositories share."""
    weight = 1 + 5 * torch.abs(F.avg_pool2d(mask, 31, 1, 15) - mask)
    reduction = "mean" if slip else "none"
    bce = F.binary_cross_entropy_with_logits(logits, mask, reduction=reduction)
    bce = (weight * bce).sum((2, 3)) / weight.sum((2, 3))
    p = torch.sigmoid(logits)
    inter, union = (p * mask * weight).sum((2, 3)), ((p + mask) * weight).sum((2, 3))
    return (bce + 1 - (inter + 1) / (union - inter + 1)).mean()


@pytest.mark.parametrize("legacy", [False, True])
def test_structure_loss_is_the_published_one_at_the_published_size(legacy: bool) -> None:
    logits, mask = noise(3, 1, 352, 352), square(352, 3)
    ours = structure_loss(logits, mask, legacy).mean()
    torch.testing.assert_close(ours, published(logits, mask, slip=legacy), rtol=1e-5, atol=1e-5)


def test_structure_loss_of_a_case_computed_by_hand() -> None:
    mask = torch.tensor([[0.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])[None, None]
    weight = torch.ones(4, 4)  # a 3 x 3 window sees the one object pixel from nine places
    weight[:3, :3] += 5 / 9
    weight[1, 1] = 1 + 5 * 8 / 9
    torch.testing.assert_close(boundary_weight(mask)[0, 0], weight)
    all_half = torch.zeros(1, 1, 4, 4)  # cross entropy ln 2 everywhere, whatever the weights
    shared, either = weight[1, 1] / 2, weight.sum() / 2 + weight[1, 1] / 2
    expected = torch.tensor(2.0).log() + 1 - (shared + 1) / (either + 1)
    torch.testing.assert_close(structure_loss(all_half, mask), expected[None])


@pytest.mark.parametrize(
    ("height", "width", "reach"),
    [(352, 352, 15), (352, 900, 15), (96, 64, 2), (363, 400, 15), (400, 364, 16)],
)
def test_surroundings_scale_with_the_shorter_side(height: int, width: int, reach: int) -> None:
    """31 of 352 pixels are 15 to each side; of 64 they are 5.6, so 2 to each side.

    Of 363 they are 31.97, of 364 they are 32.06: only from 32 on there are 16 to each side.
    """
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 2, width // 2] = 1
    (weight,) = (boundary_weight(mask) > 1)[0]
    rows, columns = (weight.any(axis).nonzero().flatten() for axis in (1, 0))
    assert rows.tolist() == list(range(height // 2 - reach, height // 2 + reach + 1))
    assert columns.tolist() == list(range(width // 2 - reach, width // 2 + reach + 1))


def test_the_boundary_weight_is_not_cancelled() -> None:
    mask = square()
    logits = 8 * mask.roll((2, 2), (2, 3)) - 4  # wrong along the outline only
    assert structure_loss(logits, mask) > 1.1 * structure_loss(logits, mask, legacy=True)


@pytest.mark.parametrize("legacy", [False, True])
def test_where_a_fourth_of_one_pixel_counts_it_alone_is_the_loss(legacy: bool) -> None:
    """As at the coarse heads, where a pixel may be ignored in part; at the middle of a 2 x 2."""
    mask, logits, counted = torch.zeros(1, 1, 4, 4), noise(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., 1, 1], logits[..., 1, 1], counted[..., 1, 1] = 1, math.log(3), 1 / 4
    weight = (1 + 5 * 8 / 9) / 4  # at probability 3/4
    expected = -math.log(3 / 4) + 1 - (weight * 3 / 4 + 1) / (weight + 1)
    found = structure_loss(logits, mask, legacy, counted)
    assert found.tolist() == pytest.approx([expected], rel=1e-5)
    assert uncertainty_loss(logits, counted).tolist() == pytest.approx([4 * 3 / 4 / 4], rel=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_where_nothing_counts_there_is_no_loss(legacy: bool) -> None:
    logits, mask, nothing = noise(2, 1, 8, 8), square(8, 2), torch.zeros(2, 1, 8, 8)
    assert structure_loss(logits, mask, legacy, nothing).tolist() == [0, 0]
    assert uncertainty_loss(logits, nothing).tolist() == [0, 0]


def test_a_mask_of_two_channels_is_split_into_the_object_and_what_counts() -> None:
    mask = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.25]]]])
    object_, counted = object_and_counted(mask)
    assert object_.tolist() == [[[[1, 0]]]] and counted is not None
    assert counted.tolist() == [[[[1, 0.75]]]]
    object_, counted = object_and_counted(mask[:, :1])
    assert object_.tolist() == [[[[1, 0]]]] and counted is None


def test_every_sample_has_its_own_loss() -> None:
    logits, mask = (
        noise(2, 1, 24, 40),
        torch.cat([square(40)[..., :24, :], torch.zeros(1, 1, 24, 40)]),
    )
    both = structure_loss(logits, mask)
    alone = torch.cat([structure_loss(logits[i : i + 1], mask[i : i + 1]) for i in (0, 1)])
    torch.testing.assert_close(both, alone)


@pytest.mark.parametrize("size", [1, 2, 5, 20, 64, 352])
def test_the_boundary_weight_fits_any_size(size: int) -> None:
    weight = boundary_weight((noise(2, 1, size, size) > 0).float())
    assert weight.shape == (2, 1, size, size)
    assert (weight >= 1).all() and (weight <= 6).all()


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_extreme_logits_and_uniform_masks_stay_finite(value: float, fill: float) -> None:
    logits = torch.full((1, 1, 16, 16), value, requires_grad=True)
    loss = structure_loss(logits, torch.full((1, 1, 16, 16), fill)) + uncertainty_loss(logits)
    loss.sum().backward()
    assert loss.isfinite().all() and logits.grad is not None and logits.grad.isfinite().all()


def test_an_empty_mask_pushes_the_prediction_down() -> None:
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    structure_loss(logits, torch.zeros(1, 1, 16, 16)).sum().backward()
    assert logits.grad is not None and (logits.grad > 0).all()


def test_losses_are_float32_whatever_the_network_gave() -> None:
    logits, mask = noise(1, 1, 16, 16).bfloat16(), square(16)
    assert structure_loss(logits, mask).dtype == uncertainty_loss(logits).dtype == torch.float32


# ---- the other losses ----------------------------------------------------------------------------


def test_uncertainty_is_one_when_undecided_and_zero_when_certain() -> None:
    logits = torch.stack([torch.zeros(1, 8, 8), torch.full((1, 8, 8), 50.0)])
    torch.testing.assert_close(uncertainty_loss(logits), torch.tensor([1.0, 0.0]))


def test_balance_is_zero_when_even_and_largest_when_one_expert_takes_all() -> None:
    even = torch.full((4, 2, 7), 1 / 7)
    one = F.one_hot(torch.zeros(4, 2, dtype=torch.long), 7).float()
    taking_turns = torch.eye(7)[:, None]
    torch.testing.assert_close(balance_loss(even), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(balance_loss(one), torch.tensor(6.0))
    torch.testing.assert_close(balance_loss(taking_turns), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_balance_against_the_steps_before_is_linear_in_the_batch() -> None:
    """Value and slope are those of the balance where batch and usage agree; parts add up."""
    router = noise(6, 2, 7).softmax(2).requires_grad_()
    usage = router.detach().mean(0)
    (own,) = torch.autograd.grad(balance_loss(router), router)
    (slope,) = torch.autograd.grad(balance_loss(router, usage), router)
    torch.testing.assert_close(slope, own)
    torch.testing.assert_close(balance_loss(router, usage), balance_loss(router))
    other = noise(2, 7).softmax(1)
    parts = sum(len(part) / 6 * balance_loss(part, other) for part in router.split([1, 3, 2]))
    torch.testing.assert_close(parts, balance_loss(router, other))
    even = torch.full((2, 7), 1 / 7)
    torch.testing.assert_close(balance_loss(router, even), torch.tensor(0.0), atol=1e-6, rtol=0)


# ---- the module that training runs ---------------------------------------------------------------


def make(backbone: str = "test_convnext", **options: bool) -> Supervised:
    torch.manual_seed(0)
    return Supervised(CamoXpert(backbone, **options))  # type: ignore[arg-type]


def photos(batch: int, size: int = 64) -> tuple[Tensor, Tensor]:
    return noise(batch, 3, size, size).sigmoid(), square(size, batch)


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def test_every_part_starts_with_the_sample() -> None:
    parts = make()(*photos(3))
    shapes = {name: tuple(value.shape) for name, value in parts.items()}
    losses = dict.fromkeys(("structure", "deep", "uncertainty"), (3,))
    maps = {"gates": (3, 2, 7), "router": (3, 2, 7), "logits": (3, 1, 64, 64)}
    assert shapes == losses | maps
    assert all(value.dtype == torch.float32 for value in parts.values())


@pytest.mark.parametrize("chunks", [(2, 2), (3, 1), (1, 1, 2)])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("backbone", ["test_convnext", "test_resnet"])
def test_split_copied_and_gathered_equals_whole(
    chunks: tuple[int, ...], checkpointing: bool, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What DataParallel does: a copy of the module for each chunk, outputs put together.

    In float64: sums are rounded differently for other batches and threads, and a ReLU whose input
    rounds to the other side of 0 gives quite another gradient. Steps of 2e-16 make that a billion
    times rarer than float32's, and leave room for a tolerance that hides nothing.
    """
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # the casts to float32 inside
    whole = make(backbone, checkpointing=checkpointing).double()
    if backbone == "test_resnet":  # its batch statistics belong to a chunk: frozen, they agree
        whole.net.backbone.eval()  # type: ignore[union-attr, operator]
    copies = [copy.deepcopy(whole) for _ in chunks]
    image, mask = (tensor.double() for tensor in photos(4))
    expected, expected_means = total(whole(image, mask), uncertainty=0.1, balance=1.0)
    expected.backward()

    split = zip(copies, image.split(chunks), mask.split(chunks), strict=True)
    parts = [one(i, m) for one, i, m in split]
    gathered = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    loss, means = total(gathered, uncertainty=0.1, balance=1.0)
    loss.backward()

    # The longest sum has 4 x 64 x 64 terms: at worst 16384 x 1.1e-16 of their size.
    close = {"rtol": 2e-12, "atol": 2e-12}
    torch.testing.assert_close(means, expected_means, **close)
    summed = {name: sum(gradients(one)[name] for one in copies) for name in gradients(whole)}
    torch.testing.assert_close(summed, gradients(whole), **close)


@pytest.mark.parametrize("backbone", ["test_convnext", "test_resnet", "test_efficientnet"])
def test_checkpointing_changes_memory_only(backbone: str) -> None:
    plain, saving = make(backbone), make(backbone, checkpointing=True)
    image, mask = photos(2)
    results = [(supervised(image, mask), supervised) for supervised in (plain, saving)]
    for parts, _ in results:
        total(parts)[0].backward()
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(gradients(plain), gradients(saving), rtol=1e-3, atol=1e-6)


def test_one_step_on_balance_lowers_the_imbalance() -> None:
    supervised = make()
    image, mask = photos(4)
    routers = [module.choice for module in supervised.modules() if isinstance(module, Router)]
    before = balance_loss(supervised(image, mask)["router"])
    before.backward()
    for linear in routers:
        assert linear.weight.grad is not None and linear.weight.grad.abs().sum() > 0
        linear.weight.data -= 0.01 * linear.weight.grad
    assert balance_loss(supervised(image, mask)["router"]) < before


def test_the_router_learns_from_the_structure_loss_alone() -> None:
    supervised = make()
    total(supervised(*photos(2)), deep=0.0, balance=0.0)[0].backward()
    routers = [module for module in supervised.modules() if isinstance(module, Router)]
    assert len(routers) == 2
    for router in routers:
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in router.parameters())


class Heads(nn.Module):
    """A network whose four heads say 0, 1, 2 and 4 everywhere."""

    def forward(self, image: Tensor) -> dict[str, Any]:
        def head(value: float, stride: int) -> Tensor:
            return torch.full((len(image), 1, 64 // stride, 64 // stride), value)

        gates = torch.ones(len(image), 2, 7) / 7
        deep = [head(1.0, 8), head(2.0, 16), head(4.0, 32)]
        return {"logits": head(0.0, 1), "deep": deep, "gates": gates, "router": gates}


class Mean(nn.Module):
    """A loss that is what the head says."""

    def forward(self, logits: Tensor, mask: Tensor, counted: Tensor | None) -> Tensor:
        return logits.mean((1, 2, 3))


def test_a_head_weighs_half_of_the_finer_one() -> None:
    parts = Supervised(Heads(), own=Mean())(*photos(2))
    assert parts["structure"].tolist() == [0.0, 0.0]
    assert parts["deep"].tolist() == [1 / 2 + 2 / 4 + 4 / 8] * 2
    assert parts["uncertainty"].tolist() == [1.0, 1.0]  # at probability one half


@pytest.mark.parametrize("own", [False, True])
def test_every_head_is_told_which_pixels_count_and_sees_soft_edges(own: bool) -> None:
    """A pixel in four of each two by two is object in the left half; the right half is ignored."""
    image, mask = photos(1)
    mask = torch.zeros(1, 2, 64, 64)
    mask[:, 0, ::2, :32:2] = 1
    mask[:, 1, :, 32:] = 1
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    class Looks(nn.Module):
        def forward(self, logits: Tensor, object_: Tensor, counted: Tensor) -> Tensor:
            seen.append((logits, object_, counted))
            return structure_loss(logits, object_, counted=counted)

    parts, expected = Supervised(Heads(), own=Looks() if own else None)(image, mask), torch.zeros(1)
    for place, stride in enumerate((8, 16, 32), 1):
        side = 64 // stride
        soft = torch.zeros(1, 1, side, side)
        soft[..., : side // 2] = 0.25
        left = torch.zeros(1, 1, side, side)
        left[..., : side // 2] = 1
        logits = torch.full_like(soft, float((0, 1, 2, 4)[place]))
        expected += structure_loss(logits, soft, counted=left) / 2**place
        if own:
            assert all(
                torch.equal(a, b) for a, b in zip(seen[place], (logits, soft, left), strict=True)
            )
    torch.testing.assert_close(parts["deep"], expected)
    assert parts["uncertainty"].item() == pytest.approx(1.0)  # of probability one half
    assert torch.equal(parts["logits"], torch.zeros(1, 1, 64, 64))


def test_what_is_sure_but_ignored_makes_nothing_more_certain() -> None:
    image, _ = photos(1)
    mask, logits = torch.zeros(1, 2, 64, 64), torch.zeros(1, 1, 64, 64)
    mask[:, 1, :, 16:], logits[..., 16:] = 1, 50
    parts = Supervised(Says(logits))(image, mask)
    assert parts["uncertainty"].item() == pytest.approx(1.0)


class Says(Heads):
    """As `Heads`, but for these logits at the size of the image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, image: Tensor) -> dict[str, Any]:
        return {**super().forward(image), "logits": self.logits}


@pytest.mark.parametrize("how", [{}, {"legacy": False}, {"legacy": True}])
def test_training_takes_the_structure_loss_that_was_asked_for(how: dict[str, bool]) -> None:
    """That of the paper, unless the other one is asked for."""
    image, mask = photos(2)
    logits = 8 * mask.roll((2, 2), (2, 3)) - 4  # wrong along the outline, where the two differ
    legacy = how.get("legacy", False)
    found = Supervised(Says(logits), **how)(image, mask)["structure"]
    torch.testing.assert_close(found, structure_loss(logits, mask, legacy))
    assert (found - structure_loss(logits, mask, not legacy)).abs().min() > 0.01


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_the_network_alone_computes_in_the_precision_asked_for(dtype: torch.dtype | None) -> None:
    """Also inside someone else's autocast; the losses never do."""
    seen: list[object] = []

    def look(*_: object) -> None:
        on = torch.is_autocast_enabled("cpu")
        seen.append(torch.get_autocast_dtype("cpu") if on else None)

    class Looks(Mean):
        def forward(self, logits: Tensor, mask: Tensor, counted: Tensor | None) -> Tensor:
            look()
            return super().forward(logits, mask, counted)

    net = Heads()
    net.register_forward_hook(look)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Supervised(net, dtype=dtype, own=Looks())(*photos(1))
    assert seen == [dtype, None, None, None, None]


def test_without_deep_heads_there_is_no_deep_loss() -> None:
    class Alone(Heads):
        def forward(self, image: Tensor) -> dict[str, Any]:
            return {**super().forward(image), "deep": []}

    parts = Supervised(Alone())(*photos(3))
    assert parts["deep"].tolist() == [0, 0, 0] and parts["structure"].shape == (3,)


def test_total_weighs_the_parts_and_reports_them_unweighted() -> None:
    ones = {
        name: torch.full((2,), value) for name, value in zip("sdu", (1.0, 2.0, 3.0), strict=True)
    }
    parts = {"structure": ones["s"], "deep": ones["d"], "uncertainty": ones["u"]}
    parts["router"] = F.one_hot(torch.zeros(2, 4, dtype=torch.long), 7).float()
    loss, means = total(parts, deep=0.5, uncertainty=0.1, balance=0.01)
    torch.testing.assert_close(loss, torch.tensor(1 + 1 + 0.3 + 0.06))
    assert {k: round(float(v), 4) for k, v in means.items()} == {
        "structure": 1.0,
        "deep": 2.0,
        "uncertainty": 3.0,
        "balance": 6.0,
    }


def test_by_itself_deep_heads_count_whole_balance_a_tenth_and_uncertainty_nothing() -> None:
    """One of seven experts takes all: the balance is 6."""
    values = {"structure": 0.5, "deep": 0.25, "uncertainty": 8.0}
    parts = {name: torch.tensor([value]) for name, value in values.items()}
    loss, _ = total({**parts, "router": torch.eye(7)[:1].expand(1, 2, 7)})
    assert loss.item() == pytest.approx(0.5 + 0.25 + 0.1 * 6)


def test_total_takes_the_balance_against_the_usage_before() -> None:
    """Of two experts: 2 * (2 u r - u u) - 1 with u = (3/4, 1/4) and r = (0, 1)."""
    ones = dict.fromkeys(("structure", "deep", "uncertainty"), torch.zeros(1))
    router, usage = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.75, 0.25]])
    _, means = total({**ones, "router": router}, usage=usage)
    assert means["balance"].item() == pytest.approx(2 * (2 * 0.25 - (9 + 1) / 16) - 1)


def test_bfloat16_autocast_opens_inside_and_stays_close() -> None:
    exact, half = make(), make()
    half.dtype = torch.bfloat16
    image, mask = photos(2)
    loss, means = total(half(image, mask))
    loss.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(half).values())
    torch.testing.assert_close(
        means["structure"], total(exact(image, mask))[1]["structure"], rtol=0.05, atol=0.05
    )


def test_it_learns_one_image_by_heart() -> None:
    supervised = make("test_resnet")
    image, mask = photos(2)
    optimiser = torch.optim.AdamW(supervised.parameters(), 3e-3)
    history = []
    for _ in range(12):
        loss, _ = total(supervised(image, mask))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.7 * history[0]


@pytest.mark.parametrize("legacy", [False, True])
def test_ignored_pixels_change_no_loss_and_get_no_gradient(legacy: bool) -> None:
    """Whatever is predicted there; without any, the loss is the one without that channel."""
    torch.manual_seed(0)
    mask = (torch.rand(2, 1, 32, 32) > 0.7).float()
    ignored = torch.zeros_like(mask)
    ignored[:, :, 8:20, 4:30] = 1
    logits = torch.randn(2, 1, 32, 32, requires_grad=True)
    shaken = (logits + 9 * ignored * torch.randn_like(mask)).detach()
    for loss in (
        lambda x: structure_loss(x, mask, legacy, 1 - ignored),
        lambda x: uncertainty_loss(x, 1 - ignored),
    ):
        assert torch.allclose(loss(logits), loss(shaken))
        (gradient,) = torch.autograd.grad(loss(logits).sum(), logits)
        assert (gradient[ignored > 0] == 0).all() and (gradient[ignored == 0] != 0).any()
    everything = torch.ones_like(mask)
    assert torch.allclose(
        structure_loss(logits, mask, legacy, everything), structure_loss(logits, mask, legacy)
    )
