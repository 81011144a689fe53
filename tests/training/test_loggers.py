"""Where a training's numbers go: the table, TensorBoard and W&B, which are guests."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from equal_runs import stop_after

from camoxpert_nb.errors import InputError
from camoxpert_nb.runs.run import Onlooker, Run
from camoxpert_nb.settings.checks import log_names
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training import loggers
from camoxpert_nb.training.fit import fit
from camoxpert_nb.training.resume import resumed_config

HERE = Path(__file__).parents[2]


def has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


class Writer:
    """A stand-in for TensorBoard's SummaryWriter."""

    made: list[Writer] = []  # noqa: RUF012
    fails_after = 10**9

    def __init__(self, log_dir: str, purge_step: int) -> None:
        self.log_dir, self.purge_step, self.closed, self.flushed = log_dir, purge_step, 0, 0
        self.scalars: list[tuple[str, float, int]] = []
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if len(self.scalars) >= Writer.fails_after:
            raise OSError("no space left\nin the second line")
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> type[Writer]:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "made", [])
    monkeypatch.setattr(Writer, "fails_after", 10**9)
    return Writer


class FakeWandb(types.ModuleType):
    """A stand-in for W&B that records how it was called."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.inits: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.finished = 0
        self.refuses: tuple[str, ...] = ()
        self.config = self

    def Settings(self, **how: Any) -> dict[str, Any]:
        return how

    def init(self, **how: Any) -> FakeWandb:
        self.inits.append(how)
        if how["mode"] in self.refuses:
            raise ConnectionError("the server does not answer")
        return self

    def update(self, values: dict[str, Any], allow_val_change: bool) -> None:
        assert allow_val_change
        self.settings = values

    def log(self, values: dict[str, float], step: int) -> None:
        self.rows.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return fake


def notes(run: Run) -> list[str]:
    return [record["message"] for record in run.records("note")]


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("csv", ("csv",)),
        ("", ()),
        ("none", ()),
        ("tensorboard,wandb", ("tensorboard", "wandb")),
        (" TensorBoard , CSV,", ("tensorboard", "csv")),
        ("wandb;wandb", ("wandb",)),
    ],
)
def test_loggers_are_named_with_commas(text: str, names: tuple[str, ...]) -> None:
    assert log_names(text) == names
    assert Config(log=text).log == text


def test_an_unknown_logger_is_refused_with_what_is_meant() -> None:
    with pytest.raises(InputError, match=r"--log names 'tensorbord'.*did you mean tensorboard\?"):
        Config(log="csv,tensorbord")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_said_before_anything_begins(
    tiny: Config, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = loggers.NEEDS[name][0]
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(InputError, match=rf"(?s)--log {name} needs .*`pip install {name}`"):
        fit(tiny.replace(log=name))
    assert not Path(tiny.checkpoint_dir).exists()


def test_a_folder_of_that_name_is_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))  # as RUN/wandb would be
    with pytest.raises(InputError, match="is not here"):
        loggers.require("wandb")


def test_packages_that_do_not_fit_each_other_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise TypeError("Descriptors cannot be created directly.\nmore")

    monkeypatch.setattr(loggers.importlib, "import_module", broken)
    with pytest.raises(InputError, match="pip install --upgrade tensorboard") as caught:
        loggers.require("csv,tensorboard")
    assert "\n" not in str(caught.value)


# -- the table ---------------------------------------------------------------------------------


def test_every_run_has_a_table_of_its_epochs(tiny: Config) -> None:
    run = fit(tiny.replace(log="none"))
    table = pd.read_csv(run.folder / "history.csv")
    records = run.records("epoch")
    assert table["epoch"].tolist() == [1, 2]
    assert table["iou"].tolist() == [record["iou"] for record in records]
    assert table["lr/head"].tolist() == [record["lr"]["head"] for record in records]
    assert table["weighted/deep"].tolist() == [record["weighted"]["deep"] for record in records]


def test_the_table_is_renewed_as_soon_as_a_run_goes_on(tiny: Config) -> None:
    run = fit(tiny)
    lines = (run.folder / "history.csv").read_text().splitlines()
    (run.folder / "history.csv").write_text("\n".join([*lines, "7" + "," * lines[0].count(",")]))
    seen: list[list[int]] = []

    def look(training: Any) -> None:
        seen.append([])

    def report(record: dict[str, Any]) -> None:
        if record["kind"] == "step" and len(seen) == 1:
            seen.append(pd.read_csv(run.folder / "history.csv")["epoch"].tolist())

    fit(resumed_config(run.folder, {"epochs": 3}), resume=True, announce=look, report=report)
    assert seen[1] == [1, 2]
    assert pd.read_csv(run.folder / "history.csv")["epoch"].tolist() == [1, 2, 3]


def test_a_table_that_another_program_holds_ends_nothing(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: Run) -> None:
        raise PermissionError(13, "The process cannot access the file", "history.csv")

    monkeypatch.setattr(loggers, "write_table", fail)
    run = fit(tiny)
    assert run.load_json("summary")["finished"]
    (said,) = [each for each in notes(run) if "csv" in each]
    assert "PermissionError" in said
    assert "training goes on" in said


# -- TensorBoard -------------------------------------------------------------------------------


def test_tensorboard_gets_every_step_and_epoch(tiny: Config, tensorboard: type[Writer]) -> None:
    steps: list[dict[str, Any]] = []
    run = fit(tiny.replace(log="csv,tensorboard"), report=steps.append)
    (writer,) = tensorboard.made
    assert writer.log_dir == str(run.folder / "tensorboard")
    assert writer.purge_step == 1
    assert (writer.flushed, writer.closed) == (2, 1)
    steps = [record for record in steps if record["kind"] == "step"]
    found = [(value, step) for name, value, step in writer.scalars if name == "step/loss"]
    assert found == [(record["loss"], record["step"]) for record in steps]
    epochs = run.records("epoch")
    for name, value in (("iou", "iou"), ("val_loss", "val_loss"), ("train_iou", "train_iou")):
        found = [(x, step) for tag, x, step in writer.scalars if tag == f"epoch/{name}"]
        assert found == [(record[value], record["step"]) for record in epochs]
    tags = {name for name, _, _ in writer.scalars}
    assert {"step/lr/head", "epoch/weighted/deep", "epoch/gates/0/0"} <= tags
    assert not tags & {"step/step", "step/time", "epoch/stage", "step/kind"}


def test_tensorboard_purges_what_a_resumed_run_does_again(
    tiny: Config, tensorboard: type[Writer]
) -> None:
    config = tiny.replace(log="tensorboard")
    fit(config, report=stop_after(3))
    fit(config, resume=True)
    first, second = tensorboard.made
    assert second.purge_step == 4
    steps = [step for w in (first, second) for name, _, step in w.scalars if name == "step/loss"]
    assert steps == sorted(set(steps))


def test_a_logger_that_fails_is_said_once_and_ends_nothing(
    tiny: Config, tensorboard: type[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "fails_after", 5)
    run = fit(tiny.replace(log="tensorboard"))
    assert run.load_json("summary")["finished"]
    (said,) = [each for each in notes(run) if "tensorboard" in each]
    assert "--log tensorboard failed (OSError: no space left); training goes on" in said
    assert (run.folder / "history.csv").exists()


def test_a_logger_that_does_not_start_ends_nothing(
    tiny: Config, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb.refuses = ("offline",)
    run = fit(tiny.replace(log="wandb"))
    assert run.load_json("summary")["finished"]
    assert sum("--log wandb failed" in each for each in notes(run)) == 1


@pytest.mark.skipif(not has("tensorboard"), reason="the package tensorboard is not installed")
def test_the_event_files_hold_each_step_once(tiny: Config) -> None:
    """Written and read back in a process of its own: the real package warns about much."""
    code = f"""
