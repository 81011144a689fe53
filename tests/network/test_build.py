"""From settings or files to a network: which weights, and what each setting makes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from camoxpert_nb.errors import InputError
from camoxpert_nb.network import build
from camoxpert_nb.network.backbone import Start
from camoxpert_nb.network.build import (
    build_net,
    check_version,
    evaluating,
    load_net,
    load_run,
    load_weights,
)
from camoxpert_nb.network.mixture import Router
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config

TINY = make_config("tiny")


def filled(config: Config, number: float) -> dict[str, Any]:
    return {name: torch.full_like(x, number) for name, x in build_net(config).state_dict().items()}


def is_filled(net: nn.Module, number: float) -> bool:
    return all(bool((value == number).all()) for value in net.parameters())


def test_the_first_weights_follow_from_the_seed_alone() -> None:
    nets = []
    for drawn, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(drawn)
        nets.append(build_net(TINY.replace(seed=seed)))
    one, two, other = (net.reduce[0].weight for net in nets)
    assert torch.equal(one, two) and not torch.equal(one, other)  # type: ignore[arg-type]


def test_each_setting_of_the_network_is_built() -> None:
    config = TINY.replace(num_experts=4, top_k=3, width=32, deep_supervision=False)
    net = build_net(config.replace(gradient_checkpointing=True))
    routers = [module for module in net.modules() if isinstance(module, Router)]
    assert [(r.top_k, r.choice.out_channels) for r in routers] == [(3, 4)] * 2
    assert net.checkpointing and not build_net(config).checkpointing
    assert net.reduce[0].in_channels == 32 and len(net.heads) == 1
    fewer = build_net(TINY.replace(num_experts=3, top_k=7))
    assert next(m for m in fewer.modules() if isinstance(m, Router)).top_k == 3


@pytest.mark.parametrize("best", [True, False])
def test_a_run_gives_its_best_weights_to_begin_with_or_its_last(tmp_path: Path, best: bool) -> None:
    run = Run(tmp_path)
    run.save("last", {"net": filled(TINY, 1.0), "ema": None})
    if best:
        run.save("best", {"net": filled(TINY, 2.0)})
    net = build_net(TINY.replace(init_from=str(tmp_path)))
    assert is_filled(net, 2.0 if best else 1.0)
    assert net.start == Start(True, f"--init-from {tmp_path}")


def test_no_hub_is_asked_where_weights_come_from_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From a run, or into an empty network that a checkpoint fills, whose files may be gone."""
    asked: list[Any] = []
    whole = build.CamoXpert

    def made(*args: Any, **how: Any) -> Any:
        asked.append((how["pretrained"], how["weights"]))
        return whole(*args, **how | {"pretrained": False})

    monkeypatch.setattr(build, "CamoXpert", made)
    monkeypatch.setattr(build, "find_weights", lambda name: "")
    Run(tmp_path).save("best", {"net": filled(TINY, 2.0)})
    asked.clear()
    build_net(TINY.replace(pretrained=True))
    build_net(TINY.replace(pretrained=True, init_from=str(tmp_path)))
    gone = dataclasses.replace(TINY, weights="gone.pth", init_from="gone", pretrained=True)
    build_net(gone, empty=True)
    assert asked == [(True, ""), (False, ""), (False, "")]


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"pretrained": True}, (True, "found/resnet18")),
        ({"pretrained": True, "weights": "own.pth"}, (True, "own.pth")),
        ({"pretrained": False}, (False, "")),
        ({"pretrained": False, "weights": "own.pth"}, (False, "own.pth")),
    ],
)
def test_weights_that_lie_ready_are_taken_where_none_are_named(
    change: dict[str, Any], asked: tuple[bool, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def made(name: str, *, weights: str, pretrained: bool, **_: Any) -> None:
        raise Asked(name, (pretrained, weights))

    monkeypatch.setattr(build, "CamoXpert", made)
    monkeypatch.setattr(build, "find_weights", lambda name: f"found/{name}")
    config = dataclasses.replace(TINY, backbone="resnet18", **change)
    with pytest.raises(Asked) as caught:
        build_net(config)
    assert caught.value.args == ("resnet18", asked)


@pytest.mark.parametrize("key", ["net", "model_state_dict", "model", "state_dict", ""])
def test_a_checkpoint_is_begun_from_whatever_its_weights_are_called(
    tmp_path: Path, key: str
) -> None:
    """A file of weights alone too, and with what a parallel wrapper puts before each name."""
    weights = {f"module.{name}": value for name, value in filled(TINY, 4.0).items()}
    torch.save({key: weights, "epoch": 3} if key else weights, tmp_path / "begun.pt")
    net = build_net(TINY.replace(init_from=str(tmp_path / "begun.pt")))
    assert is_filled(net, 4.0)
    assert net.start == Start(True, f"--init-from {tmp_path / 'begun.pt'}")


def test_the_first_of_several_weights_is_the_networks(tmp_path: Path) -> None:
    """What stands under a name and is no dictionary is passed over."""
    both = {"net": filled(TINY, 5.0), "model": filled(TINY, 6.0), "state_dict": 7}
    torch.save(both, tmp_path / "one.pt")
    torch.save({**both, "net": "a name"}, tmp_path / "two.pt")
    for name, number in (("one", 5.0), ("two", 6.0)):
        assert is_filled(build_net(TINY.replace(init_from=str(tmp_path / f"{name}.pt"))), number)


def test_weights_that_do_not_fit_are_counted_and_three_of_each_are_named() -> None:
    net = nn.Sequential(*(nn.Linear(2, 1, bias=False) for _ in range(9)))
    weights = {f"{place}.weight": torch.zeros(1, 2) for place in range(4, 8)}
    weights |= {f"{place}.weight": torch.zeros(2, place) for place in (0, 1, 2, 3)}
    weights |= {f"old.{letter}": torch.zeros(1) for letter in "abcd"}
    del weights["4.weight"], weights["5.weight"]
    with pytest.raises(InputError) as caught:
        load_weights(net, weights, "runs/a/best.pt")
    assert str(caught.value) == (
        "runs/a/best.pt belongs to another network (3 missing there: 4.weight, 5.weight, "
        "8.weight; 4 unknown here: old.a, old.b, old.c; 4 other shape: 0.weight ((2, 0) there, "
        "(1, 2) here), 1.weight ((2, 1) there, (1, 2) here), 2.weight ((2, 2) there, (1, 2) "
        "here)). Use the --backbone, --num-experts, --width and --deep-supervision it was trained "
        "with; its config.json names them."
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"1.weight": None}, "1 missing there: 1.weight"),
        ({"2.weight": torch.zeros(1, 2)}, "1 unknown here: 2.weight"),
        ({"0.weight": torch.zeros(1, 3)}, "1 other shape: 0.weight ((1, 3) there, (1, 2) here)"),
    ],
)
def test_a_single_weight_that_does_not_fit_is_enough(change: dict[str, Any], said: str) -> None:
    net = nn.Sequential(*(nn.Linear(2, 1, bias=False) for _ in range(2)))
    weights = {**net.state_dict(), **change}
    with pytest.raises(InputError) as caught:
        load_weights(net, {name: x for name, x in weights.items() if x is not None}, "w.pt")
    assert str(caught.value).startswith(f"w.pt belongs to another network ({said}). Use the")


