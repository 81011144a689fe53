"""GPUs one can rent, buy or get on Kaggle: what their makers publish, to forecast without one."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ..errors import InputError

MOST = 16  # of one card in a machine
# What drivers add to a card's name: NVIDIA A100-SXM4-80GB, Tesla P100-PCIE-16GB, H100 80GB HBM3.
BUILD = re.compile(r"(?:-?(?:sxm\d?|pcie|hbm\w*|\d+gb))+")


@dataclass(frozen=True)
class Card:
    """One kind of GPU.

    gib: memory that a program sees. bandwidth: GB/s of that memory. half, tf32, full: TFLOPS in
    half precision added up in float32 (tensor cores, without sparsity), in float32 convolutions and
    in float32. link: GB/s between two of them in one direction, as reached rather than published.
    multiprocessors: how many blocks of threads run side by side at the least. tried: whether steps
    of this kit, or published ones, were compared with the forecast.
    """

    name: str
    title: str
    capability: tuple[int, int]
    gib: float
    bandwidth: float
    half: float
    tf32: float
    full: float
    multiprocessors: int
    link: float
    tried: bool = False


# NVIDIA's datasheets and architecture whitepapers: T4 datasheet (2018), Tesla P100 and V100
# datasheets (2016, 2018), L4 (2023), A10 (2021), A100 (2020), H100 and H200 (2023); Turing (2018),
# Ampere GA102 (2020) and Ada (2022) whitepapers for GeForce, whose half precision with sums in
# float32 runs at half the figure on the box. `gib` is what PyTorch says. Without tensor cores for
# float32 (before 8.0) convolutions run at the float32 rate. Links: PCIe 3 reaches 6 GB/s and PCIe 4
# 12 where cards copy by way of the host, NVLink two thirds of its figure.
CARDS = {
    card.name: card
    for card in (
        Card("t4", "Tesla T4", (7, 5), 14.6, 320, 65, 8.1, 8.1, 40, 6),
        Card("p100", "Tesla P100", (6, 0), 15.9, 732, 18.7, 9.3, 9.3, 56, 6),
        Card("v100", "Tesla V100", (7, 0), 15.8, 900, 125, 15.7, 15.7, 80, 100),
        Card("l4", "L4", (8, 9), 22.0, 300, 121, 60, 30.3, 58, 12),
        Card("a10", "A10", (8, 6), 22.0, 600, 125, 62.5, 31.2, 72, 12),
        Card("a100", "A100 40 GB", (8, 0), 39.5, 1555, 312, 156, 19.5, 108, 200),
        Card("a100-80", "A100 80 GB", (8, 0), 79.2, 2039, 312, 156, 19.5, 108, 200),
        Card("h100", "H100 80 GB", (9, 0), 79.1, 3350, 989, 494, 67, 132, 300, tried=True),
        Card("h200", "H200", (9, 0), 139.8, 4800, 989, 494, 67, 132, 300),
        Card("rtx2080ti", "RTX 2080 Ti", (7, 5), 10.7, 616, 53.8, 13.4, 13.4, 68, 6),
        Card("rtx3060", "RTX 3060 12 GB", (8, 6), 11.8, 360, 25.5, 12.7, 12.7, 28, 12),
        Card("rtx3080", "RTX 3080 10 GB", (8, 6), 9.8, 760, 59.5, 29.8, 29.8, 68, 12),
        Card("rtx3090", "RTX 3090", (8, 6), 23.7, 936, 71, 35.6, 35.6, 82, 12, tried=True),
        Card("rtx4070", "RTX 4070", (8, 9), 11.7, 504, 58.3, 29.1, 29.1, 46, 12),
        Card("rtx4090", "RTX 4090", (8, 9), 23.6, 1008, 165.2, 82.6, 82.6, 128, 12),
    )
}


def find_card(text: str) -> tuple[Card, int]:
    """Return the card that a text such as "t4x2", "RTX 3090" or "a100" names, and how many.

    A name as its driver tells it will do. Raises InputError with all names, the near ones first.
    """
    plain = re.sub(r"[\s_]|nvidia|tesla|geforce", "", text.lower())
    name, count = _without_build(plain), 1
    several = re.fullmatch(r"(.+)x(\d+)", plain)
    if several and name not in CARDS and _without_build(several[1]) in CARDS:
        name, count = _without_build(several[1]), int(several[2])
    if name in CARDS and 1 <= count <= MOST:
        return CARDS[name], count
    if name in CARDS:
        raise InputError(f"--on {text}: {count} GPUs; a machine has 1 to {MOST} of one kind.")
    near = difflib.get_close_matches(name, CARDS, 2, 0.6)
    hint = f" Near: {', '.join(near)}." if near else ""
    raise InputError(
        f"--on {text}: no such card is known.{hint} Known: {', '.join(CARDS)}; for several write "
        "how many, as in t4x2."
    )


def _without_build(plain: str) -> str:
    """Return a card's name without what says how it was built, but for a larger memory."""
    name = max((name for name in CARDS if plain.startswith(name)), key=len, default="")
    if not name or not BUILD.fullmatch(plain.removeprefix(name)):
        return plain
    larger = f"{name}-80"
    return larger if larger in CARDS and "80gb" in plain else name
