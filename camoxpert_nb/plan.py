"""From settings to the plan of a training: stages, batches and learning rates, without torch."""

from __future__ import annotations

from .config import Config
from .errors import InputError
from .schedule import Plan, plan_stages


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
