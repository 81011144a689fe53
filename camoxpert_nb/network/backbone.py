"""A timm network as four stages of features, with its weights from a file or from the hub."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import load_state_dict
from timm.models.edgenext import PositionalEncodingFourier
from torch import Tensor, nn

from ..errors import InputError
from ..outside.spelling import alike
from ..runs.checkpoint import TORCH, refuse_swollen, why_unreadable

STRIDES = [4, 8, 16, 32]


HUB_TIMEOUT = 5.0  # seconds; the hub's own client retries for 46 when there is no connection


class Start(NamedTuple):
    """What a backbone begins with: whether its weights knew photos, and their source in words."""

    pretrained: bool
    source: str


_GIVE = "Give --weights a file of timm's weights (.pth, .pt, .bin, .safetensors), or copy it again."
SCRATCH = "none: trains from scratch"


def build_backbone(name: str, weights: str | Path, pretrained: bool) -> tuple[nn.Module, Start]:
    """Return timm's network `name` as four levels of features, and what it begins with.

    `weights` is a file, `pretrained` asks the hub. Raises InputError for a network without four
    levels, and for a file that does not fit it.
    """
    backbone = _create(name)
    if weights:
        return backbone, Start(True, _load_file(name, backbone, Path(weights)))
    if pretrained:
        return _from_hub(name, backbone)
    return backbone, Start(False, f"{SCRATCH} (no weights were asked for)")


def _create(name: str) -> nn.Module:
    if not timm.is_model(name):
        near = alike(name, timm.list_models(), 5)
        raise InputError(f"timm has no network {name!r}. Near names: {', '.join(near) or 'none'}.")
    strides: list[int] = []
    try:
        backbone: Any = keep_positions(timm.create_model(name, features_only=True))
        strides = backbone.feature_info.reduction()
        check_stages(backbone.eval())  # so that nothing moves
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{name} has features at strides {strides} ({error}). A backbone needs four stages, at "
            "strides 4, 8, 16, 32, for any image size, as edgenext_base or resnet50 has."
        ) from error
    return backbone.train()


def check_stages(network: nn.Module) -> None:
    """Raise ValueError unless a network's last four features lie at strides 4, 8, 16, 32."""
    with torch.no_grad():
        heights = [each.shape[2] for each in network(torch.zeros(1, 3, 64, 96))[-4:]]
    if heights != [64 // stride for stride in STRIDES]:
        raise ValueError(f"of an image of 64 x 96 they are {heights} high")


def _from_hub(name: str, backbone: nn.Module) -> tuple[nn.Module, Start]:
    """Return the backbone with timm's weights, or as it is and why."""
    entry: Any = timm.get_pretrained_cfg(name)
    place = entry and (entry.hf_hub_id or entry.url)
    if not place:
        return backbone, Start(False, f"{SCRATCH} (timm has no weights for {name})")
    cached = try_to_load_from_cache(place, "model.safetensors") if entry.hf_hub_id else None
    overlay = {"file": cached} if isinstance(cached, str) else None
    options: Any = {"features_only": True, "pretrained": True, "pretrained_cfg_overlay": overlay}
    url = f"{constants.ENDPOINT}/{place}/resolve/main/config.json" if entry.hf_hub_id else place
    try:
        if not overlay:  # ask once whether it can be reached: the client would ask twelve times
            urllib.request.urlopen(url, timeout=HUB_TIMEOUT).close()
        return keep_positions(timm.create_model(name, **options)), Start(True, f"hub {place}")
    except Exception as error:  # the client's are many; from scratch, said aloud, serves them all
        return backbone, Start(False, f"{SCRATCH} (no connection to {place}? {_reason(error)})")


def _reason(error: Exception) -> str:
    """Return why, without the names of Python's classes."""
    why = getattr(error, "reason", error)
    return str(getattr(why, "strerror", None) or why)


def _load_file(name: str, backbone: nn.Module, path: Path) -> str:
    """Load a file in the format of timm's classifier into its feature network; all must fit."""
    state = _read_file(path)
    wanted = {k: v for k, v in backbone.state_dict().items() if "num_batches_tracked" not in k}
    found = {}
    for key, value in state.items():
        for new in (key, key.replace(".", "_", 1), f"model.{key}"):  # timm's feature nets rename
            if new in wanted and getattr(value, "shape", None) == wanted[new].shape:
                found[new] = value
    if misses := [key for key in wanted if key not in found]:
        guess = "; probably the file is of another architecture" if len(misses) > len(found) else ""
        raise InputError(
            f"{path}: {len(misses)} of the {len(wanted)} tensors of {name} are missing or of other "
            f"shape ({', '.join(misses[:3])}, ...){guess}. Give it timm's own {name} weights."
        )
    backbone.load_state_dict(found, strict=False)
    return f"file {path.name}"


def _read_file(path: Path) -> dict[str, Any]:
    """Return the tensors of a file, unwrapped from state_dict, model, EMA and `module.`."""
    start = b""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        safetensors = path.suffix.lower() == ".safetensors"
        if not safetensors and not start.startswith(TORCH):
            raise ValueError("another kind of file")
        refuse_swollen(path)
        # Older timm would run what hides in a pickle, unless it is told not to.
        state = load_state_dict(str(path.resolve(strict=True)), weights_only=True)
    except Exception as error:  # pickle, zip and safetensors break each in its own way
        found = why_unreadable(start, error)
        if isinstance(error, OSError):
            found = error.strerror or str(error) or "the file cannot be opened"
        elif start.startswith(TORCH) and isinstance(error, AttributeError | TypeError):
            found = "it holds no named weights (a state dict)"
        raise InputError(
            f"{path}: cannot be read as a file of weights: {found}. {_GIVE}"
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, expected named weights. {_GIVE}")
    return state


class KeptPositions(PositionalEncodingFourier):
    """EdgeNeXt's encoding of places, which timm makes on the CPU anew in each forward pass.

    It depends on the size alone, so it is kept, for one image: the GPU need not wait for a copy,
    and a step with it can be captured. A captured step knows where it lies: none is thrown away.
    """

    kept: dict[tuple[int, int, torch.device], Tensor]
    token_projection: nn.Conv2d

    def forward(self, shape: tuple[int, int, int]) -> Tensor:
        """Map (B, H, W) to (B, dim, H, W), the same for each of the B images."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # an export makes its own
            positions: Tensor = super().forward(shape)
            return positions
        (count, height, width), project = shape, self.token_projection
        key = (height, width, project.weight.device)
        if key not in self.kept:
            # Not an inference tensor, and not in half precision, whoever comes first.
            with torch.inference_mode(False), torch.no_grad():
                self.kept[key] = self._waves((1, height, width))
        found: Tensor = project(self.kept[key].to(project.weight.dtype))
        return found.expand(count, -1, -1, -1)

    def _waves(self, shape: tuple[int, int, int]) -> Tensor:
        """Return what timm's forward hands to its projection."""
        caught: list[Tensor] = []
        with torch.autocast(self.token_projection.weight.device.type, enabled=False):
            handle = self.token_projection.register_forward_pre_hook(
                lambda module, inputs: caught.append(inputs[0].detach().float())
            )
            super().forward(shape)
            handle.remove()
        return caught[0]


def keep_positions(backbone: nn.Module) -> nn.Module:
    """Have EdgeNeXt's encodings of places kept; weights and their names stay as they are."""
    for module in backbone.modules():
        if type(module) is PositionalEncodingFourier:
            changed: Any = module
            changed.__class__ = KeptPositions
            changed.kept = {}  # by height, width and device
    return backbone
