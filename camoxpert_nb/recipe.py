"""From settings to parts: the only place, besides the faces of the kit, that reads a Config."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader

from .audit import find_copies
from .config import Config
from .dataset import Batches, PairDataset, choose_workers, make_loader, open_cache
from .devices import Devices, Precision, choose_precision, cpu_count, pick_devices
from .errors import InputError
from .layouts import Pair, Selection, find_datasets, select, split_validation
from .losses import Supervised
from .model import CamoXpert
from .optim import parameter_groups
from .plan import build_plan, settle_lr_batches
from .ranks import ALONE, Ranks
from .run import Run, bare_keys, load_checkpoint
from .schedule import Place, Plan, Stage
from .session import find_weights
from .state import TrainState, backbone_blocks
from .synthetic import make_synthetic
from .train import StepSettings
from .version import __version__

Progress = Callable[[int, int], None]
Copies = Sequence[Sequence[tuple[str, Path]]]


@dataclass(frozen=True)
class Data:
    """The images of a run: what trains, what validates, what was left out and why."""

    root: Path
    train: Sequence[Pair]
    validation: Sequence[Pair]
    test: Mapping[str, Sequence[Pair]]
    left_out: Mapping[str, Sequence[str]]  # reason: names
    leaks: Sequence[str]  # training images that are test images too, byte for byte


@dataclass
class Training:
    """All parts of one training, ready to start."""

    config: Config
    data: Data
    devices: Devices
    precision: Precision
    plan: Plan
    state: TrainState
    workers: int
    workers_reason: str
    ranks: Ranks
    device_lines: Sequence[str]  # of all processes

    def images_per_step(self, stage: Stage) -> int:
        """Return the effective batch: per device x devices x accumulation."""
        return stage.batch * self.devices.count * self.config.accumulation_steps


def build_data(config: Config, progress: Progress | None = None) -> Data:
    """Find the images, leave out what does not belong, hold out validation.

    Without a data set, generated images take its place.
    """
    root = Path(config.dataset_path) if config.dataset_path else _generated(config, progress)
    sets = find_datasets(root)
    chosen = select(sets, noncam=config.noncam)
    train, validation = split_validation(_trainable(root, chosen), config.val_share)
    test = [pair for pairs in chosen.test.values() for pair in pairs]
    copies = find_copies({"train": train, "validation": validation, "test": test})
    known, leaks = _second_of(copies, "train", "validation"), _second_of(copies, "test", "train")
    left_out = {why: [pair.name for pair in pairs] for why, pairs in chosen.left_out.items()} | {
        "images without a mask": [p.name for each in sets for p in each.images_without_mask],
        "masks without an image": [p.name for each in sets for p in each.masks_without_image],
        "validation images that are copies of training images": [path.stem for path in known],
    }
    kept = [pair for pair in validation if pair.image not in known]
    found = {why: names for why, names in left_out.items() if names}
    return Data(root, train, kept, chosen.test, found, sorted(path.stem for path in leaks))


def cache_folder(config: Config) -> Path:
    """Return where decoded and generated images are kept."""
    if config.cache_dir:
        return Path(config.cache_dir)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CAMOXPERT_CACHE") or Path(base) / "camoxpert_nb")


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
        net.weights_source = f"--init-from {config.init_from}"
    return net


def build_state(
    config: Config,
    net: nn.Module,
    devices: Devices,
    precision: Precision,
    ranks: Ranks = ALONE,
) -> TrainState:
    """Return the state of a training at step 0, on its devices, the same in all processes."""
    net.to(devices.main)
    ranks.spread(iter(net.state_dict().values()))
    supervised = Supervised(net, dtype=precision.dtype, legacy=config.legacy_loss)
    groups = parameter_groups(net, backbone_blocks(net), config.weight_decay)
    return TrainState(
        net=net,
        supervised=supervised,
        devices=devices,
        ranks=ranks,
        optimizer=torch.optim.AdamW(groups, lr=config.lr),
        scaler=torch.amp.GradScaler(devices.main.type, enabled=precision.scaled),
        # The average forgets its start as n/(n + 9), so a short run is not judged on noise.
        ema=timm.utils.ModelEmaV3(
            net, decay=config.ema_decay, use_warmup=True, warmup_gamma=9.0, warmup_power=1.0
        )
        if config.use_ema
        else None,
        weights_source=str(getattr(net, "weights_source", "as given")),
    )


def prepare(
    config: Config,
    progress: Progress | None = None,
    net: nn.Module | None = None,
    *,
    ranks: Ranks = ALONE,
    empty: bool = False,
) -> Training:
    """Build everything but the image cache; InputError for whatever cannot work.

    `empty` is build_net's. `net` takes the place of the configured network, to train a peer or an
    ablation in the same way; it has CamoXpert's outputs and its `backbone_blocks`. `ranks` is this
    process's place among those that train together.
    """
    devices = pick_devices(
        config.device,
        parallel=config.parallel,
        gpus=config.gpus,
        local_rank=ranks.local_rank,
        world=ranks.world,
    )
    precision = choose_precision(devices, config.amp)
    data = ranks.in_turn(lambda: build_data(config, progress if ranks.first else None))
    _check_same_images(data, ranks)
    config = settle_lr_batches(config, devices.count)
    plan = build_plan(config, len(data.train), devices.count)
    requested = None if config.num_workers < 0 else config.num_workers
    workers, reason = choose_workers(requested, cpu_count(), ranks.local_world)
    net = net or ranks.in_turn(lambda: build_net(config, empty=empty))
    state = build_state(config, net, devices, precision, ranks)
    if config.skip_stage1:
        state.step = plan.first_step_of_part(2)
    lines = _device_lines(devices, ranks)
    return Training(config, data, devices, precision, plan, state, workers, reason, ranks, lines)


class Loaders:
    """The batches of a training: one loader per stage's batch size, made when first needed."""

    def __init__(self, training: Training, progress: Progress | None = None) -> None:
        config, folder = training.config, cache_folder(training.config)
        sides = (training.data.train, training.data.validation)
        caches = training.ranks.in_turn(
            lambda: [open_cache(p, config.img_size, folder, progress=progress) for p in sides]
        )
        self.fingerprint: str = caches[0].fingerprint
        self._training = training
        self._train, self.validation_set = (PairDataset(c, seed=config.seed) for c in caches)
        self._made: dict[int, tuple[Batches, DataLoader[Any]]] = {}

    def epoch(self, place: Place) -> DataLoader[Any]:
        """Return the batches of `place`'s epoch from its step on."""
        if place.stage.batch not in self._made:
            self._made = {place.stage.batch: self._make(place.stage.batch)}
        batches, loader = self._made[place.stage.batch]
        batches.set_epoch(
            place.epoch, start=place.step_in_epoch * self._training.config.accumulation_steps
        )
        return loader

    def validation(self, batch: int) -> DataLoader[Any]:
        """Return this process's share of the validation images, in order."""
        batches = self._batches(self.validation_set, batch, training=False)
        return make_loader(self.validation_set, batches, workers=0, pin_memory=False)

    def _make(self, batch: int) -> tuple[Batches, DataLoader[Any]]:
        batches = self._batches(self._train, batch, training=True)
        workers, on_gpu = self._training.workers, bool(self._training.devices.ids)
        return batches, make_loader(self._train, batches, workers=workers, pin_memory=on_gpu)

    def _batches(self, images: PairDataset, batch: int, *, training: bool) -> Batches:
        ranks, own = self._training.ranks, self._training.devices.own
        seed, place = self._training.config.seed, {"rank": ranks.rank, "world": ranks.world}
        return Batches(len(images), batch * own, seed=seed, training=training, **place)


