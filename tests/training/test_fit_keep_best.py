"""--keep-best: the best epochs of a training, also of one that was killed, and their use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from equal_runs import same, stop_after
from forked import Forked

from camoxpert_nb.errors import InputError
from camoxpert_nb.network.build import load_run
from camoxpert_nb.runs.best_epochs import best_epochs
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit


@pytest.fixture
def five(tiny: Config) -> Config:
    return tiny.replace(epochs=5, keep_best=2)


def kept(run: Run) -> dict[str, dict]:
    return {each.name: run.load(each.name) for each in best_epochs(run.folder)}


def judged(run: Run) -> dict[int, float]:
    """The validation IoU of the weights that were judged in each epoch; tiny has an average."""
    return {r["epoch"]: max(r["iou"], r["iou_ema"]) for r in run.records("epoch")}


def test_the_best_two_epochs_are_kept_and_can_be_used(five: Config) -> None:
    run = fit(five)
    scores = judged(run)
    for checkpoint in kept(run).values():
        assert checkpoint["iou"] in {
            run.records("epoch")[checkpoint["epoch"] - 1][key] for key in ("iou", "iou_ema")
        }
    assert len(kept(run)) == 2
    first = best_epochs(run.folder)[0]
    assert first.iou == round(max(scores.values()), 4)
    net, config = load_run(run, str(first.epoch))
    assert config == Config.load(run.config_path)
    weights = run.load(first.name)["net"]
    assert all(torch.equal(weights[key], value) for key, value in net.state_dict().items())
    missing = ({1, 2, 3, 4, 5} - {each.epoch for each in best_epochs(run.folder)}).pop()
    with pytest.raises(InputError, match=f"no checkpoint '{missing}'. It keeps epochs? "):
        load_run(run, str(missing))


def test_killed_between_the_two_files_of_an_epoch_and_resumed_equals_uninterrupted(
    five: Config, tmp_path: Path
) -> None:
    whole = kept(fit(five))
    for epoch in (2, 4):
        parts = five.replace(checkpoint_dir=str(tmp_path / f"killed-{epoch}"))
        parts.save(tmp_path / "config.json")
        dies = f"""
import os
from camoxpert_nb.runs.run import Run
save = Run.save
def until(self, name, state, *more, **named):
    if name == "last" and state["epoch"] == {epoch}:
        os.kill(os.getpid(), 9)
    save(self, name, state, *more, **named)
Run.save = until
"""
        command = ["train", "--config", str(tmp_path / "config.json")]
        code, said = Forked(command, tmp_path / "said.txt", dies).ends()
        assert code == -9, said
        run = Run(parts.checkpoint_dir)
        assert run.load("last")["epoch"] == epoch - 1
        (run.folder / "best-epoch009-iou0.9000.pt").write_bytes(b"of an epoch that is not done")
        (run.folder / "best-epoch004-iou0.1000.pt.part").write_bytes(b"half of one")
        found = kept(fit(parts, resume=True))
        assert [*found] == [*whole]
        for name, checkpoint in whole.items():
            assert same(found[name]["net"], checkpoint["net"]), name
        assert not list(run.folder.glob("*.part"))


def test_fewer_are_kept_from_a_resume_on_and_none_leaves_those_that_are_there(
    five: Config,
) -> None:
    run = fit(five.replace(keep_best=3), report=stop_after(50))
    before = [each.epoch for each in best_epochs(run.folder)]
    run = fit(five.replace(keep_best=0, epochs=6), resume=True)
    assert [each.epoch for each in best_epochs(run.folder)] == before
    run = fit(five.replace(keep_best=1, epochs=7), resume=True)
    assert len(best_epochs(run.folder)) == 1


def test_without_it_no_epoch_is_kept(tiny: Config) -> None:
    assert kept(fit(tiny)) == {}
