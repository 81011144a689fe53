"""Settings to parts: what is left out, unfit or doubled is named before a training."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from camoxpert_nb.data.batches import uniforms
from camoxpert_nb.data.selection import build_data
from camoxpert_nb.errors import InputError
from camoxpert_nb.machine.devices import bare
from camoxpert_nb.machine.distributed import Ranks
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.banner import banner
from camoxpert_nb.training.prepare import Loaders, Training, prepare, step_settings
from camoxpert_nb.training.train import StepSettings


@pytest.fixture
def own(camouflage: Path, tmp_path: Path) -> Path:
    return shutil.copytree(camouflage, tmp_path / "own")


def test_what_is_left_out_is_named_in_the_banner(tiny: Config, own: Path) -> None:
    pairs = build_data(tiny.replace(dataset_path=str(own))).train
    pairs[0].mask.unlink()
    pairs[1].image.unlink()
    said = banner(prepare(tiny.replace(dataset_path=str(own))))
    assert f"left out: 1 ({pairs[0].image.name}) images without a mask" in said
    assert f"left out: 1 ({pairs[1].mask.name}) masks without an image" in said


def test_the_banner_names_the_rate_for_another_batch(tiny: Config) -> None:
    said = banner(prepare(tiny.replace(lr_batch=8)))
    assert "NOTE: --lr 0.002 is meant for a batch of 8, this run has 4" in said
    assert "--scale-lr" in said
    assert "meant for a batch" not in banner(prepare(tiny))


def test_a_training_image_among_the_test_images_is_warned_of(tiny: Config, own: Path) -> None:
    config = tiny.replace(dataset_path=str(own))
    data = build_data(config)
    test = next(iter(data.test.values()))
    shutil.copyfile(test[0].image, data.train[0].image)
    training = prepare(config)
    assert training.data.leaks == [data.train[0].name]
    assert "training images are test images too" in banner(training)


def test_damaged_files_are_named_before_training(tiny: Config, own: Path) -> None:
    config = tiny.replace(dataset_path=str(own))
    training = prepare(config)
    bad = training.data.train[3].image
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(InputError, match=f"{bad.name}.*cannot be read"):
        Loaders(training)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_images_that_fill_no_step_are_told_beside_the_steps(tiny: Config, batch: int) -> None:
    training = prepare(tiny.replace(batch_size=batch, stage2_batch_size=batch))
    images = training.plan.images
    left_out = images % batch
    told = f"steps an epoch of {images - left_out} of {images} images, chosen anew each epoch"
    assert (told in banner(training)) == bool(left_out)
    assert ("chosen anew" in banner(training)) == bool(left_out)


def test_the_parts_have_what_the_settings_say(tiny: Config) -> None:
    """Each differs from its default, and from every other."""
    config = tiny.replace(
        seed=9,
        accumulation_steps=2,
        clip=0.7,
        deep_weight=0.3,
        balance=0.2,
        uncertainty=0.6,
        augment=0.4,
        ema_decay=0.77,
        weight_decay=0.05,
        legacy_loss=True,
        batch_size=3,
        stage2_batch_size=5,
    )
    training = prepare(config)
    state, settings = training.state, step_settings(config)
    assert settings == StepSettings(9, 2, 0.4, 0.7, deep=0.3, balance=0.2, uncertainty=0.6)
    assert state.ema is not None and state.ema.decay == 0.77
    assert {group["weight_decay"] for group in state.optimizer.param_groups} == {0.0, 0.05}
    assert bare(state.supervised).legacy is True
    assert prepare(config.replace(use_ema=False)).state.ema is None
    assert prepare(config.replace(skip_stage1=True)).state.epoch == 1


def test_batches_follow_from_seed_epoch_and_place_in_the_epoch(tiny: Config) -> None:
    """In whole steps of two batches; each image has the chance of its own place."""
    training = prepare(tiny.replace(seed=9, accumulation_steps=2, batch_size=3))
    loaders, count = Loaders(training), len(training.data.train)
    with contextlib.closing(loaders.feed):
        batches = list(loaders.epoch(training.plan.stages[-1], 1, 6))
        order = np.random.default_rng((9, 1)).permutation(count)[6:]
        whole = (count - 6) // 6 * 2
        assert [batch["index"].tolist() for batch in batches] == [
            order[3 * n : 3 * n + 3].tolist() for n in range(whole)
        ]
        chance = uniforms(9, 1, count)
        for batch in batches:
            assert batch["uniform"].tolist() == chance[batch["index"]].tolist()
        (held, *_) = loaders.validation(2)
        assert (
            held["uniform"].tolist() == uniforms(9, 0, len(training.data.validation))[:2].tolist()
        )


def test_each_process_and_each_gpu_has_its_part_of_a_batch(tiny: Config) -> None:
    """Process 4 of 5, the second of its machine, with two GPUs."""
    training = prepare(tiny.replace(batch_size=2))
    training.ranks = Ranks(4, 5, 1, 2)
    training.devices = dataclasses.replace(training.devices, ids=(0, 1))
    batches = Loaders._batches(_stub(training), range(43), 2, training=False)  # type: ignore[arg-type]
    assert (batches.per_rank, batches.rank, batches.world) == (4, 4, 5)
    assert [*batches] == [[4, 9, 14, 19], [24, 29, 34, 39]]


def _stub(training: Training) -> Any:
    return SimpleNamespace(_training=training)
