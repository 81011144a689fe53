"""From settings to parts: the only place, besides the faces of the kit, that reads a Config."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader

from .. import __version__
from ..data.batches import (
    Batches,
    Feed,
    PairDataset,
    choose_workers,
    make_loader,
    shared_memory_short,
)
from ..data.cache import Cache, Progress, cache_folder, open_cache
from ..data.findings import NO_OBJECT, require_objects, sentences, settle
from ..data.identity import Split
from ..data.pairs import Pair, is_noncam
from ..data.selection import Data, build_data
from ..errors import InputError
from ..machine.devices import Devices, Precision, choose_precision, cpu_count, pick_devices
from ..machine.distributed import ALONE, Ranks
from ..network.backbone import Start
from ..network.build import build_net
from ..network.losses import Supervised
from ..runs.records import performance
from ..runs.run import Run
from ..settings.config import Config
from ..settings.decide import as_untrained, begins_trained, decide
from .graph import make_graph
from .loggers import require
from .own import Own, OwnLoss, is_own
from .own_checks import check_own
from .own_optimizer import build_optimizer
from .same_images import check_same_images
from .schedule import Plan, Stage, build_plan
from .state import TrainState, backbone_blocks, parameter_groups
from .train import StepSettings, growth_note


@dataclass
class Training:
    """All parts of one training, ready to start."""

    config: Config
    asked: Config  # the settings before anything was decided by the recipe
    data: Data
    devices: Devices
    precision: Precision
    plan: Plan
    state: TrainState
    workers: int
    workers_reason: str
    ranks: Ranks
    device_lines: Sequence[str]  # of all processes
    changes: Sequence[str] = ()  # since the run was saved, if it goes on
    own_notes: Sequence[str] = ()  # what is odd about the user's own parts

    @property
    def notes(self) -> list[str]:
        """What is to be known of the user's own parts and of the loss; of what is over nothing."""
        if self.state.epoch >= self.plan.epochs:
            return []
        return [*self.own_notes, *growth_note(self.config.uncertainty)]


def build_state(
    config: Config,
    net: nn.Module,
    devices: Devices,
    precision: Precision,
    ranks: Ranks = ALONE,
    own: Own | None = None,
) -> TrainState:
    """Return the state of a training at step 0, on its devices, the same in all processes."""
    own = own or Own()
    net.to(devices.main)
    ranks.spread(iter([*net.state_dict().values(), *net.buffers()]))
    start = getattr(net, "start", Start(False, "a network of your own"))
    loss = OwnLoss(own.loss) if is_own(own.loss) else None
    supervised = Supervised(net, dtype=precision.dtype, legacy=config.legacy_loss, own=loss)
    groups = parameter_groups(net, backbone_blocks(net), config.weight_decay)
    scaler = torch.amp.GradScaler(devices.main.type, enabled=precision.scaled)

    def reset_scaler() -> None:
        if scaler.is_enabled():  # a capture that broke off left it within a step
            scaler.update(scaler.get_scale())

    return TrainState(
        net=net,
        supervised=supervised,
        devices=devices,
        ranks=ranks,
        optimizer=_optimizer(config, groups, devices, own),
        scaler=scaler,
        # The average forgets its start as n/(n + 9), so a short run is not judged on noise.
        ema=timm.utils.ModelEmaV3(
            net, decay=config.ema_decay, use_warmup=True, warmup_gamma=9.0, warmup_power=1.0
        )
        if config.use_ema
        else None,
        start=ranks.from_first(lambda: start),
        graph=make_graph(
            devices,
            wanted=config.cuda_graph,
            checkpointing=config.gradient_checkpointing,
            recover=reset_scaler,
            own=own.in_words,
        ),
        own=own,
    )


def _optimizer(
    config: Config, groups: list[dict[str, Any]], devices: Devices, own: Own
) -> torch.optim.Optimizer:
    """Return AdamW, which needs not be waited for on a GPU, or the user's own."""
    if is_own(own.optimizer):
        rate = float(config.lr or 0.0)
        return build_optimizer(own.optimizer, groups, rate, config.weight_decay)
    capturable = bool(devices.ids)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True, capturable=capturable)


