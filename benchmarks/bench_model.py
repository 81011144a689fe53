"""Training speed and memory of the network beside segmentation_models_pytorch's Unet.

Both have the same timm backbone, the same structure loss and the same optimiser; CamoXpert also
computes its deep heads. One full step is forward, backward and AdamW. The two take turns in one
process, so that a busy machine slows both; memory is the peak of a child process each, less what
the imports hold. Run: python benchmarks/bench_model.py [--size 320 --batch 4 --steps 7]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from camoxpert_nb.network.losses import Supervised, structure_loss, total
from camoxpert_nb.network.model import CamoXpert

Loss = Callable[[Tensor, Tensor], Tensor]


def build(kind: str, options: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """Return a network in training mode and a function from image and mask to its loss."""
    torch.manual_seed(0)
    if kind == "unet":
        net: nn.Module = smp.Unet(f"tu-{options.backbone}", encoder_weights=None)
        return _layout(net, options), lambda image, mask: structure_loss(net(image), mask).mean()
    chosen = {name: getattr(options, name) for name in ("experts", "width", "checkpointing")}
    net = CamoXpert(options.backbone, **chosen)
    supervised = Supervised(_layout(net, options))
    return net, lambda image, mask: total(supervised(image, mask))[0]


def _layout(net: nn.Module, options: argparse.Namespace) -> nn.Module:
    memory = torch.channels_last if options.channels_last else torch.contiguous_format
    return net.to(memory_format=memory).train()  # type: ignore[call-overload, no-any-return]


def batch(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return random photos (B, 3, S, S) and masks of one square (B, 1, S, S)."""
    size = options.size
    image, mask = (
        torch.rand(options.batch, 3, size, size),
        torch.zeros(options.batch, 1, size, size),
    )
    mask[:, :, size // 4 : size // 2, size // 3 : 2 * size // 3] = 1
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    return image.contiguous(memory_format=layout), mask


class Trainer:
    """A network with its optimiser; `step` trains one batch and returns the seconds it took."""

    def __init__(self, kind: str, options: argparse.Namespace):
        self.net, self.loss = build(kind, options)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), 1e-4)
        self.image, self.mask = batch(options)

    def step(self) -> float:
        """Train one batch; return the seconds."""
        start = time.perf_counter()
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(self.image, self.mask).backward()
        self.optimiser.step()
        return time.perf_counter() - start


def peak_megabytes() -> float:
    """Return the largest memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def show_memory(kind: str, options: argparse.Namespace) -> None:
    """Print the peak memory of three steps over what the imports hold (for a child process)."""
    torch.set_num_threads(options.threads)
    before = peak_megabytes()
    trainer = Trainer(kind, options)
    for _ in range(3):
        trainer.step()
    print(peak_megabytes() - before)


def memory_of(kind: str) -> float:
    """Return the peak memory of `kind`, in MB, measured in a child process."""
    command = [sys.executable, *sys.argv, "--memory-of", kind]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def size_of(kind: str, options: argparse.Namespace) -> str:
    """Return parameters and the multiply-adds of one image's forward pass, in words."""
    net, _ = build(kind, options)
    count = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.rand(1, 3, options.size, options.size))
    return f"{count:.2f} M parameters, {counter.get_total_flops() / 2e9:.2f} G multiply-adds"


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="edgenext_base")
    parser.add_argument("--experts", type=int, default=7)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--memory-of", choices=("camoxpert", "unet"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print one line for each network, and the ratio."""
    options = parse()
    if options.memory_of:
        return show_memory(options.memory_of, options)
    torch.set_num_threads(options.threads)
    kinds = ("camoxpert", "unet")
    memory = {
        kind: memory_of(kind) for kind in kinds
    }  # first: a child's peak starts at its parent's
    trainers = {kind: Trainer(kind, options) for kind in kinds}
    seconds: dict[str, list[float]] = {kind: [] for kind in trainers}
    for turn in range(options.steps + 1):
        for kind, trainer in trainers.items():
            taken = trainer.step()
            if turn:  # the first turn allocates
                seconds[kind].append(taken)
    speed = {kind: options.batch / statistics.median(taken) for kind, taken in seconds.items()}
    for kind in kinds:
        words = (
            f"{speed[kind]:5.2f} images/s, peak {memory[kind]:6.0f} MB, {size_of(kind, options)}"
        )
        print(f"{kind:10} {words}")
    print(f"speed ratio {speed['camoxpert'] / speed['unet']:.2f}, ", end="")
    print(f"memory ratio {memory['camoxpert'] / memory['unet']:.2f}")


if __name__ == "__main__":
    main()
