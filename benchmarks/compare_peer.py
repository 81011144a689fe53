"""CamoXpert against segmentation_models_pytorch's FPN on real photos, everything else equal.

Both start from the same backbone weights and train with the same loop: split, size, epochs,
augmentation, loss, stages, learning rates, average. Prints the best validation IoU of each (mean
over images, threshold 0.5) and the training time, over one or more seeds.

    python benchmarks/compare_peer.py --data DIR --weights FILE.pth
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from camoxpert_nb.network.build import build_net
from camoxpert_nb.network.model import EXPERTS, CamoXpert
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.console import Console
from camoxpert_nb.training.fit import fit


class Peer(nn.Module):
    """A segmentation_models_pytorch network with CamoXpert's outputs."""

    backbone_blocks = CamoXpert.backbone_blocks
    mean: Tensor
    std: Tensor

    def __init__(self, architecture: str, twin: CamoXpert, name: str):
        super().__init__()
        make = getattr(smp, architecture)
        self.peer = make(f"tu-{name}", encoder_weights=None, classes=1)
        self.backbone = self.peer.encoder.model
        self.backbone.load_state_dict(twin.backbone.state_dict())
        self.start = twin.start
        self.register_buffer("mean", twin.mean, persistent=False)
        self.register_buffer("std", twin.std, persistent=False)

    def forward(self, image: Tensor) -> dict[str, Any]:
        """Return CamoXpert's outputs, with one expert that is always chosen."""
        gates = image.new_ones(len(image), 1, 1)
        logits = self.peer((image - self.mean) / self.std)
        return {"logits": logits, "deep": [], "gates": gates, "router": gates}


def train(config: Config, architecture: str) -> dict[str, Any]:
    """Train one network and return its run's summary."""
    net: nn.Module = build_net(config)
    if architecture != "CamoXpert":
        torch.manual_seed(config.seed)
        net = Peer(architecture, net, config.backbone)  # type: ignore[arg-type]
    console = Console(tuple(EXPERTS))
    run = fit(config, report=console.report, progress=console.progress, net=net)
    summary = run.load_json("summary")
    if not summary["finished"]:
        raise SystemExit("stopped before the end: nothing to compare")
    return summary


def main() -> None:
    """Train each network with each seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--networks", nargs="+", default=["CamoXpert", "FPN"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--cache", default="")
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in options.networks}
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            for name, summaries in results.items():
                config = make_config(
                    "single-gpu",
                    dataset_path=options.data,
                    weights=options.weights,
                    backbone=options.backbone,
                    img_size=options.size,
                    epochs=options.epochs,
                    stage1_epochs=1,
                    warmup_epochs=0,
                    progressive_unfreeze=False,
                    lr=5e-4,
                    stage2_lr=5e-4,
                    seed=seed,
                    cache_dir=options.cache or str(Path(folder) / "cache"),
                    checkpoint_dir=str(Path(folder) / f"{name}-{seed}"),
                )
                summaries.append(train(config, name))
    print(f"{'network':<12}{'parameters':>12}{'best IoU':>10}{'minutes':>9}   IoU per seed")
    for name, summaries in results.items():
        scores = [summary["best"]["iou"] for summary in summaries]
        minutes = statistics.mean(summary["seconds"] for summary in summaries) / 60
        print(
            f"{name:<12}{summaries[0]['parameters']:>12,}{statistics.mean(scores):>10.3f}"
            f"{minutes:>9.1f}   {' '.join(f'{score:.3f}' for score in scores)}"
        )


if __name__ == "__main__":
    main()