def step_settings(config: Config) -> StepSettings:
    """Return what a training step needs of the settings."""
    return StepSettings(
        seed=config.seed,
        accumulation=config.accumulation_steps,
        augment=config.augment,
        clip=config.clip,
        deep=config.deep_weight,
        balance=config.balance,
        uncertainty=config.uncertainty,
    )


def load_net(run: Run, which: str = "best", device: torch.device | str = "cpu") -> CamoXpert:
    """Return a run's network with the weights that scored best (or "last"), ready to predict."""
    checkpoint = run.load(which, device)
    config = Config().replace(**checkpoint["config"])
    net = build_net(config, empty=True)
    load_weights(net, checkpoint["net"], str(run.folder / f"{which}.pt"))
    return net.to(device).eval()


def load_weights(net: nn.Module, weights: dict[str, Any], source: str) -> None:
    """Load all weights strictly; InputError says exactly what does not fit."""
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


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "camoxpert_nb": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


def _generated(config: Config, progress: Progress | None) -> Path:
    folder = cache_folder(config) / f"generated-{config.img_size}px"
    return make_synthetic(folder, size=config.img_size, progress=progress)


def _check_same_images(data: Data, ranks: Ranks) -> None:
    """Raise InputError where machines have different images: their gradients would not fit."""
    names = [[pair.name for pair in pairs] for pairs in (data.train, data.validation)]
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    found = ranks.gather((digest, len(data.train), len(data.validation)))
    for rank, (other, train, validation) in enumerate(found):
        if other != found[0][0]:
            raise InputError(
                f"process {rank} finds {train} training and {validation} validation images, "
                f"process 0 {found[0][1]} and {found[0][2]}, or others by name. Give all machines "
                "the same data set."
            )


def _device_lines(devices: Devices, ranks: Ranks) -> list[str]:
    host = f"{platform.node()}, " if ranks.world > ranks.local_world else ""
    return [host + line for lines in ranks.gather(devices.describe()) for line in lines]


def _second_of(copies: Copies, first: str, second: str) -> set[Path]:
    """Return the files of `second` that have a copy in `first`."""
    return {
        path
        for group in copies
        if any(place == first for place, _ in group)
        for place, path in group
        if place == second
    }


def _trainable(root: Path, chosen: Selection) -> Sequence[Pair]:
    if not chosen.train:
        raise InputError(
            f"{root} holds test images only ({', '.join(chosen.test) or 'none usable'}). Give the "
            "folder that also holds a training split, or one flat folder with Imgs and GT."
        )
    return chosen.train


def _weights_of(path: Path) -> tuple[dict[str, Any], str]:
    """Return the network weights in a run folder or checkpoint file, and where they came from."""
    if path.is_dir():
        path = path / ("best.pt" if (path / "best.pt").exists() else "last.pt")
    state = load_checkpoint(path)
    for key in ("net", "model_state_dict", "model", "state_dict"):
        if isinstance(state.get(key), dict):
            return state[key], str(path)
    return state, str(path)
