"""What a training step costs a GPU, seen without one: operations, bytes, forecast time and memory.

Operations are those PyTorch dispatches, views left out, and bytes what goes in and out of them:
forward (autocast in bfloat16), losses and backward on a CPU; few operations are few launches, few
bytes short kernels. Time and memory are the forecast's for cards (`camoxpert_nb.forecast`): kernel
time of forward, losses and backward. Peers learn by the structure loss alone.

    python benchmarks/bench_step.py [--backbone edgenext_base --size 320 --batch 16]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from networks import NETWORKS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from camoxpert_nb.forecast.as_cuda import META
from camoxpert_nb.forecast.count import count
from camoxpert_nb.forecast.on_card import gib_on, kernel_seconds
from camoxpert_nb.machine.cards import CARDS
from camoxpert_nb.network.losses import Supervised, structure_loss, total
from camoxpert_nb.settings.config import make_config

BATCH = 2  # of the counted step
PEERS = ("FPN", "Unet")


class Dispatched(TorchDispatchMode):
    """Counts the operations it sees, and the bytes of their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.bytes = 0, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), more: Any = None
    ) -> Any:
        out = function(*args, **(more or {}))
        shared = [returned.alias_info for returned in function._schema.returns]
        if not (shared and all(alias and not alias.is_write for alias in shared)):
            tensors = [x for x in tree_leaves((args, more, out)) if isinstance(x, torch.Tensor)]
            self.operations += 1
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
        return out


def make_step(name: str, net: nn.Module, device: Any, size: int, batch: int) -> Callable[[], None]:
    """Return a function that computes the gradients of one batch of noise."""
    net = net.to(device).train()
    supervised = Supervised(net, dtype=torch.bfloat16)
    image = torch.rand(batch, 3, size, size, device=device)
    mask = (torch.rand(batch, 1, size, size, device=device) > 0.7).float()
    kind = "cuda" if device == META else "cpu"

    def loss() -> torch.Tensor:
        if name in PEERS:
            with torch.autocast(kind, torch.bfloat16):
                logits = net(image)["logits"]
            return structure_loss(logits, mask).mean()
        return total(supervised(image, mask))[0]

    def step() -> None:
        net.zero_grad(set_to_none=True)
        loss().backward()

    return step


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", nargs="+", default=["FPN", "Unet", "CamoXpert"])
    parser.add_argument("--backbone", default="edgenext_base")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16, help="of the forecast")
    parser.add_argument("--cards", nargs="+", default=["h100", "t4"], choices=CARDS)
    options = parser.parse_args()
    print(
        "| network | operations | GB | "
        + " | ".join(f"{card}, ms" for card in options.cards)
        + " | GiB |\n|---|--:|--:|"
        + "--:|" * (len(options.cards) + 1)
    )
    config = make_config("balanced-2gpu", backbone=options.backbone, pretrained=False)
    for name in options.names:
        step = make_step(name, NETWORKS[name](config), torch.device("cpu"), options.size, BATCH)
        step()  # what is made once is not counted
        with Dispatched() as seen:
            step()
        net = NETWORKS[name](config)
        step = make_step(name, net, META, options.size, options.batch)
        work = count(step, options.batch, [*net.parameters(), *net.buffers()])
        times = [sum(kernel_seconds(CARDS[card], work)) * 1e3 for card in options.cards]
        print(
            f"| {name} | {seen.operations:,} | {seen.bytes / 1e9:.2f} | "
            + " | ".join(f"{ms:.1f}" for ms in times)
            + f" | {gib_on(work, context=0):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
