"""The losses, and the module that training runs: network and losses in one forward pass.

Everything is per sample, in float32, whatever the precision of the network; what needs the whole
batch (means, the balance of the experts) is computed in `total`, after the parts of all devices
have been gathered. So one device, DataParallel and DDP see the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEEP_WEIGHTS = (1 / 2, 1 / 4, 1 / 8)  # of the heads at strides 8, 16 and 32


def structure_loss(
    logits: Tensor, mask: Tensor, legacy: bool = False, counted: Tensor | None = None
) -> Tensor:
    """Return boundary-weighted cross entropy plus boundary-weighted IoU loss, (B,) float32.

    `logits` (B, 1, H, W); `mask` (B, 1, H, W), 0...1. Source: Wei et al., "F3Net", AAAI 2020. A
    pixel weighs 1 to 6, more the less its surroundings are like it. About thirty published
    repositories average the cross entropy before weighting it, so its weight cancels; `legacy`
    does as they do, to compare with their numbers.
    `counted`, of the shape of `mask`, is 0 where pixels are left out; they count as surroundings.
    """
    return _from_sums(_sums(logits, mask, counted, legacy))


def _sums(logits: Tensor, mask: Tensor, counted: Tensor | None, legacy: bool) -> Tensor:
    """Return what structure_loss needs to know of all pixels, (B, 5) float32.

    These are the weighed sums of cross entropy, probability, probability on the object, 1 and
    object. As products of rows they take a third of the operations of sum(weight * ...).
    """
    logits, mask = logits.float(), mask.float()
    weight = boundary_weight(mask)
    weight = weight if counted is None else weight * counted
    rows = torch.stack([weight, weight * mask], 1).flatten(2)  # (B, 2, H * W)
    whole = rows.sum(2, keepdim=True)  # (B, 2, 1)
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    column = entropy.flatten(1)[..., None]  # (B, H * W, 1)
    if legacy:
        alike = whole[:, :1] * _mean(entropy, counted)[:, None, None]
    else:
        alike = rows[:, :1] @ column
    probability = logits.sigmoid().flatten(1)[..., None]
    return torch.cat([alike, rows @ probability, whole], 1).squeeze(2)


def _from_sums(sums: Tensor) -> Tensor:
    """Map (..., 5), as `_sums` returns them, to structure losses (...); 0 where nothing counts."""
    entropy, guessed, shared, whole, object_ = sums.unbind(-1)
    alike = entropy / whole.clamp(min=1e-6)
    return alike + 1 - (shared + 1) / (guessed + object_ - shared + 1)


def object_and_counted(mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Split a mask (B, 1 or 2, H, W) into its object and, if the second channel says so, what
    counts: each (B, 1, H, W)."""
    return mask[:, :1], 1 - mask[:, 1:] if mask.shape[1] > 1 else None


