"""How near the forecast comes to measured steps, and the constants that fit them best.

    python benchmarks/fit_forecast.py            # measured against forecast, by the counts on file
    python benchmarks/fit_forecast.py --fit      # the constants of forecast/on_card.py, fitted anew
    python benchmarks/fit_forecast.py --count    # count the networks of others again, and compare
    python benchmarks/fit_forecast.py --unseen build/gpu/unseen.json    # steps that `make gpu` took

`measured_steps.json` says where each row comes from. Constants are fitted to the rows marked so, by
least squares of relative errors, none below what a card can reach. Two are not fitted: numbers that
wait for each other are known from a profile, and kernels counted were raised by one factor.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import timm
import torch
from gpu import REAL
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from camoxpert_nb.forecast.as_cuda import META
from camoxpert_nb.forecast.count import ALL_BLOCKS, Steps, Work, count
from camoxpert_nb.forecast.on_card import (
    ARITHMETIC,
    CROWDED,
    KERNEL,
    SLOWER,
    gib_on,
    kernel_seconds,
)
from camoxpert_nb.machine.cards import CARDS, find_card
from camoxpert_nb.machine.devices import precision_of
from camoxpert_nb.network.build import build_net
from camoxpert_nb.network.losses import structure_loss

FILE = Path(__file__).with_name("measured_steps.json")
NAMES = ("kernel, us", *SLOWER, "arithmetic")
LEAST = (0.0, 1.15, 1.15, 0.0, 1.15, 1.15, 1.2)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--unseen", type=Path, help="steps of the kit, as `make gpu` took them")
    parser.add_argument("--card", help="whose steps they are, where its own name says too little")
    options = parser.parse_args()
    if options.unseen:
        return compare_unseen(json.loads(options.unseen.read_text(encoding="utf-8")), options.card)
    rows = json.loads(FILE.read_text(encoding="utf-8"))["rows"]
    if options.fit:
        found = fit([row for row in rows if row["fitted"]])
        now = (KERNEL * 1e6, *SLOWER.values(), ARITHMETIC)
        for name, value, used in zip(NAMES, found, now, strict=True):
            print(f"{name:<12} {value:8.2f}   in use {used:8.2f}")
        return
    print(f"{'':<58}{'ms':>7}{'forecast':>9}{'ratio':>6}   {'GiB':>5}{'forecast':>9}")
    for row in rows:
        work = recount(row) if options.count else Work(**row["work"])
        if work:
            print(line(row, work))


def compare_unseen(found: dict[str, Any], card: str | None) -> None:
    """Print how near the forecast comes to the kit's whole steps in a result of `gpu.py`."""
    known, _ = find_card(card or found["machine"]["card"])
    print(f"{'':<34}{'ms':>7}{'forecast':>9}{'ratio':>6}   {'GiB':>5}{'forecast':>9}{'ratio':>6}")
    for name, measured in found["found"].items():
        backbone, pixels, batch = re.fullmatch(r"(\w+), (\d+) px x (\d+)", name).groups()
        config = replace(REAL, backbone=backbone, pixels=int(pixels), batch=int(batch)).config()
        taken = Steps(config, build_net(config), precision_of(known.capability))
        work = taken.count(ALL_BLOCKS, config.batch_size)
        ms, gib = 1e3 * sum(kernel_seconds(known, work)), gib_on(work, context=0)
        text = f"{name:<34}{measured['kernel_ms']:7.1f}{ms:9.1f}{ms / measured['kernel_ms']:6.2f}"
        if peak := measured["peak_gib"]:
            text += f"   {peak:5.2f}{gib:9.2f}{gib / peak:6.2f}"
        print(text, flush=True)


def line(row: dict[str, Any], work: Work) -> str:
    """Return one row of the table."""
    ms = 1e3 * sum(kernel_seconds(CARDS[row["card"]], work))
    what = f"{row['name']}, {row['size']} px x {row['batch']}, {row['card']}"
    text = f"{what:<56}{'* ' if row['fitted'] else '  '}{row['ms']:7.1f}{ms:9.1f}"
    memory = f"   {row['gib']:5.2f}{gib_on(work, context=0):9.2f}" if row["gib"] else ""
    return f"{text}{ms / row['ms']:6.2f}{memory}"


def fit(rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Return the constants, by projected descent: none may fall below LEAST."""
    table = np.array([terms(row) for row in rows])
    known = np.array([CROWDED * 1e3 * row["work"]["crowded"] for row in rows])
    measured = np.array([row["ms"] for row in rows])
    scale = np.abs(table / measured[:, None]).max(0)
    matrix, wanted = table / measured[:, None] / scale, 1 - known / measured
    least = np.array(LEAST) * scale
    x, step = least.copy(), 1 / np.linalg.norm(matrix.T @ matrix, 2)
    for _ in range(200_000):
        x = np.maximum(x - step * matrix.T @ (matrix @ x - wanted), least)
    return np.asarray(x / scale)


def terms(row: dict[str, Any]) -> list[float]:
    """Return the milliseconds of each part at a constant of 1 (of kernels: one microsecond)."""
    card, work = CARDS[row["card"]], Work(**row["work"])
    wide = {"narrow": card.multiprocessors}
    moved = [
        1e3 * wide.get(kind, 1) * work.moved.get(kind, 0.0) / (1e9 * card.bandwidth)
        for kind in SLOWER
    ]
    speeds = {"half": card.half, "tf32": card.tf32, "full": card.full}
    arithmetic = sum(1e3 * flops / (1e12 * speeds[kind]) for kind, flops in work.flops.items())
    return [1e-3 * work.launches, *moved, arithmetic]


def recount(row: dict[str, Any]) -> Work | None:
    """Return the work of a row's step counted again; None for CamoXpert, which has changed."""
    name, size, batch = row["name"], row["size"], row["batch"]
    dtype = getattr(torch, row["dtype"])
    mask = torch.empty(batch, 1, size, size, device=META)
    if name.startswith("smp"):
        kind = smp.FPN if "FPN" in name else smp.Unet
        net: nn.Module = kind("tu-edgenext_base", encoder_weights=None)
        return count_peer(net, lambda out: structure_loss(out, mask).mean(), size, batch, dtype)
    if name.startswith("timm"):
        classes = torch.zeros(batch, dtype=torch.long, device=META)
        net = timm.create_model(name.removeprefix("timm "))
        loss = lambda out: F.cross_entropy(out.float(), classes)  # noqa: E731
        return count_peer(net, loss, size, batch, dtype, sgd=True)
    if "features alone" in name:
        net = timm.create_model("edgenext_base", features_only=True)
        return count_peer(net, lambda out: sum(x.float().mean() for x in out), size, batch, dtype)
    return None


def count_peer(
    net: nn.Module, loss: Any, size: int, batch: int, dtype: torch.dtype, *, sgd: bool = False
) -> Work:
    """Return the work of a plain training step of another network, without its first moments."""
    net = net.train().to(META)
    image = torch.empty(batch, 3, size, size, device=META)
    weights = list(net.parameters())
    moments = [torch.zeros_like(weight) for weight in weights * (1 if sgd else 2)]

    def step() -> None:
        with torch.autocast("cuda", dtype):
            out = net(image)
        with torch.autocast("cuda", enabled=False):
            loss(out).backward()
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if not sgd:
            nn.utils.clip_grad_norm_(weights, 1.0)
        with torch.no_grad():
            torch._foreach_lerp_(moments[: len(gradients)], gradients, 0.1)
            torch._foreach_add_(weights[: len(gradients)], gradients)

    return count(step, batch, [*weights, *net.buffers(), *moments])


if __name__ == "__main__":
    main()
