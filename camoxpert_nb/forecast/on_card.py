"""From the work of a step to its seconds and memory on a card that is not here.

A card's published figures, times what real cards reach of them, turn work into time. The host
launches while the GPU computes, so a step lasts as long as the slower of the two, plus what of the
exchange of gradients nothing hides. `benchmarks/fit_forecast.py` prints the measured steps, which
of them the constants were fitted to, and how near the others come: kernel times within 21 %,
memory within 5 %. The way is that of rooflines (Williams et al., CACM 2009) and, for unseen cards,
of Habitat (Yu et al., USENIX ATC 2021), with counts in the place of a profile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..machine.cards import Card
from ..machine.devices import GIB
from .count import Work

# Fitted: seconds that a kernel takes however small it is; how many times a card's published time
# the moving of bytes takes, by kind; the same for arithmetic.
KERNEL = 4.9e-6
SLOWER = {"plain": 1.46, "norm": 1.9, "narrow": 2.0, "depthwise": 2.8, "scattered": 53.0}
ARITHMETIC = 1.2
# Seconds for a number that waits to be added: 3.6 ms of backward passes measured, on an H100.
CROWDED = 0.32e-6

# Seconds of the host for a launch: a fast one, a usual one, and a slow one that was measured.
LAUNCH = (8e-6, 15e-6, 45e-6)
# The range of kernel times: cards whose steps were compared, and others, which may be bound by
# their power (a T4 has 70 W).
COMPARED, UNSEEN = (0.85, 1.0, 1.3), (0.8, 1.15, 1.7)
SHOWN = (0.0, 0.25, 1.0)  # share of the exchange of gradients that the backward pass does not hide

FRAGMENTS = 1.05  # bytes that PyTorch holds for each one in use
WORKSPACE = 0.12  # GiB that convolutions borrow
CONTEXT = 0.45  # GiB that CUDA takes for itself

CORES = 4  # on Kaggle
READING = 1.2e9  # bytes of decoded images a second and core; within one process it is 2 to 8 GB/s


class Span(NamedTuple):
    """A number, and the range it is expected in."""

    low: float
    likely: float
    high: float

    def plus(self, other: Span) -> Span:
        """Return the sum, were all of it low or high together."""
        return Span(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: float) -> Span:
        """Return the span of so many."""
        return Span(*(factor * each for each in self))


@dataclass(frozen=True)
class Step:
    """A step on a card: its seconds, what they are made of, and one GPU's memory in GiB.

    kernels: seconds of all kernels, which `small`, `moving` and `arithmetic` add up to; host: to
    launch them; exchange: of gradients between GPUs, where it shows; loading: of the images.
    """

    kernels: Span
    small: float
    moving: float
    arithmetic: float
    host: Span
    exchange: Span
    loading: float
    gib: float

    @property
    def seconds(self) -> Span:
        """The seconds of the step."""
        slowest = (max(a, b, self.loading) for a, b in zip(self.kernels, self.host, strict=True))
        return Span(*slowest).plus(self.exchange)

    @property
    def bound(self) -> str:
        """What it waits for most."""
        if self.loading > max(self.kernels.likely, self.host.likely):
            return "loading of images"
        if self.host.likely > self.kernels.likely:
            return "launches on the host"
        parts = {
            "many small kernels": self.small,
            "memory bandwidth": self.moving,
            "arithmetic": self.arithmetic,
        }
        return max(parts, key=lambda name: parts[name])


def step_on(
    card: Card, work: Work, *, size: int = 0, gpus: int = 1, replayed: bool = False
) -> Step:
    """Return the step that does `work` on each of `gpus` cards, with images of `size` pixels.

    A `replayed` one was captured as a CUDA graph: nothing of it is launched.
    """
    small, moving, arithmetic = kernel_seconds(card, work)
    spread = COMPARED if card.tried else UNSEEN
    across = 2 * (gpus - 1) / gpus * work.gradient_bytes / (1e9 * card.link)
    return Step(
        kernels=Span(*spread).times(small + moving + arithmetic),
        small=small,
        moving=moving,
        arithmetic=arithmetic,
        host=Span(*LAUNCH).times(0 if replayed else work.launches),
        exchange=Span(*SHOWN).times(across),
        loading=gpus * work.images * 4 * size**2 / (CORES * READING),
        gib=gib_on(work, gpus),
    )


def kernel_seconds(card: Card, work: Work) -> tuple[float, float, float]:
    """Return a step's seconds for its kernels as such, for moving bytes and for arithmetic."""
    moved = dict(work.moved)
    # Norms of a batch work on one channel a multiprocessor: few channels leave the card idle.
    moved["narrow"] = moved.get("narrow", 0.0) * card.multiprocessors
    moving = sum(SLOWER[kind] * bytes_ for kind, bytes_ in moved.items()) / (1e9 * card.bandwidth)
    speeds = {"half": card.half, "tf32": card.tf32, "full": card.full}
    arithmetic = sum(ARITHMETIC * work.flops[kind] / (1e12 * speeds[kind]) for kind in work.flops)
    return KERNEL * work.launches, moving + CROWDED * work.crowded, arithmetic


def gib_on(work: Work, gpus: int = 1, context: float = CONTEXT) -> float:
    """Return the GiB that a step takes of one card: PyTorch's, and CUDA's own `context`.

    Several exchange their gradients in buckets, which are as large once more.
    """
    used = work.peak_bytes + (work.gradient_bytes if gpus > 1 else 0)
    return FRAGMENTS * used / GIB + WORKSPACE + context


def largest_batch(card: Card, gib: dict[int, float], margin: float) -> int:
    """Return the largest batch that leaves `margin` of the card free, by the GiB of two batches."""
    (few, less), (many, more) = sorted(gib.items())
    each = max(more - less, 1e-9) / (many - few)
    return max(math.floor(few + ((1 - margin) * card.gib - less) / each), 0)


def as_plain(step: Step) -> dict[str, Any]:
    """Return a step as plain values, with the seconds of all and what bounds it."""
    spans = ("seconds", "kernels", "host", "exchange")
    plain = {name: getattr(step, name)._asdict() for name in spans}
    shares = {"small": step.small, "moving": step.moving, "arithmetic": step.arithmetic}
    return plain | shares | {"loading": step.loading, "gib": step.gib, "bound": step.bound}
