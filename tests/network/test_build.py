"""From settings or files to a network: which weights, and what each setting makes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from camoxpert_nb.network import build
from camoxpert_nb.network.backbone import Start
from camoxpert_nb.network.build import build_net, evaluating, load_run
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
