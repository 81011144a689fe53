"""What a training in this session would lack, told before it starts: a GPU, weights, a choice."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from ..data.layouts import find_datasets
from ..data.reading import Reading
from ..data.selection import select, share_of
from ..errors import InputError
from ..outside.weights import find_weights, hub_cache
from ..settings.config import Config
from ..settings.decide import few_validate
from .session import Session

PATIENCE = 3.0  # seconds for the hub to answer: these warnings are to be seen at once


def missing(session: Session, config: Config, gpus: int, chosen: bool) -> Iterator[str]:
    """Yield what is missing or undecided, each with what repairs it and what it costs otherwise.

    gpus: how many would train, 0 for a CPU. chosen: whether DATA names the images.
    """
    if not config.dataset_path:
        yield (
            "no images with masks are attached: camouflage is generated, and a demo trains on it. "
            "Input > Add Input > Datasets, for example COD10K; then run all cells again."
        )
    if not chosen and len(session.sets) > 1 and not session.goes_on:
        yield _several(session)
    if not gpus and config.device != "cpu":
        yield (
            "no GPU is on: what a T4 trains in an hour takes a CPU a day or more. Session "
            "options > Accelerator > GPU T4 x2 (Kaggle asks for a phone number once), then run "
            "all cells again."
        )
    elif gpus == 1 and "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        yield (
            "only one GPU is used. Session options > Accelerator > GPU T4 x2 gives two for the "
            "same quota."
        )
    if config.dataset_path and not session.goes_on:
        yield from (f"{text}." for text in _few_validate(config))
    if not session.goes_on and lacks_weights(config):
        yield _no_weights(config.backbone)


def _few_validate(config: Config) -> list[str]:
    """Say where few images will validate; what is alike is not looked at, so about how many."""
    try:
        found = select(find_datasets(config.dataset_path, Reading.of(config)), noncam=config.noncam)
    except InputError:  # said elsewhere
        return []
    held = len(found.validation) or max(round(len(found.train) * share_of(config)), 1)
    return few_validate(held)


def lacks_weights(config: Config) -> bool:
    """Say whether a network that is to start pretrained would find nothing to start from."""
    if not config.pretrained or config.weights or config.init_from:
        return False
    return not (find_weights(config.backbone) or hub_cache(config.backbone) or hub_answers())


def hub_answers(patience: float = PATIENCE) -> bool:
    """Say whether the hub can be reached; no later than after `patience` seconds."""
    place = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    address = place.hostname or "", place.port or (80 if place.scheme == "http" else 443)
    answered: list[bool] = []

    def ask() -> None:
        try:
            socket.create_connection(address, timeout=patience).close()
            answered.append(True)
        except OSError:
            pass

    asking = threading.Thread(target=ask, daemon=True)  # a name may take minutes to be refused
    asking.start()
    asking.join(patience)
    return bool(answered)


def _several(session: Session) -> str:
    sets = [(each.root, len(select([each]).train)) for each in session.sets]
    listed = "".join(f'\n  DATA = "{root}"  # {count:,} to train' for root, count in sets)
    together = len(select(session.sets).train)
    return (
        f"{len(sets)} image sets are attached and DATA is empty: all of them train together, "
        f"{together:,} images. That is right for COD10K with CAMO. For one alone:{listed}"
    )


def _no_weights(backbone: str) -> str:
    given = os.environ.get("CAMOXPERT_WEIGHTS", "")
    seen = [path.rpartition("/")[2] for path in given.split(os.pathsep) if path]
    return (
        f"no pretrained weights for {backbone}: it would start from random ones. Looked for: a "
        f"file whose path names {backbone}, ending in .safetensors, .pth, .pt or .bin, among what "
        f"is attached (found: {', '.join(seen) or 'none'}), and the hub, which does not answer. "
        "Either Session options > Internet > on, or Add Input: a data set or Model with timm's "
        f"file, named {backbone}.safetensors (kaggle/README.md says how to make it). From scratch "
        "it takes many more epochs, and a few thousand photos do not make up for ImageNet's "
        "million: expect far lower scores."
    )