def boundary_weight(mask: Tensor) -> Tensor:
    """Return 1 + 5 |mean of the surroundings - mask|, of the shape of `mask` (B, 1, H, W), 0...1.

    The surroundings are 31 pixels wide at 352, the size they were published for, and scale with
    the image (at least 3), so that the weight means the same at every size. Outside the image
    counts as background, as published.
    """
    window = max(1, round((31 / 352 * min(mask.shape[2:]) - 1) / 2)) * 2 + 1
    rows = F.avg_pool2d(mask, (window, 1), 1, (window // 2, 0))  # two passes: 16 times cheaper
    surroundings = F.avg_pool2d(rows, (1, window), 1, (0, window // 2))
    return 1 + 5 * (surroundings - mask).abs()


def uncertainty_loss(logits: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the mean of 1 - (2p - 1)^2, (B,) float32: 1 where undecided, 0 where certain.

    `logits` (B, 1, H, W). Source: Pang et al., "ZoomNet", CVPR 2022 (their UAL).
    """
    probability = logits.float().sigmoid()
    return 4 * _mean(probability * (1 - probability), counted)


def balance_loss(router: Tensor, usage: Tensor | None = None) -> Tensor:
    """Return how unevenly a batch uses the experts: 0 when evenly, experts - 1 when only one.

    `router` (B, stages, experts), probabilities. It is the squared coefficient of variation of
    each expert's mean probability, averaged over stages (Shazeer et al., ICLR 2017). With `usage`
    (stages, experts), the mean probabilities of the steps before, it is that function's tangent
    there: linear in the batch, so that the parts of a batch, however it is split, add up to it.
    """
    share = router.float().mean(0)  # (stages, experts)
    usage = share if usage is None else usage
    uneven = 2 * (usage * share).sum(-1) - usage.square().sum(-1)
    return (share.shape[1] * uneven - 1).mean()


class Supervised(nn.Module):
    """Network and losses in one module: what DataParallel and DDP wrap.

    `dtype` is the precision of the network's autocast (None: off); `legacy` is structure_loss's.
    `own` takes structure_loss's place: it maps logits, mask and `counted` to (B,), as that does.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        dtype: torch.dtype | None = None,
        legacy: bool = False,
        own: nn.Module | None = None,
    ):
        super().__init__()
        self.net, self.dtype, self.legacy, self.own = net, dtype, legacy, own

    def forward(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Map `image` (B, 3, H, W), 0...1, and `mask` (B, 1, H, W), 0 or 1, to losses per sample.

        A second channel of `mask` is 1 where pixels count nowhere.
        Returns "structure", "deep" and "uncertainty", (B,); "gates" and "router",
        (B, stages, experts); "logits", (B, 1, H, W), to be scored and not learned from. The first
        dimension of each is the sample, so they can be gathered.
        """
        with torch.autocast(image.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            out = self.net(image)
        with torch.autocast(image.device.type, enabled=False):
            deep = out["deep"]
            small = [F.adaptive_avg_pool2d(mask.float(), logits.shape[2:]) for logits in deep]
            heads = list(zip([out["logits"], *deep], [mask, *small], strict=True))  # soft edges
            structure, *losses = self._of_heads(heads)
            weighed = [w * loss for w, loss in zip(DEEP_WEIGHTS, losses, strict=False)]
            uncertainty = uncertainty_loss(out["logits"], object_and_counted(mask)[1])
        return {
            "structure": structure,
            "deep": sum(weighed, torch.zeros_like(structure)),
            "uncertainty": uncertainty,
            "gates": out["gates"],
            "router": out["router"],
            "logits": out["logits"].detach(),
        }

    def _of_heads(self, heads: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Return the loss of each head, (B,), whose logits and mask are given."""
        parts = [(logits, *object_and_counted(target)) for logits, target in heads]
        if self.own is not None:
            return [self.own(logits, object_, counted) for logits, object_, counted in parts]
        sums = [_sums(logits, mask, counted, self.legacy) for logits, mask, counted in parts]
        # all heads at once: fewer operations
        return list(_from_sums(torch.stack(sums, 1)).unbind(1))


def total(
    parts: dict[str, Tensor],
    *,
    deep: float | Tensor = 1.0,
    uncertainty: float | Tensor = 0.0,
    balance: float | Tensor = 0.1,
    usage: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss to minimise, 0-dim, and its unweighted parts, 0-dim each, for the record.

    `parts` are Supervised's; `deep`, `uncertainty` and `balance` are weights (numbers or 0-dim),
    `usage` is balance_loss's. With it the mean over the parts of a batch, weighed by their images,
    is the whole batch's, in value and gradient.
    """
    means = {name: parts[name].mean() for name in ("structure", "deep", "uncertainty")}
    means["balance"] = balance_loss(parts["router"], usage)
    loss = means["structure"] + deep * means["deep"]
    loss = loss + uncertainty * means["uncertainty"] + balance * means["balance"]
    return loss, means


def _mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weighed mean of each sample, (B,); 0 where nothing has a weight."""
    if weight is None:
        return x.mean((1, 2, 3))
    every = (1, 2, 3)
    return (weight * x).sum(every) / weight.sum(every).clamp(min=1e-6)