import os, sys
sys.path.insert(0, {str(HERE / "tests")!r})
from equal_runs import stop_after
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
config = Config(**{tiny.replace(log="tensorboard", epochs=3).as_dict()!r})
fit(config, report=stop_after(8))
# what a process that was killed had written after its last save
from torch.utils.tensorboard import SummaryWriter
dead = SummaryWriter(config.checkpoint_dir + "/tensorboard")
for step in (9, 10):
    dead.add_scalar("step/loss", -1.0, step)
dead.close()
run = fit(config, resume=True)
events = EventAccumulator(config.checkpoint_dir + "/tensorboard", size_guidance=dict(scalars=0))
events.Reload()
steps = events.Scalars("step/loss")
assert [each.step for each in steps] == list(range(1, run.newest()["step"] + 1)), steps
assert all(each.value > 0 for each in steps)
epochs = events.Scalars("epoch/iou")
assert [each.step for each in epochs] == [each["step"] for each in run.records("epoch")]
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# -- W&B ---------------------------------------------------------------------------------------


def test_wandb_is_offline_without_a_login_and_keeps_its_id(tiny: Config, wandb: FakeWandb) -> None:
    config = tiny.replace(log="wandb")
    run = fit(config, report=stop_after(3))
    fit(config, resume=True)
    first, second = wandb.inits
    assert first["mode"] == second["mode"] == "offline"
    assert first["id"] == second["id"] == run.load_json("wandb")["id"]
    assert first["resume"] == "allow"
    assert first["dir"] == str(run.folder)
    assert wandb.finished == 2
    assert wandb.settings["epochs"] == tiny.epochs
    steps = [step for step, values in wandb.rows if "step/loss" in values]
    assert steps == list(range(1, run.newest()["step"] + 1))
    assert sum("epoch/iou" in values for _, values in wandb.rows) == 2
    assert any("wandb sync" in each for each in notes(run))


