"""Which of timm's networks can be a backbone, and what each costs: measured without values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import InputError
from ..outside.spelling import alike
from ..outside.weights import find_weights
from .backbone import check_stages

USUAL = (  # what people would choose from, small to large
    *("tf_efficientnet_lite0", "mobilenetv4_conv_medium", "edgenext_small", "hgnetv2_b2"),
    *("repvit_m1_1", "hgnetv2_b4", "edgenext_base", "resnet50", "pvt_v2_b2", "caformer_s18"),
    *("convnext_tiny", "convnext_small"),
)
SIDE = 320  # px, of the image whose multiply-adds are counted: that of the presets
FILES = ("model.safetensors", "pytorch_model.bin")  # of weights, in the hub's cache


class Choice(NamedTuple):
    """A backbone: parameters in millions, multiply-adds in thousand millions for an image of SIDE,
    the side in px it was trained at, where its weights are ("here", "hub", "none"), its licence.
    """

    name: str
    parameters: float
    multiply_adds: float
    trained_at: int
    weights: str
    licence: str


def matching(pattern: str) -> list[str]:
    """Return timm's networks that match: with * and ? all of the name, else any part of it.

    An empty pattern gives the usual dozen. Raises InputError when there is none.
    """
    if not pattern:
        return [name for name in USUAL if timm.is_model(name)]
    plain = pattern.lower().partition(".")[0]  # behind a dot timm names the weights
    names = timm.list_models(plain if set("*?[") & set(plain) else f"*{plain}*")
    if not names:
        near = alike(plain.strip("*"), timm.list_models(), 5)
        raise InputError(
            f"timm has no network that matches {pattern!r}. Near names: "
            f"{', '.join(near) or 'none'}. A part of a name is enough: convnext, or 'resnet*d'."
        )
    return list(names)


def measured(names: list[str]) -> Iterator[Choice | str]:
    """Yield each backbone, or the name of a network that cannot be one, in this order."""
    for name in names:
        try:
            network, multiply_adds = _built(name)
        except _NO_BACKBONE:
            yield name
        else:
            yield _choice(name, network, multiply_adds)


_NO_BACKBONE = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def _built(name: str, device: str = "meta") -> tuple[nn.Module, float]:
    """Return a network and its multiply-adds; on "meta" there are shapes alone, and no numbers."""
    try:
        with torch.device(device), torch.no_grad():
            network: Any = timm.create_model(name, features_only=True).eval()
            check_stages(network)
            with FlopCounterMode(display=False) as counter:
                network(torch.zeros(1, 3, SIDE, SIDE))
    except (NotImplementedError, RuntimeError) as error:
        if device == "cpu" or "meta" not in str(error).lower():
            raise
        return _built(name, "cpu")  # a network that reads numbers while it is built
    return network, counter.get_total_flops() / 2


def _choice(name: str, network: nn.Module, multiply_adds: float) -> Choice:
    config: Any = timm.get_pretrained_cfg(name)
    return Choice(
        name,
        sum(each.numel() for each in network.parameters()) / 1e6,
        multiply_adds / 1e9,
        config.input_size[-1] if config else 0,
        where_weights_are(name, config),
        (config and config.license) or "unknown",
    )


def where_weights_are(name: str, config: Any) -> str:
    """Say "here" of weights that are attached or in a cache, "hub" of others that timm knows."""
    if find_weights(name):
        return "here"
    place = config and config.hf_hub_id
    if place and any(isinstance(try_to_load_from_cache(place, file), str) for file in FILES):
        return "here"
    if config and config.url:
        kept = Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]
        if kept.is_file():
            return "here"
    return "hub" if place or (config and config.url) else "none"
