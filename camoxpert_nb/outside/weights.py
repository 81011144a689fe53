"""Which file of weights, of those that lie ready, is a backbone's: by their paths alone."""

from __future__ import annotations

import os
import re
from pathlib import Path


def find_weights(backbone: str) -> str:
    """Return the file among CAMOXPERT_WEIGHTS whose path names the backbone, or "".

    Of several, the one whose path says least besides: edgenext_small is not edgenext_small_rw.
    """
    known = filter(None, os.environ.get("CAMOXPERT_WEIGHTS", "").split(os.pathsep))
    fitting = [Path(path) for path in known if _plain(backbone) in _plain(path)]
    return str(min(fitting, key=lambda path: (len(path.name), len(str(path))), default=""))


def hub_cache(backbone: str) -> str:
    """Return the file of a backbone that the hub's client fetched before, or ""."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    place = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    names = (f"models--timm--{backbone}", f"models--timm--{backbone}.*")
    found = [path for name in names for path in place.glob(f"{name}/snapshots/*/model.safetensors")]
    return str(min(found, default=""))


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