def test_the_mode_that_the_environment_names_is_left_to_wandb(
    tiny: Config, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    fit(tiny.replace(log="wandb"))
    assert wandb.inits[0]["mode"] is None


def test_wandb_goes_on_offline_where_its_server_fails(
    tiny: Config, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "can_log_in", lambda: True)
    wandb.refuses = ("online",)
    run = fit(tiny.replace(log="wandb"))
    assert [how["mode"] for how in wandb.inits] == ["online", "offline"]
    assert any("ConnectionError: the server does not answer" in each for each in notes(run))


def test_a_login_is_a_key_or_a_line_in_netrc_and_a_server_that_answers(
    wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert not loggers.can_log_in()
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        assert loggers.can_log_in()
        monkeypatch.delenv("WANDB_API_KEY")
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login user password 1234\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        assert loggers.can_log_in()
    assert not loggers.can_log_in()  # nobody answers any more


@pytest.mark.skipif(not has("wandb"), reason="the package wandb is not installed")
def test_the_real_wandb_keeps_two_sessions_offline_under_one_id(tiny: Config) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(HERE / "tests")!r})
from equal_runs import stop_after
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit
config = Config(**{tiny.replace(log="wandb").as_dict()!r})
fit(config, report=stop_after(3))
run = fit(config, resume=True)
print([each["message"] for each in run.records("note")])
assert not any("failed" in each["message"] for each in run.records("note"))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    environment |= {"WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = Path(tiny.checkpoint_dir)
    identity = Run(folder).load_json("wandb")["id"]
    kept = list((folder / "wandb").glob(f"offline-run-*-{identity}"))
    assert len(kept) == 2


# -- whole sentences, without a training -----------------------------------------------------------


class Heard:
    """Collects what is reported."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def __call__(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    @property
    def notes(self) -> list[tuple[int, str]]:
        return [(r["step"], r["message"]) for r in self.records if r["kind"] == "note"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = Run(tmp_path / "my run")
    found.folder.mkdir()
    return found


def test_wandb_is_told_all_that_it_needs(
    tiny: Config, wandb: FakeWandb, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    loggers.Loggers(run, tiny.replace(log="wandb"), 4, heard).close()
    identity = run.load_json("wandb")["id"]
    how = {
        "id": identity,
        "resume": "allow",
        "project": "camoxpert",
        "name": "my run",
        "dir": str(run.folder),
        "settings": {"console": "off", "silent": True},
        "mode": "offline",
    }
    assert wandb.inits == [how] and len(identity) == 8 and wandb.finished == 1
    assert wandb.settings == tiny.replace(log="wandb").as_dict()
    offline = f"W&B is offline; to send it: `wandb sync {run.folder / 'wandb'}/offline-run-*`"
    assert heard.notes == [(4, offline)]
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setattr(loggers, "can_log_in", lambda: True)
    wandb.inits, wandb.refuses, heard = [], ("online",), Heard()
    loggers.Loggers(run, tiny.replace(log="wandb"), 5, heard)
    assert wandb.inits == [
        how | {"project": "mine", "mode": "online"},
        how | {"project": "mine"},
    ]
    reason = "ConnectionError: the server does not answer"
    assert heard.notes == [
        (5, f"W&B cannot be reached ({reason}), so this run is kept offline"),
        (5, offline),
    ]
    wandb.refuses, heard = ("online", "offline"), Heard()
    loggers.Loggers(run, tiny.replace(log="wandb"), 6, heard)
    assert heard.notes[1:] == [
        (6, f"--log wandb failed ({reason}); training goes on. It gets nothing more until the run "
            "is resumed")
    ]  # fmt: skip


def test_a_logger_that_fails_is_left_out_and_the_table_is_not(
    tiny: Config, tensorboard: type[Writer], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, tables = Heard(), list[int]()

    def table(of: Run) -> None:
        tables.append(len(tables))
        if len(tables) > 1:
            raise PermissionError(13, "in use")

    monkeypatch.setattr(loggers, "write_table", table)
    monkeypatch.setattr(tensorboard, "fails_after", 1)
    found = loggers.Loggers(run, tiny.replace(log="tensorboard"), 2, heard)
    step = {"kind": "step", "step": 3, "loss": 0.5}
    for record in (step, step, step, {"kind": "epoch", "step": 4, "iou": 0.5}, {"kind": "note",
                   "step": 4, "message": "own"}):  # fmt: skip
        found.report(record)
    found.report({"kind": "epoch", "step": 5, "iou": 0.5})
    found.close()
    (writer,) = tensorboard.made
    assert writer.scalars == [("step/loss", 0.5, 3)] and writer.purge_step == 3
    assert len(tables) == 3  # at the begin, and where an epoch ends
    assert heard.notes == [
        (3, "--log tensorboard failed (OSError: no space left); training goes on. It gets nothing "
            "more until the run is resumed"),
        (4, "--log csv failed (PermissionError: [Errno 13] in use); training goes on. It is "
            "renewed at the next epoch's end; close the program that holds it"),
        (4, "own"),
    ]  # fmt: skip


def test_the_processes_beside_the_first_log_nothing(tiny: Config, run: Run) -> None:
    heard = Heard()
    found = loggers.Loggers(Onlooker(run.folder), tiny, 0, heard)
    found.report({"kind": "epoch", "step": 1, "iou": 0.5})
    found.close()
    assert len(heard.records) == 1 and list(run.folder.iterdir()) == []


def test_a_package_that_is_missing_or_does_not_fit_is_told_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave = "or leave it out of --log: history.csv is written anyway."
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError) as caught:
        loggers.require("csv,wandb")
    assert str(caught.value) == (
        "--log wandb needs the package wandb, which is not here. Install it: `pip install wandb`, "
        f"{leave}"
    )

    def broken(name: str) -> None:
        raise ImportError("no module of numpy", name="numpy")

    monkeypatch.setattr(loggers.importlib, "import_module", broken)
    with pytest.raises(InputError) as caught:
        loggers.require("tensorboard")
    assert str(caught.value) == (
        "--log tensorboard: the package tensorboard cannot be loaded (ImportError: no module of "
        f"numpy). Renew it: `pip install --upgrade tensorboard`, {leave}"
    )
    loggers.require("csv")


def test_numbers_have_tags_by_kind_and_place() -> None:
    record = {
        "kind": "epoch", "time": 1.0, "step": 3, "steps": 9, "stage": "one", "iou": 0.5,
        "lr": {"head": 0.25}, "gates": [[0.1, 0.9]],
    }  # fmt: skip
    assert loggers.scalars(record) == {
        "epoch/iou": 0.5,
        "epoch/lr/head": 0.25,
        "epoch/gates/0/0": 0.1,
        "epoch/gates/0/1": 0.9,
    }


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("first\nsecond"), "OSError: first"),
        (ValueError(" "), "ValueError: no reason given"),
    ],
)
def test_of_an_error_the_first_line_is_told(error: Exception, said: str) -> None:
    assert loggers._gist(error) == said


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("", ("api.wandb.ai", 443)),
        ("http://here", ("here", 80)),
        ("https://here:8443", ("here", 8443)),
        ("nothing", ("api.wandb.ai", 443)),
    ],
)
def test_the_server_is_asked_at_its_own_port_for_three_seconds(
    wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch, url: str, asked: tuple[str, int]
) -> None:
    seen: list[Any] = []

    def connect(*how: Any) -> Any:
        seen.append(how)
        return types.SimpleNamespace(close=lambda: None)

    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(loggers.socket, "create_connection", connect)
    assert loggers.can_log_in()
    assert seen == [(asked, 3.0)]
