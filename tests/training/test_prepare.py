"""Settings to parts: what is left out, unfit or doubled is named before a training."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from own_parts import dice, sgd

import camoxpert_nb
from camoxpert_nb.data.batches import uniforms
from camoxpert_nb.data.pairs import Pair
from camoxpert_nb.data.selection import build_data
from camoxpert_nb.errors import InputError
from camoxpert_nb.machine.devices import bare
from camoxpert_nb.machine.distributed import Ranks
from camoxpert_nb.network.backbone import Start
from camoxpert_nb.network.build import build_net
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import prepare as module
from camoxpert_nb.training.banner import banner
from camoxpert_nb.training.own import Own
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


# --- sentences and small parts


class Apart(Ranks):
    """Three processes on two machines, whose GPUs talk directly where `direct` says so."""

    direct = True

    @property
    def nccl(self) -> bool:
        return self.direct

    def gather(self, value: Any) -> list[Any]:
        return [value, ["another CPU", "and more"]]


def test_a_cpu_cannot_join_gpus_that_talk_directly() -> None:
    with pytest.raises(InputError) as caught:
        module._check_kinds(["cuda", "cuda", "cpu"], Apart(0, 3))
    assert str(caught.value) == (
        "process 2 is to train on the CPU, others on a GPU. Processes must know that when they "
        "join: give --device cpu on the command line there, or the same device everywhere."
    )
    module._check_kinds(["cuda", "cuda"], Apart(0, 3))
    module._check_kinds(["cpu", "cpu"], Apart(0, 3))
    slow = Apart(0, 3)
    slow.__dict__["direct"] = False
    module._check_kinds(["cuda", "cpu"], slow)


def test_devices_are_told_with_their_host_where_there_are_several(tiny: Config) -> None:
    devices = prepare(tiny).devices
    lines = devices.describe()
    more = ["another CPU", "and more"]
    assert module._device_lines(devices, Apart(0, 2, 0, 2)) == [*lines, *more]
    host = module.platform.node()
    assert module._device_lines(devices, Apart(0, 2, 0, 1)) == [
        f"{host}, {line}" for line in [*lines, *more]
    ]


def test_versions_are_those_that_a_result_depends_on() -> None:
    assert module.versions() == {
        "camoxpert_nb": camoxpert_nb.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def test_a_network_of_ones_own_says_so_and_is_trained(tiny: Config) -> None:
    net = build_net(tiny)
    del net.start
    training = prepare(tiny, net=net)
    assert training.state.net is net
    assert training.state.start == Start(False, "a network of your own")


def test_the_optimizer_is_adamw_or_ones_own(tiny: Config) -> None:
    config = tiny.replace(lr=3e-3, weight_decay=0.05)
    usual = prepare(config).state.optimizer
    assert type(usual) is torch.optim.AdamW
    assert {group["fused"] for group in usual.param_groups} == {True}
    assert {group["capturable"] for group in usual.param_groups} == {False}
    assert usual.defaults["lr"] == 3e-3
    given = prepare(config, own=Own(optimizer=sgd)).state.optimizer
    assert type(given) is torch.optim.SGD
    assert {group["lr"] for group in given.param_groups} == {3e-3}
    assert {group["weight_decay"] for group in given.param_groups} == {0.0, 0.05}


def test_the_average_forgets_its_start_as_told(tiny: Config) -> None:
    """n / (n + 9)."""
    ema = prepare(tiny.replace(ema_decay=0.8)).state.ema
    assert ema is not None
    assert (ema.decay, ema.use_warmup, ema.warmup_gamma, ema.warmup_power) == (0.8, True, 9.0, 1.0)


@pytest.mark.parametrize("mine", [False, True])
@pytest.mark.parametrize("uncertainty", [None, 0.7])
def test_an_open_weight_of_uncertainty_is_decided_for_the_kits_loss_alone(
    tiny: Config, mine: bool, uncertainty: float | None
) -> None:
    config = tiny.replace(preset="auto", uncertainty=uncertainty)
    told, decided = module._decided(config, Own(loss=dice) if mine else Own(), 26, 1)
    if uncertainty is not None:
        assert told.uncertainty == decided.uncertainty == uncertainty
    elif mine:
        assert (told.uncertainty, decided.uncertainty) == (0.0, None)
        assert step_settings(decided).uncertainty == 0.0
    else:
        assert told.uncertainty is None and decided.uncertainty == 2.0  # the recipe's


def test_doubts_add_up_over_both_sides() -> None:
    """Of 3 and 2 pairs; without an object on the validation side there is no score."""
    sides = [[_pair("a"), _pair("b"), _pair("c")], [_pair("d"), _pair("e")]]
    caches = [SimpleNamespace(doubts={"empty": ["a"]}), SimpleNamespace(doubts={"empty": ["d"]})]
    (one,) = module._doubts(caches, sides)  # type: ignore[arg-type]
    assert "2 of 5" in one or "2" in one
    caches[1].doubts["empty"] = ["d", "e"]
    *_, last = module._doubts(caches, sides)  # type: ignore[arg-type]
    assert last == "no validation mask shows an object: no score can be had"
    caches[0].doubts = {"empty": ["a", "b", "c"]}
    with pytest.raises(InputError):
        module._doubts(caches, sides)  # type: ignore[arg-type]


def _pair(name: str) -> Pair:
    return Pair(name, Path(f"{name}.jpg"), Path(f"{name}.png"), "")


def test_a_summary_says_what_was_trained(tiny: Config, tmp_path: Path) -> None:
    """Each number is another one."""
    training, run = prepare(tiny), Run(tmp_path)
    state, data = training.state, training.data
    state.best, state.step, state.seconds = {"epoch": 2, "iou": 0.3}, 17, 12.345
    training.device_lines = ["CPU"]
    training.data = dataclasses.replace(
        data, left_out={"odd": ["x"]}, leaks=["l"], near_leaks=["n", "m"]
    )
    found = module.summary(training, "print", run, finished=False)
    figures = found.pop("performance")
    assert figures["epoch_of_target"] is None
    assert found.pop("versions") == module.versions()
    assert found == {
        "finished": False,
        "best": {"epoch": 2, "iou": 0.3},
        "target_iou": tiny.target_iou,
        "target_reached_at_epoch": None,
        "epochs": 0,
        "step": 17,
        "seconds": 12.3,
        "devices": ["CPU"],
        "parallel": training.devices.kind,
        "precision": training.precision.reason,
        "parameters": sum(p.numel() for p in state.net.parameters()),
        "pretrained": False,
        "weights_source": "none: trains from scratch (no weights were asked for)",
        "data": {
            "root": str(data.root),
            "fingerprint": "print",
            "train": 26,
            "validation": 6,
            "test": sum(len(pairs) for pairs in data.test.values()),
            "left_out": {"odd": ["x"]},
            "leaks": ["l"],
            "near_leaks": ["n", "m"],
        },
    }


def test_where_the_weights_asked_for_do_not_come_maps_are_not_pressed_to_be_certain(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tiny.replace(preset="auto", pretrained=True, uncertainty=None)
    net = build_net(tiny, empty=True)
    for came, weight in ((True, 8.0), (False, 2.0)):
        net.start = Start(came, "told so")
        training = prepare(asked, net=net)
        assert (training.config.uncertainty, training.asked) == (weight, asked)
        assert step_settings(training.config).uncertainty == weight
    assert prepare(asked.replace(uncertainty=3.0), net=net).config.uncertainty == 3.0