def prepare(
    config: Config,
    progress: Progress | None = None,
    net: nn.Module | None = None,
    *,
    ranks: Ranks = ALONE,
    empty: bool = False,
    known: Split | None = None,
    own: Own | None = None,
) -> Training:
    """Build everything but the image cache; InputError for whatever cannot work.

    `empty` is build_net's, `known` build_data's. `net` takes the place of the configured network,
    to train a peer or an ablation in the same way; it has CamoXpert's outputs and its
    `backbone_blocks`. `ranks` is this process's place among those that train together. `own` are
    the user's own parts of the step.
    """
    ranks.from_first(lambda: require(config.log))
    devices, precision = ranks.in_turn(lambda: _choose_devices(config, ranks))
    ranks.from_first(partial(_check_kinds, ranks.gather(devices.main.type), ranks))
    own = own or Own()
    how = {"ignores": config.ignore_label >= 0, "deep": config.deep_supervision}
    own_notes = ranks.in_turn(partial(check_own, own, devices.main, config.img_size, **how))
    shown = progress if ranks.first else None
    data = ranks.in_turn(lambda: build_data(config, shown, known))
    check_same_images(data, ranks)
    asked, config = _decided(config, own, len(data.train), devices.count)
    plan = ranks.in_turn(lambda: build_plan(config, len(data.train), devices.count))
    requested = None if config.num_workers < 0 else config.num_workers
    workers, reason = choose_workers(requested, cpu_count(), ranks.local_world)
    # The others are given the first one's weights: they need neither its files nor the hub.
    net = net or ranks.in_turn(lambda: build_net(config, empty=empty or not ranks.first))
    state = build_state(config, net, devices, precision, ranks, own)
    if begins_trained(config) and not state.start.pretrained and not empty:
        config = as_untrained(config, asked, len(data.train), devices.count)
    if config.skip_stage1:
        state.epoch = plan.first_epoch_of_part(2)
    lines = _device_lines(devices, ranks)
    parts = (devices, precision, plan, state, workers, reason, ranks, lines)
    return Training(config, asked, data, *parts, own_notes=own_notes)


def _decided(config: Config, own: Own, photos: int, devices: int) -> tuple[Config, Config]:
    """Return the settings as they are told, and with all decided that was open.

    The uncertainty term is part of the kit's loss. With an own one its weight stays open, which
    weighs nothing, so that a run that goes back to the kit's loss has the recipe's.
    """
    decided = decide(config, photos, devices)
    if config.uncertainty is None and is_own(own.loss):
        return config.replace(uncertainty=0.0), decided.replace(uncertainty=None)
    return config, decided


class Loaders:
    """The batches of a training: one set of workers loads them all, whatever the stage."""

    def __init__(self, training: Training, progress: Progress | None = None) -> None:
        config, folder = training.config, cache_folder(training.config)
        sides = (training.data.train, training.data.validation)
        caches = training.ranks.in_turn(
            lambda: [open_cache(p, config.img_size, folder, progress=progress) for p in sides]
        )
        self.fingerprint: str = caches[0].fingerprint
        self.doubts = _doubts(caches, sides)
        self._training = training
        self._train, self.validation_set = (PairDataset(c, seed=config.seed) for c in caches)
        batches = self._batches(self._train, training.plan.stages[0].batch, training=True)
        on_gpu, workers = bool(training.devices.ids), training.workers
        largest = max(stage.batch for stage in training.plan.stages) * training.devices.own
        size = largest * 4 * config.img_size**2
        if short := shared_memory_short(workers, size, training.ranks.local_world):
            self.doubts, workers = [*self.doubts, short], 0
        self.feed = Feed(self._train, batches, workers=workers, pin_memory=on_gpu)

    def begin(self, stage: Stage, epoch: int, seen: int = 0) -> None:
        """Have the workers load the first batches of `epoch(...)` now, and start them if need be.

        Nothing happens after the last epoch, and where there are no workers.
        """
        plan, config = self._training.plan, self._training.config
        if epoch < plan.epochs:
            steps = plan.steps_left(epoch, seen)
            own = stage.batch * self._training.devices.own
            self.feed.begin(epoch, seen, steps * config.accumulation_steps, own)

    def epoch(self, stage: Stage, epoch: int, seen: int = 0) -> Feed:
        """Return the batches of an epoch, after its first `seen` images, in whole steps."""
        self.begin(stage, epoch, seen)
        return self.feed

    def validation(self, batch: int) -> DataLoader[Any]:
        """Return this process's share of the validation images, in order."""
        batches = self._batches(self.validation_set, batch, training=False)
        return make_loader(self.validation_set, batches, workers=0, pin_memory=False)

    def _batches(self, images: PairDataset, batch: int, *, training: bool) -> Batches:
        ranks, own = self._training.ranks, self._training.devices.own
        seed, place = self._training.config.seed, {"rank": ranks.rank, "world": ranks.world}
        return Batches(len(images), batch * own, seed=seed, training=training, **place)


