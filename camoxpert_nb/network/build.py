"""From settings or a run to a network with its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..errors import InputError
from ..outside.weights import find_weights
from ..runs.best_epochs import checkpoint_name
from ..runs.checkpoint import bare_keys, load_checkpoint, settings_of
from ..runs.run import Run
from ..settings.config import Config
from .backbone import Start
from .model import CamoXpert


def build_net(config: Config, *, empty: bool = False) -> CamoXpert:
    """Return the network on the CPU, with its starting weights or, `empty`, with random ones."""
    if empty:  # a checkpoint fills it: no file and no hub is needed any more
        config = config.replace(pretrained=False, weights="", init_from="")
    torch.manual_seed(config.seed)
    net = CamoXpert(
        config.backbone,
        experts=config.num_experts,
        top_k=min(config.top_k, config.num_experts),
        width=config.width,
        weights=config.weights or (find_weights(config.backbone) if config.pretrained else ""),
        pretrained=config.pretrained and not config.init_from,
        deep_supervision=config.deep_supervision,
        checkpointing=config.gradient_checkpointing,
    )
    if config.init_from:
        load_weights(net, *_weights_of(Path(config.init_from)))
        net.start = Start(True, f"--init-from {config.init_from}")
    return net


def load_net(run: Run, which: str = "best", device: torch.device | str = "cpu") -> CamoXpert:
    """Return a run's network with the weights that scored best (or "last"), ready to predict."""
    return load_run(run, which, device)[0]


def load_run(
    run: Run, which: str = "best", device: torch.device | str = "cpu"
) -> tuple[CamoXpert, Config]:
    """Return a run's network, ready to predict, and the settings that those weights were made with.

    which: "best", the weights that scored best; "last", those of the last save, averaged if the
    run keeps an average; or an epoch that --keep-best kept, as "12". InputError if it is not there.
    """
    which = checkpoint_name(run.folder, which)
    checkpoint = run.load(which, device)
    config = settings_of(checkpoint, run.folder / f"{which}.pt")
    net = build_net(config, empty=True)
    load_weights(net, checkpoint.get("ema") or checkpoint["net"], str(run.folder / f"{which}.pt"))
    return net.to(device).eval(), config


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Have the network in evaluation mode, and each of its modules as it was at the end.

    One by one: in a network that trains, frozen blocks and norms are in evaluation mode.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def check_version(weights: dict[str, Any], source: str) -> None:
    """Raise InputError, with the version that reads them, for weights of an older network."""
    if "stages.0.mixture.router.weight" in bare_keys(weights):
        raise InputError(
            f"{source} was trained with camoxpert_nb 0.1, whose network had a mixture of experts "
            f"at each of four levels; {__version__} has two, with gates for each place. Install "
            "that version to go on with it, score it or export it, or train anew with this one."
        )


def load_weights(net: nn.Module, weights: dict[str, Any], source: str) -> None:
    """Load all weights strictly; InputError says exactly what does not fit."""
    if not all(isinstance(each, torch.Tensor) for each in weights.values()):
        raise InputError(f"{source} holds other things than weights: give a run or its best.pt.")
    check_version(weights, source)
    weights, own = bare_keys(weights), net.state_dict()
    missing = [key for key in own if key not in weights]
    foreign = [key for key in weights if key not in own]
    resized = [
        f"{key} ({tuple(weights[key].shape)} there, {tuple(own[key].shape)} here)"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    if missing or foreign or resized:
        found = [("missing there", missing), ("unknown here", foreign), ("other shape", resized)]
        listed = "; ".join(f"{len(k)} {name}: {', '.join(k[:3])}" for name, k in found if k)
        raise InputError(
            f"{source} belongs to another network ({listed}). Use the --backbone, --num-experts, "
            "--width and --deep-supervision it was trained with; its config.json names them."
        )
    net.load_state_dict(weights)


def _weights_of(path: Path) -> tuple[dict[str, Any], str]:
    """Return the network weights in a run folder or checkpoint file, and where they came from."""
    if path.is_dir():
        path = path / ("best.pt" if (path / "best.pt").exists() else "last.pt")
    state = load_checkpoint(path)
    for key in ("net", "model_state_dict", "model", "state_dict"):
        if isinstance(state.get(key), dict):
            return state[key], str(path)
    return state, str(path)
