"""Stages and learning rates: data tables and pure functions of the step, without torch.

Nothing here has a state to save: what trains at which step, with which batch and at which rate,
is known before the first one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError
from ..settings.config import Config

START_SHARE = 0.04  # of the learning rate, where a one-cycle schedule begins


@dataclass(frozen=True)
class Stage:
    """A stretch of epochs in which the same blocks train with the same batch.

    `part` is 1 (decoder alone) or 2 (with the backbone); the learning rate runs over a part, which
    may hold several stages. Batches are micro-batches, of `batch` images per device.
    """

    name: str
    part: int
    first_epoch: int
    epochs: int
    open_blocks: int
    lr: float
    batch: int
    batches: int  # per epoch
    steps: int  # optimiser steps per epoch
    first_step: int

    @property
    def last_epoch(self) -> int:
        """The first epoch that no longer belongs to the stage."""
        return self.first_epoch + self.epochs

    @property
    def last_step(self) -> int:
        """The first step that no longer belongs to the stage."""
        return self.first_step + self.epochs * self.steps


@dataclass(frozen=True)
class Place:
    """Where a step stands: its stage, its epoch and its number within the epoch, from 0."""

    stage: Stage
    epoch: int
    step_in_epoch: int


@dataclass(frozen=True)
class Plan:
    """The whole training, before it starts: stages and the shape of the learning rate."""

    stages: tuple[Stage, ...]
    backbone_factor: float
    scheduler: str
    min_lr: float
    warmup_epochs: int
    t_mult: int

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.stages[-1].last_step

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.stages[-1].last_epoch

    def at(self, step: int) -> Place:
        """Return where `step` stands; past the end, the last step's stage."""
        stage = next((s for s in self.stages if step < s.last_step), self.stages[-1])
        epochs, rest = divmod(step - stage.first_step, stage.steps)
        return Place(stage, stage.first_epoch + epochs, rest)

    def step_of(self, epoch: int, samples: int, per_step: int) -> int:
        """Return the step that stands `samples` images into `epoch` at `per_step` images a step.

        A run that goes on with another number of devices has other steps; epochs and images stay.
        """
        stage = next((s for s in self.stages if epoch < s.last_epoch), self.stages[-1])
        into = min(samples // per_step, stage.steps)
        return stage.first_step + (epoch - stage.first_epoch) * stage.steps + into

    def first_step_of_part(self, part: int) -> int:
        """Return the first step of part 1 or 2."""
        return next(stage.first_step for stage in self.stages if stage.part == part)

    def lr(self, step: int, block: int | None) -> float:
        """Return the learning rate at `step` of the head (None) or backbone block 1 (deepest)...4.

        Base rate of the part x backbone factor x `factor`; a block that opens in the middle of a
        part rises over one epoch, as its Adam moments are still empty.
        """
        stage = self.at(step).stage
        rate = stage.lr * self.factor(step)
        if block is None:
            return rate
        if block > stage.open_blocks:
            return 0.0
        opened = next(s for s in self.stages if s.open_blocks >= block)
        rise = min(1.0, (step - opened.first_step + 1) / opened.steps)
        return rate * self.backbone_factor * rise

    def factor(self, step: int) -> float:
        """Return the shape of the learning rate at `step`, from its lowest ratio to 1."""
        part = [s for s in self.stages if s.part == self.at(step).stage.part]
        first, last, epochs = part[0].first_step, part[-1].last_step, sum(s.epochs for s in part)
        wanted = self.warmup_epochs if part[0].part == 2 else min(self.warmup_epochs, epochs / 10)
        warmup = round(min(wanted, epochs / 2) * part[0].steps)
        done, total = step - first, max(last - first, 1)
        if done < warmup:
            return (done + 1) / (warmup + 1)
        lowest = self.min_lr / part[0].lr
        progress = (done - warmup) / max(total - warmup, 1)
        return lowest + (1 - lowest) * _shape(self.scheduler, progress, self.t_mult)


def plan_stages(
    *,
    epochs: int,
    stage1_epochs: int,
    progressive: bool,
    lr: float,
    stage2_lr: float,
    batch: int,
    stage2_batch: int,
    accumulation: int,
    devices: int,
    images: int,
    blocks: int = 4,
) -> tuple[Stage, ...]:
    """Return the table of stages.

    Stage one trains the decoder alone. Stage two opens the whole backbone, or (progressive) its
    deepest block, then two, then all, each for a third of the stage.
    """
    rest = epochs - stage1_epochs
    opening = [(1, "block 4"), (2, "blocks 3-4"), (blocks, "all")] if progressive else []
    bounds = [rest * i // 3 for i in range(4)] if progressive else [0, rest]
    rows = [("decoder", 1, stage1_epochs, 0, lr, batch)]
    for (open_blocks, name), start, end in zip(
        opening or [(blocks, "all")], bounds, bounds[1:], strict=False
    ):
        rows.append((name, 2, end - start, open_blocks, stage2_lr, stage2_batch))
    stages: list[Stage] = []
    epoch = step = 0
    for name, part, count, open_blocks, rate, size in rows:
        if count == 0:
            continue
        batches = images // (size * devices)
        steps = math.ceil(batches / accumulation)
        stages.append(
            Stage(name, part, epoch, count, open_blocks, rate, size, batches, steps, step)
        )
        epoch, step = epoch + count, step + count * steps
    return tuple(stages)


def _shape(scheduler: str, progress: float, growth: int) -> float:
    """Return 1...0 for progress 0...1 after warm-up."""
    if scheduler == "none":
        return 1.0
    if scheduler == "onecycle":  # Smith and Topin, 2018: a tenth of the way up, the rest down
        if progress < 0.1:
            return START_SHARE + (1 - START_SHARE) * _cosine(1 - progress / 0.1)
        return _cosine((progress - 0.1) / 0.9)
    if scheduler == "cosine_restart":  # Loshchilov and Hutter, ICLR 2017: first period a quarter
        length, start = 0.25, 0.0
        while progress >= start + length:
            start, length = start + length, length * growth
        return _cosine((progress - start) / length)
    return _cosine(progress)


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def build_plan(config: Config, images: int, devices: int) -> Plan:
    """Return stages and learning rates for this many training images and devices.

    Raises InputError when a batch is larger than the data.
    """
    batches = batches_per_device(config)
    largest = max(batches) * devices
    if largest > images:
        raise InputError(
            f"a batch of {largest} images ({largest // devices} per device x "
            f"{devices}) is larger than the {images} training images. Lower --batch-size "
            f"and --stage2-batch-size to at most {images // devices}, or add images."
        )
    factors = lr_factors(config, devices) if config.scale_lr else (1.0, 1.0)
    stages = plan_stages(
        epochs=config.epochs,
        stage1_epochs=config.stage1_epochs,
        progressive=config.progressive_unfreeze,
        lr=config.lr * factors[0],
        stage2_lr=(config.stage2_lr or config.lr) * factors[1],
        batch=batches[0],
        stage2_batch=batches[1],
        accumulation=config.accumulation_steps,
        devices=devices,
        images=images,
    )
    return Plan(
        stages,
        backbone_factor=config.backbone_lr_factor,
        scheduler=config.scheduler,
        min_lr=config.min_lr * min(*factors, 1.0),  # a floor must stay below what it bounds
        warmup_epochs=config.warmup_epochs,
        t_mult=config.t_mult,
    )


def batches_per_device(config: Config) -> tuple[int, int]:
    """Return the images per device in stage one and two."""
    return config.batch_size, config.stage2_batch_size or config.batch_size


def effective_batches(config: Config, devices: int) -> tuple[int, int]:
    """Return the images of an optimiser step in stage one and two."""
    first, second = batches_per_device(config)
    return first * devices * config.accumulation_steps, second * devices * config.accumulation_steps


def settle_lr_batches(config: Config, devices: int) -> Config:
    """Return the settings with the batches that the learning rates are meant for written down."""
    first, second = effective_batches(config, devices)
    return config.replace(
        lr_batch=config.lr_batch or first, stage2_lr_batch=config.stage2_lr_batch or second
    )


def lr_factors(config: Config, devices: int) -> tuple[float, float]:
    """Return effective batch / batch the learning rate is meant for, of stage one and two.

    With `devices` other than they were meant for, learning rates scale linearly with it (Goyal et
    al., "Accurate, Large Minibatch SGD", 2017).
    """
    first, second = effective_batches(config, devices)
    return first / (config.lr_batch or first), second / (config.stage2_lr_batch or second)


def lr_warnings(config: Config, devices: int) -> list[str]:
    """Return a sentence for each stage whose learning rate is meant for another batch."""
    sentences = []
    facts = zip(
        ("--lr", "--stage2-lr"),
        (config.lr, config.stage2_lr or config.lr),
        lr_factors(config, devices),
        effective_batches(config, devices),
        strict=True,
    )
    for flag, rate, factor, batch in facts:
        if factor == 1.0:
            continue
        scaled = rate * factor
        meant = f"{flag} {rate:g} is meant for a batch of {batch / factor:.0f}"
        sentences.append(
            f"{meant}; for {batch} it is scaled to {scaled:.3g} (--scale-lr)"
            if config.scale_lr
            else f"{meant}, this run has {batch}: in proportion {scaled:.3g}; --scale-lr applies it"
        )
    return sentences