def test_a_file_that_holds_more_than_weights_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        load_weights(nn.Linear(1, 1), {"weight": torch.zeros(1, 1), "epoch": 3}, "some.pt")
    assert str(caught.value) == (
        "some.pt holds other things than weights: give a run or its best.pt."
    )


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_an_older_network_are_answered_with_the_version_that_reads_them(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "__version__", "7.8")
    old = {f"{prefix}stages.0.mixture.router.weight": torch.zeros(1)}
    for read in (check_version, lambda *of: load_weights(nn.Linear(1, 1), *of)):
        with pytest.raises(InputError) as caught:
            read(old, "old/best.pt")
        assert str(caught.value) == (
            "old/best.pt was trained with camoxpert_nb 0.1, whose network had a mixture of experts "
            "at each of four levels; 7.8 has two, with gates for each place. Install that version "
            "to go on with it, score it or export it, or train anew with this one."
        )
    check_version({"levels.0.mixture.router.weight": torch.zeros(1)}, "new/best.pt")


def test_a_runs_weights_of_another_network_are_named_by_their_file(tmp_path: Path) -> None:
    run = Run(tmp_path)
    config = TINY.replace(width=32).as_dict()
    run.save("best", {"net": filled(TINY, 1.0), "config": config})
    with pytest.raises(InputError) as caught:
        load_run(run)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'best.pt'} belongs to another network (")
    run.save("last", {"net": filled(TINY, 1.0)})
    with pytest.raises(InputError, match=rf"^{tmp_path / 'last.pt'}: holds no settings beside"):
        load_run(run, "last")


def test_a_run_is_loaded_where_the_weights_it_began_with_are_gone(tmp_path: Path) -> None:
    """What it began with is in config.json still: a file, another run, or the hub."""
    run, gone = Run(tmp_path), {"weights": str(tmp_path / "gone.pth"), "pretrained": True}
    run.save("best", {"net": filled(TINY, 3.0), "config": TINY.as_dict() | gone})
    net, config = load_run(run)
    assert is_filled(net, 3.0) and config.weights == gone["weights"]
    assert net.start == (False, "none: trains from scratch (no weights were asked for)")


def test_the_best_weights_are_loaded_on_the_cpu_unless_others_are_asked_for(tmp_path: Path) -> None:
    run, config = Run(tmp_path), TINY.as_dict()
    names = {"last": 1.0, "best": 3.0, "best-epoch012-iou0.5000": 2.0}
    for name, number in names.items():
        run.save(name, {"net": filled(TINY, number), "config": config})
    assert is_filled(load_net(run), 3.0) and is_filled(load_run(run)[0], 3.0)
    assert is_filled(load_net(run, "last"), 1.0) and is_filled(load_net(run, "12"), 2.0)
    assert {each.device.type for each in load_net(run).parameters()} == {"cpu"}
    there: list[Any] = []

    class Placed(Run):
        def load(self, name: str = "last", device: Any = "cpu") -> dict[str, Any]:
            there.append((name, device))
            return super().load(name, "cpu")

    for load in (load_net, load_run):
        load(Placed(tmp_path))
        load(Placed(tmp_path), "last", torch.device("cpu", 0))
    assert there == [("best", "cpu"), ("last", torch.device("cpu", 0))] * 2


@pytest.mark.parametrize(
    ("which", "ema", "number"), [("best", None, 3.0), ("last", None, 1.0), ("last", 2.0, 2.0)]
)
def test_a_run_predicts_with_the_weights_asked_for(
    tmp_path: Path, which: str, ema: float | None, number: float
) -> None:
    """Of the last save the average, if there is one; with the settings they were made with."""
    run, config = Run(tmp_path), TINY.replace(epochs=9)
    average = None if ema is None else filled(TINY, ema)
    run.save("last", {"net": filled(TINY, 1.0), "ema": average, "config": config.as_dict()})
    run.save("best", {"net": filled(TINY, 3.0), "config": config.as_dict()})
    net, found = load_run(run, which)
    assert is_filled(net, number) and found == config
    assert not any(module.training for module in net.modules())


def test_each_module_gets_its_own_mode_back() -> None:
    net = build_net(TINY).train()
    net.backbone.eval()
    net.heads[0].eval()
    before = [module.training for module in net.modules()]
    with pytest.raises(ValueError), evaluating(net):
        assert not any(module.training for module in net.modules())
        raise ValueError
    assert [module.training for module in net.modules()] == before
    assert {*before} == {True, False}
