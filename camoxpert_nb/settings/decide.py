"""What a training's settings come to on so many devices and photos: batches, rates, the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..outside.spelling import counted
from .config import Config, differences, make_config
from .recipe import DECIDED, IN_PROPORTION, advice, in_words, recipe

ENOUGH = 8  # validation images, with fewer of which a mean IoU says little
LONG = 100  # epochs that the guide's presets have, and more
STAGES = (*IN_PROPORTION, "progressive_unfreeze")
FOLLOWING = ("lr_batch", "stage2_lr_batch", *IN_PROPORTION)  # settings that follow from others


def decide(config: Config, photos: int, devices: int) -> Config:
    """Return the settings with all that was open decided, for so many photos to train.

    What is open (None) gets the recipe's value, and what the learning rates are meant for is
    written down, so a run that goes on keeps what it began with.
    """
    first, second = effective_batches(config, devices)
    return config.replace(
        lr_batch=config.lr_batch or first,
        stage2_lr_batch=config.stage2_lr_batch or second,
        **decisions(config, photos, devices),
    )


def open_settings(config: Config) -> list[str]:
    """Return the names of the settings that the recipe is to decide."""
    names = [name for name in DECIDED if getattr(config, name) is None]
    if "lr" in names and config.stage2_lr is None:  # else it is as in stage one
        names.insert(names.index("lr") + 1, "stage2_lr")
    return names


def decisions(config: Config, photos: int, devices: int) -> dict[str, Any]:
    """Return what the recipe gives to settings that are open."""
    if not (names := open_settings(config)):
        return {}
    first, second = effective_batches(config, devices)
    meant = config.lr_batch or first, config.stage2_lr_batch or second
    values = recipe(config.epochs, photos, *meant, pretrained=begins_trained(config))
    return {name: values[name] for name in names}


def begins_trained(config: Config) -> bool:
    """Say whether the backbone is to begin with weights that know photos."""
    return config.pretrained or bool(config.weights or config.init_from)


def as_untrained(config: Config, asked: Config, photos: int, devices: int) -> Config:
    """Return the settings as the recipe decides them where the weights asked for did not come.

    `config` is `asked` with all decided, for so many photos to train.
    """
    without = asked.replace(pretrained=False, weights="", init_from="")
    return config.replace(**decisions(without, photos, devices))


def recipe_lines(
    config: Config, photos: int, devices: int, decided: Config | None = None
) -> list[str]:
    """Return what the recipe decides of open settings, and for what; nothing where none is.

    `decided` are the settings that came of `config`, where they are known.
    """
    if not (names := open_settings(config)):
        return []
    decided = decided or decide(config, photos, devices)
    values = {name: getattr(decided, name) for name in names}
    batches = " and ".join(map(str, dict.fromkeys(effective_batches(config, devices))))
    when = {name: value for name, value in values.items() if name in STAGES}
    rates = {name: value for name, value in values.items() if name not in STAGES}
    length = f"{counted(config.epochs, 'epoch')} of {counted(photos, 'photo')}"
    head = f"for {length}, {batches} in a step:"
    return [head, *filter(None, [in_words(rates), in_words(when)])]


def short_run(config: Config) -> list[str]:
    """Return a sentence where a preset for long runs is used, as it is, for a short one."""
    usual = make_config(config.preset) if config.preset else config
    if usual.epochs < LONG or config.augment is None or config.augment != usual.augment:
        return []
    return [*filter(None, [advice(config.augment, config.epochs)])]


def few_validate(held: int) -> list[str]:
    """Return a sentence where so few images validate that the best epoch is mostly chance."""
    if held >= ENOUGH:
        return []
    return [
        f"{counted(held, 'image')} validate{'s' * (held == 1)}: which epoch is the best is mostly "
        "chance. Hold out more (--val-share 0.2), or add images"
    ]


def told(config: Config, usual: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the fewest changes that make these settings of their preset.

    `usual` is what the preset itself has on this machine. What follows by itself is left out.
    """

    def left(given: Mapping[str, Any]) -> dict[str, Any]:
        return differences(config, make_config(config.preset, **{**(usual or {}), **given}))

    given = {name: value for name, value in left({}).items() if name not in FOLLOWING}
    return given | left(given)


def batches_per_device(config: Config) -> tuple[int, int]:
    """Return the images per device in stage one and two."""
    return config.batch_size, config.stage2_batch_size or config.batch_size


def effective_batches(config: Config, devices: int) -> tuple[int, int]:
    """Return the images of an optimiser step in stage one and two."""
    first, second = batches_per_device(config)
    return first * devices * config.accumulation_steps, second * devices * config.accumulation_steps


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