def _doubts(caches: Sequence[Cache], sides: Sequence[Sequence[Pair]]) -> list[str]:
    """Return a sentence for each reason to doubt masks; InputError if nothing can be learned."""
    found: dict[str, list[str]] = {}
    for cache in caches:
        for kind, names in cache.doubts.items():
            found.setdefault(kind, []).extend(names)
    total = sum(map(len, sides))
    settled = settle(found, total, sum(is_noncam(pair) for side in sides for pair in side))
    require_objects(settled, total)
    said = sentences(settled, total)
    noncam = sum(map(is_noncam, sides[1]))
    unseen = [len(cache.doubts.get(kind, ())) for cache in caches[1:] for kind in NO_OBJECT]
    if sum(unseen) + noncam == len(sides[1]):
        said.append("no validation mask shows an object: no score can be had")
    return said


def step_settings(config: Config) -> StepSettings:
    """Return what a training step needs of the settings."""
    return StepSettings(
        seed=config.seed,
        accumulation=config.accumulation_steps,
        augment=config.augment,
        clip=config.clip,
        deep=config.deep_weight,
        balance=config.balance,
        uncertainty=config.uncertainty or 0.0,  # open: with a loss of the user's own
    )


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "camoxpert_nb": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


def _choose_devices(config: Config, ranks: Ranks) -> tuple[Devices, Precision]:
    devices = pick_devices(
        config.device,
        parallel=config.parallel,
        gpus=config.gpus,
        local_rank=ranks.local_rank,
        world=ranks.world,
        started=ranks.started,
    )
    return devices, choose_precision(devices, config.amp)


def _check_kinds(kinds: Sequence[str], ranks: Ranks) -> None:
    """Raise InputError where GPU and CPU were to meet in a connection that knows only GPUs."""
    if len(set(kinds)) > 1 and ranks.nccl:
        name = ranks.name(kinds.index("cpu"))
        raise InputError(
            f"{name} is to train on the CPU, others on a GPU. Processes must know that when they "
            "join: give --device cpu on the command line there, or the same device everywhere."
        )


def _device_lines(devices: Devices, ranks: Ranks) -> list[str]:
    host = f"{platform.node()}, " if ranks.world > ranks.local_world else ""
    return [host + line for lines in ranks.gather(devices.describe()) for line in lines]


def summary(training: Training, fingerprint: str, run: Run, *, finished: bool) -> dict[str, Any]:
    """Return the contents of summary.json; `fingerprint` is that of the decoded images."""
    state, data, epochs = training.state, training.data, run.records("epoch")
    devices = list(training.device_lines)
    figures = performance(epochs, training.config.as_dict(), devices)
    return {
        "finished": finished,
        "best": state.best,
        "target_iou": training.config.target_iou,
        "target_reached_at_epoch": figures["epoch_of_target"],
        "epochs": len(epochs),
        "step": state.step,
        "seconds": round(state.seconds, 1),
        "devices": devices,
        "parallel": training.devices.kind,
        "performance": figures,
        "precision": training.precision.reason,
        "parameters": sum(p.numel() for p in state.net.parameters()),
        "pretrained": state.start.pretrained,
        "weights_source": state.start.source,
        "versions": versions(),
        "data": {
            "root": str(data.root),
            "fingerprint": fingerprint,
            "train": len(data.train),
            "validation": len(data.validation),
            "test": sum(map(len, data.test.values())),
            "left_out": {why: list(names) for why, names in data.left_out.items()},
            "leaks": list(data.leaks),
            "near_leaks": list(data.near_leaks),
        },
    }
