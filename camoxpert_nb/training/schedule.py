"""Stages and learning rates: data tables and pure functions of the time, without torch.

Time is counted in epochs, with fractions: half of the third epoch is 2.5, whatever the batch and
the number of processes. Nothing here has a state to save: what trains when, with which batch and
at which rate, is known before the first step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from ..settings.checks import in_strides
from ..settings.config import Config
from ..settings.decide import batches_per_device, decide, lr_factors

START_SHARE = 0.04  # of the learning rate, where a one-cycle schedule begins
RISE = 0.1  # of a part, in which one-cycle rises where no warm-up is asked for
SAMPLES = 200  # times at which a schedule is looked at
PERIODS = 4  # the first period of cosine_restart is about this part of the whole


@dataclass(frozen=True)
class Stage:
    """A stretch of epochs in which the same blocks train with the same batch.

    `part` is 1 (decoder alone) or 2 (with the backbone); the learning rate runs over a part, which
    may hold several stages. `batch` images a device, `effective` in a step of all devices. They
    train with `size` pixels a side (0: as they are loaded), which is `area` of all their pixels.
    """

    name: str
    part: int
    first_epoch: int
    epochs: int
    open_blocks: int
    lr: float
    batch: int
    effective: int
    steps: int  # optimiser steps in a whole epoch
    size: int = 0
    area: float = 1.0

    @property
    def last_epoch(self) -> int:
        """The first epoch that no longer belongs to the stage."""
        return self.first_epoch + self.epochs


@dataclass(frozen=True)
class Origin:
    """Where a training took up a changed schedule: its time, and what held then."""

    time: float
    factor: float  # of the learning rate
    open_blocks: int
    rising: bool = False  # the rate had not reached its peak


@dataclass(frozen=True)
class Plan:
    """The whole training, before it starts: stages and the shape of the learning rate."""

    stages: tuple[Stage, ...]
    images: int  # that train, in an epoch
    devices: int
    backbone_factor: float
    scheduler: str
    min_lr: float
    warmup_epochs: int
    t_mult: int
    origin: Origin | None = None

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self.stages[-1].last_epoch

    def in_rows(self) -> list[dict[str, Any]]:
        """Return the stages as plain values, for records."""
        keys = ("name", "first_epoch", "epochs", "steps", "open_blocks", "batch", "area")
        return [{key: getattr(stage, key) for key in keys} for stage in self.stages]

    def of_whole_images(self) -> list[Stage]:
        """Return the last stage with each number of open blocks: the one of the largest images."""
        return list({stage.open_blocks: stage for stage in self.stages}.values())

    def stage_at(self, time: float) -> Stage:
        """Return the stage of a time, or of an epoch; past the end, the last one."""
        return next((s for s in self.stages if time < s.last_epoch), self.stages[-1])

    def first_epoch_of_part(self, part: int) -> int:
        """Return the first epoch of part 1 or 2."""
        return next(stage.first_epoch for stage in self.stages if stage.part == part)

    def steps_left(self, epoch: int, seen: int = 0) -> int:
        """Return the steps to the end of an epoch of which `seen` images are done.

        Images that do not fill a step are left out: they would make one of another batch.
        """
        return max(self.images - seen, 0) // self.stage_at(epoch).effective

    def steps_from(self, epoch: int, seen: int = 0) -> int:
        """Return the steps from there to the end of the training."""
        later = (
            stage.steps * max(stage.last_epoch - max(stage.first_epoch, epoch + 1), 0)
            for stage in self.stages
        )
        return sum(later) + (self.steps_left(epoch, seen) if epoch < self.epochs else 0)

    def time(self, epoch: int, seen: int = 0) -> float:
        """Return the time in the middle of the step that begins after `seen` images of an epoch."""
        effective = self.stage_at(epoch).effective
        usable = seen + self.steps_left(epoch, seen) * effective
        return epoch + (min((seen + effective / 2) / usable, 1.0) if usable else 0.0)

    def times(self, stage: Stage) -> Iterator[float]:
        """Yield the time of each step of a stage."""
        for epoch in range(stage.first_epoch, stage.last_epoch):
            for step in range(stage.steps):
                yield epoch + (step + 0.5) / stage.steps

    def lr(self, time: float, block: int | None) -> float:
        """Return the learning rate then of the head (None) or backbone block 1 (deepest)...4.

        Base rate of the part x backbone factor x `factor`; a block that opens in the middle of a
        part rises over one epoch, as its Adam moments are still empty.
        """
        stage = self.stage_at(time)
        rate = stage.lr * self.factor(time)
        if block is None:
            return rate
        if block > stage.open_blocks:
            return 0.0
        opened: float = next(s for s in self.stages if s.open_blocks >= block).first_epoch
        if self.origin and block > self.origin.open_blocks:  # it opens by the change, or later
            opened = max(opened, self.origin.time)
        return rate * self.backbone_factor * min(1.0, max(time - opened, 0.0))

    def factor(self, time: float) -> float:
        """Return the shape of the learning rate at a time, from its lowest ratio to 1.

        Within a part it rises once, over the warm-up, and falls to its floor; cosine_restart falls
        several times. After `origin` it goes on from what it was there: up to the peak, if it was
        rising, and down.
        """
        part = [s for s in self.stages if s.part == self.stage_at(time).part]
        last, lowest = part[-1].last_epoch, min(self.min_lr / part[0].lr, 1.0)
        peak, height = self._peak(time)
        if time < peak:
            begun, origin = part[0].first_epoch, self._taken_up(time)
            if origin is None:
                return self._rise((time - begun) / (peak - begun))
            share = (time - origin.time) / (peak - origin.time)
            return origin.factor + (1 - origin.factor) * share
        share = (time - peak) / max(last - peak, 1e-9)
        return lowest + max(height - lowest, 0.0) * _fall(self.scheduler, share, self.t_mult)

    def highest(self, begin: float, end: float) -> float:
        """Return the highest learning rate of the head from one time to another."""
        return max(self.lr(begin + (end - begin) * i / SAMPLES, None) for i in range(SAMPLES))

    def rises(self, time: float) -> bool:
        """Say whether the rate has not reached its peak at this time."""
        return time < self._peak(time)[0]

    def _taken_up(self, time: float) -> Origin | None:
        """Return the origin, if the part of this time went through it before."""
        part = self.stage_at(time).part
        first = self.first_epoch_of_part(part)
        return self.origin if self.origin and first <= self.origin.time <= time else None

    def _peak(self, time: float) -> tuple[float, float]:
        """Return when the rate begins to fall in the part of this time, and its factor then."""
        part = self.stage_at(time).part
        first = self.first_epoch_of_part(part)
        last = next(s for s in self.stages[::-1] if s.part == part).last_epoch
        peak, origin = first + self._warmup(part, last - first), self._taken_up(time)
        if origin is None:
            return peak, 1.0
        if not origin.rising:
            return origin.time, origin.factor
        return (peak if peak > origin.time else min(origin.time + 1, (origin.time + last) / 2)), 1.0

    def _warmup(self, part: int, epochs: int) -> float:
        """Return the epochs in which the rate rises: of part one at most the first tenth."""
        wanted = min(self.warmup_epochs, epochs / 2)
        if self.scheduler == "onecycle":
            return wanted or RISE * epochs
        return wanted if part == 2 else min(wanted, epochs / 10)

    def _rise(self, share: float) -> float:
        if self.scheduler == "onecycle":  # Smith and Topin, 2018
            return START_SHARE + (1 - START_SHARE) * _cosine(1 - share)
        return share


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
    origin: Origin | None = None,
    blocks: int = 4,
    size: int = 0,
    start_size: int = 0,
) -> tuple[Stage, ...]:
    """Return the table of stages.

    Stage one trains the decoder alone. Stage two opens the whole backbone, or (progressive) its
    deepest block, then two, then all, each for a third of the stage. What was open at `origin`
    stays open. Their names follow the word stage: "one", "two (block 4)", "two (all)", or "two".
    With a `start_size` below `size` images grow from the one to the other in thirds of the epochs,
    which parts stages further: "two, 224 px".
    """
    rest = epochs - stage1_epochs
    opening = [(1, "two (block 4)"), (2, "two (blocks 3-4)"), (blocks, "two (all)")]
    if not progressive:
        opening = [(blocks, "two")]
    bounds = [rest * i // len(opening) for i in range(len(opening) + 1)]
    rows = [("one", 1, stage1_epochs, 0, lr, batch)] if stage1_epochs else []
    for (open_blocks, name), start, end in zip(opening, bounds, bounds[1:], strict=False):
        if end > start:
            rows.append((name, 2, end - start, open_blocks, stage2_lr, stage2_batch))
    names, least = dict(opening), origin.open_blocks if origin else 0
    stages: list[Stage] = []
    epoch = 0
    for name, part, count, open_blocks, rate, own in rows:
        if part == 2 and open_blocks < least and origin and epoch + count > origin.time:
            open_blocks, name = least, names.get(least, "two")
        effective = own * devices * accumulation
        steps = images // effective
        if stages and (stages[-1].part, stages[-1].open_blocks) == (part, open_blocks):
            same = stages.pop()  # a change had opened what this one opens
            count, epoch = count + same.epochs, same.first_epoch
        stages.append(Stage(name, part, epoch, count, open_blocks, rate, own, effective, steps))
        epoch += count
    if not 0 < start_size < size:
        return tuple(stages)
    growth = _growth(epochs, start_size, size)
    return tuple(part for stage in stages for part in _by_size(stage, growth, size))


def _growth(epochs: int, start: int, size: int) -> dict[int, int]:
    """Return the sizes of images, in pixels a side, and the epoch before which each ends."""
    sides = (start, min(max(in_strides((start + size) / 2), start), size), size)
    return {side: epochs * place // len(sides) for place, side in enumerate(sides, 1)}


def _by_size(stage: Stage, growth: Mapping[int, int], whole: int) -> Iterator[Stage]:
    """Yield the parts of a stage in which images have one size; the `whole` one is the last."""
    first = stage.first_epoch
    for side, end in growth.items():
        last = min(end, stage.last_epoch)
        if last > first:
            part = replace(stage, first_epoch=first, epochs=last - first)
            area = (side / whole) ** 2
            yield replace(part, name=f"{stage.name}, {side} px", size=side, area=area)
            first = last


def _fall(scheduler: str, share: float, growth: int) -> float:
    """Return 1...0 for the share 0...1 of a part after its rise; 0 at its end."""
    if scheduler == "none":
        return 1.0
    if scheduler == "cosine_restart":  # Loshchilov and Hutter, ICLR 2017
        return _restarts(share, growth)
    return _cosine(share)


def _restarts(share: float, growth: int) -> float:
    """Fall in periods, each `growth` times as long as the one before, of which the last ends at 1.

    Their number is that which makes the first come closest to a quarter.
    """
    count = PERIODS if growth == 1 else round(math.log(1 + PERIODS * (growth - 1), growth))
    lengths = [float(growth**period) for period in range(max(count, 1))]
    start, whole = 0.0, sum(lengths)
    for length in lengths[:-1]:
        if share < start + length / whole:
            return _cosine((share - start) * whole / length)
        start += length / whole
    return _cosine((share - start) * whole / lengths[-1])


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


def build_plan(config: Config, images: int, devices: int, origin: Origin | None = None) -> Plan:
    """Return stages and learning rates for this many training images and devices.

    `origin` is where a run took up these settings, if it began with others. What is open in them is
    decided by the recipe. Raises InputError when a step needs more images than there are.
    """
    _check_batches(config, images, devices)
    config = decide(config, images, devices)
    batches = batches_per_device(config)
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
        origin=origin,
        size=config.img_size,
        start_size=config.start_size,
    )
    return Plan(
        stages,
        images,
        devices,
        backbone_factor=config.backbone_lr_factor,
        scheduler=config.scheduler,
        min_lr=config.min_lr * min(*factors, 1.0),  # a floor must stay below what it bounds
        warmup_epochs=config.warmup_epochs,
        t_mult=config.t_mult,
        origin=origin,
    )


def _check_batches(config: Config, images: int, devices: int) -> None:
    batch, accumulated = max(batches_per_device(config)), config.accumulation_steps
    effective = batch * devices * accumulated
    if effective <= images:
        return
    parts = f"{batch} per device x {devices}" + f" x {accumulated} accumulated" * (accumulated > 1)
    fewer = ", fewer --accumulation-steps" if accumulated > 1 else ""
    raise InputError(
        f"a batch of {effective} images ({parts}) is larger than the {images} training images. "
        f"Lower --batch-size and --stage2-batch-size to at most "
        f"{max(images // (devices * accumulated), 1)}{fewer}, or add images."
    )
