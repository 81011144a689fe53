"""The dashboard on folders of every kind, without a front end and without a training."""

from __future__ import annotations

import gc
import html
import json
import os
import platform
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated import fabricated

from camoxpert_nb.kaggle.earlier import how_to_go_on
from camoxpert_nb.notebook import dashboard as dashboards
from camoxpert_nb.notebook.dashboard import BUTTONS, Dashboard
from camoxpert_nb.runs import run as runs
from camoxpert_nb.runs.process import tail
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import make_config

NOBODY = 2**22 + 1  # no process has this number


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboards, "FASTEST", 0.05)
    monkeypatch.setattr(dashboards, "SLOWEST", 0.2)


def folder_with(
    path: Path, epochs: int = 0, end: str = "", process: dict[str, Any] | None = None
) -> Run:
    """A run folder as a training leaves it."""
    run = Run(path)
    path.mkdir(parents=True, exist_ok=True)
    if epochs:
        make_config("tiny", epochs=epochs, checkpoint_dir=str(path)).save(run.config_path)
        records = fabricated(epochs) + (
            [{"kind": end, "time": 2e9, "step": 20 * epochs}] if end else []
        )
        text = "".join(json.dumps(record) + "\n" for record in records)
        run.history_path.write_text(text, encoding="utf-8")
    if process:
        run.save_process(process)
    return run


MINE = {"trainer": os.getpid(), "host": platform.node()}
GONE = {"trainer": NOBODY, "host": platform.node()}


def test_every_kind_of_folder_is_told(tmp_path: Path) -> None:
    kinds = {
        "empty": folder_with(tmp_path / "empty"),
        "running": folder_with(tmp_path / "running", 3, process=MINE),
        "paused": folder_with(tmp_path / "paused", 3, process=MINE),
        "stopping": folder_with(tmp_path / "stopping", 3, process=MINE),
        "stopped": folder_with(tmp_path / "stopped", 3, "stop"),
        "finished": folder_with(tmp_path / "finished", 3, "end"),
        "died": folder_with(tmp_path / "died", 3, process=GONE),
    }
    kinds["paused"].request("pause")
    kinds["stopping"].request("stop")
    enabled = {
        "running": {"Pause", "Save", "Stop"},
        "paused": {"Resume", "Save", "Stop"},
        "stopped": {"Resume"},
        "died": {"Resume"},
    }
    for name, run in kinds.items():
        dashboard = Dashboard(run)
        assert dashboard.status.name == name
        assert f": {name}" in str(dashboard)
        bundle = dashboard._repr_mimebundle_()
        assert ("text/html" in bundle) == (name in ("stopped", "finished", "died"))
        if name == "finished":  # nothing to press any more
            assert not dashboard._widgets
            continue
        assert (dashboard._widgets["again"].layout.display == "") == (name in ("stopped", "died"))
        free = {button for button in BUTTONS if not dashboard._widgets[button].disabled}
        assert free == enabled.get(name, set())
        dashboard.close()


@pytest.mark.parametrize("left", ["failure", "stderr", "nothing"])
def test_a_dead_runs_cause_is_shown_with_a_way_on(left: str, tmp_path: Path) -> None:
    run = folder_with(tmp_path, 2, process=GONE if left == "nothing" else None)
    cause = "killed without a word"
    if left == "failure":
        cause = "out of GPU memory <b>: try --batch-size 4"
        run.save_json("failure", {"kind": "TrainingError", "message": cause})
    elif left == "stderr":
        cause = "ValueError: something <b> broke"
        (tmp_path / "stderr.txt").write_text(f"Traceback\n  line\n{cause}\n")
    (tmp_path / "last.pt").touch()
    dashboard = Dashboard(run)
    assert dashboard.status.name == "died"
    assert cause in str(dashboard)
    assert f"camoxpert resume {run.folder}" in str(dashboard)
    assert "<b> broke" not in dashboard._page() and "<b>:" not in dashboard._page()


def test_an_old_complaint_is_not_the_cause_of_a_later_death(tmp_path: Path) -> None:
    (tmp_path / "stderr.txt").write_text("UserWarning: of long ago")
    os.utime(tmp_path / "stderr.txt", (1e9, 1e9))
    assert "long ago" not in str(Dashboard(folder_with(tmp_path, 2, process=GONE)))


def test_a_run_on_another_machine_lives_while_it_writes(tmp_path: Path) -> None:
    run = folder_with(tmp_path, 2, process={"trainer": 7, "host": "elsewhere"})
    assert Dashboard(run).status.name == "died"
    run.log("step", **{k: v for k, v in fabricated(1)[1].items() if k not in ("kind", "time")})
    assert Dashboard(run).status.name == "running"


def test_a_starting_process_is_not_mistaken_for_a_stranger(tmp_path: Path) -> None:
    run = folder_with(tmp_path)
    run.save_process({"pid": 1, "host": platform.node(), "started": time.time()})
    assert Dashboard(run).status.name == "died"  # process 1 is none of ours


def test_the_line_says_where_the_training_is(tmp_path: Path) -> None:
    run = folder_with(tmp_path, 5, process=MINE)
    lines = run.history_path.read_text().splitlines()
    run.history_path.write_text("\n".join(lines[:64]) + "\n")  # half a step into epoch 4
    line = str(Dashboard(run))
    assert "epoch 3 of 5" in line and "step 60 of 100" in line and "80 images/s" in line
    assert "0:00:40 left" in line  # one step a second
    assert "best validation IoU 0.480 (epoch 3), target 0.72" in line


@pytest.mark.parametrize(
    ("lock", "end", "name"),
    [(os.getpid(), "", "running"), (NOBODY, "", "died"), (0, "end", "finished"), (0, "", "died")],
    ids=["mine", "nobody's", "none, ended", "none"],
)
def test_a_run_that_an_older_kit_left_is_understood(
    lock: int, end: str, name: str, tmp_path: Path
) -> None:
    run, here = folder_with(tmp_path, 2, end), {"host": platform.node()}
    run.save_json("process", {"pid": NOBODY, "started": 5.0, **here})
    run.save_json("launch", {"epochs": 2})
    if lock:
        run.save_json("lock", {"pid": lock, **here})
    dashboard = Dashboard(run)
    assert dashboard.status.name == name
    assert dashboard.status.pid == (lock if name == "running" else None)
    assert ("killed without a word" in dashboard.status.cause) == (lock == NOBODY)
    if name != "running":
        with run.locked():  # what the older kit left is forgotten
            assert dashboard.run.training_pid() == os.getpid()
        assert not (tmp_path / "lock.json").exists()


def test_a_look_costs_what_is_new_not_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder_with(tmp_path, 500, process=MINE)
    dashboard = Dashboard(run)
    parsed: list[Any] = []
    loads = json.loads
    monkeypatch.setattr(runs.json, "loads", lambda text: parsed.append(text) or loads(text))
    run.log("step", **{k: v for k, v in fabricated(1)[1].items() if k not in ("kind", "time")})
    assert dashboard.refresh()
    assert len([text for text in parsed if b"kind" in bytes(str(text), "utf-8")]) == 1
    parsed.clear()
    assert not dashboard.refresh()


def preview(size: int = 32) -> dict[str, Any]:
    zeros = np.zeros((2, size, size), np.uint8)
    image = np.zeros((2, size, size, 3), np.uint8)
    return {"names": np.array(["a", "b"]), "image": image, "mask": zeros, "probability": zeros}


def test_the_strip_is_drawn_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder_with(tmp_path, 2, process=MINE)
    draws: list[int] = []
    monkeypatch.setattr(dashboards, "live_images", lambda arrays: draws.append(1) or "strip")
    dashboard = Dashboard(run)
    run.save_preview(preview())
    for _ in range(3):
        dashboard.refresh()
    assert len(draws) == 1
    run.save_preview(preview(48))
    dashboard.refresh()
    assert len(draws) == 2


def test_a_long_run_leaves_a_small_notebook(tmp_path: Path) -> None:
    run = folder_with(tmp_path, 50, "end")
    rng = np.random.default_rng(0)
    noisy = {key: rng.integers(0, 255, (12, 320, 320), np.uint8) for key in ("mask", "probability")}
    image = rng.integers(0, 255, (12, 320, 320, 3), np.uint8)
    run.save_preview({"names": np.array(list("abcdefghijkl")), "image": image, **noisy})
    (tmp_path / "log.txt").write_text("<script>\n" * 1000)
    page = Dashboard(run)._page()
    assert len(page) < 1_000_000
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count('role="img"') == 8 and "best, epoch 50" in page


def test_many_dashboards_on_a_run_share_one_panel_which_ends_with_it(tmp_path: Path) -> None:
    run = folder_with(tmp_path, 2, process=MINE)
    threads = threading.active_count()
    many = [Dashboard(run), *(Dashboard(tmp_path) for _ in range(9))]
    views = [str(dashboard._repr_mimebundle_()) for dashboard in many]
    assert len(set(views)) == 1 and threading.active_count() == threads + 1
    assert not any(dashboard._widgets for dashboard in many[1:])
    panel = many[0]
    panel._widgets["Pause"].click()
    wait_until(lambda: "paused" in panel._widgets["head"].value)
    panel._widgets["Resume"].click()
    wait_until(lambda: "running" in panel._widgets["head"].value)
    run.log("end", step=40)
    run.save_process({})
    wait_until(lambda: "finished" in panel._widgets["head"].value)
    wait_until(lambda: not panel._thread.is_alive())

    models = len(widgets_alive())
    many[3].close()
    assert not panel._widgets and len(widgets_alive()) < models - 20


def widgets_alive() -> dict[str, Any]:
    import ipywidgets

    return dict(getattr(ipywidgets.widgets.widget, "_instances", {}))


class Handle:
    """An output of a cell, as IPython hands it out."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, Any]] = []

    def update(self, bundle: dict[str, Any], raw: bool) -> None:
        self.bundles.append(bundle)


def test_a_saved_notebook_holds_the_end_and_the_panel_comes_back(tmp_path: Path) -> None:
    run = folder_with(tmp_path, 3, process=MINE)
    dashboard, panel, table = Dashboard(run), Handle(), Handle()
    dashboard._repr_mimebundle_()
    dashboard._outputs.append(panel)
    kept = dashboard.table()
    kept._handle = table
    dashboard.keep(kept)
    assert "application/vnd" in str(dashboard._bundle())
    run.log("stop", step=40)
    run.save_process({})
    wait_until(lambda: panel.bundles and table.bundles)
    assert set(panel.bundles[-1]) == {"text/plain", "text/html"}
    assert "stopped" in panel.bundles[-1]["text/plain"]
    page = panel.bundles[-1]["text/html"]
    assert page.count("data:image/svg+xml") == 8 and "<svg" not in page and "<table" in page
    assert "images/s" in table.bundles[-1]["text/plain"]
    assert dashboard._widgets["again"].layout.display == ""

    run.save_process({**MINE, "started": 3e9})  # it goes on
    dashboard.refresh()
    dashboard._settle()
    assert "application/vnd" in str(panel.bundles[-1])
    assert dashboard._widgets["again"].layout.display == "none"
    dashboard.close()


def test_what_cells_said_while_it_trained_is_true_after_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = folder_with(Path("runs") / "one", process=MINE)
    dashboard = Dashboard(run)
    parts = (dashboard.line(), dashboard.how_to_go_on(), dashboard.runs())
    handles = [Handle() for _ in parts]
    for kept, handle in zip(parts, handles, strict=True):
        kept._handle = handle
        dashboard.keep(kept)
        assert "follows when the training ends" in repr(kept)
    assert "there is nothing to do" in repr(parts[1]) and "resume" not in repr(parts[1])
    assert "runs/one: running" in repr(parts[0])
    folder_with(run.folder, 3, "end")
    run.save_process({})
    wait_until(lambda: all(handle.bundles for handle in handles))
    line, way, several = (handle.bundles[-1] for handle in handles)
    assert "runs/one: finished" in line["text/plain"] and "is finished" in way["text/plain"]
    assert "follows" not in str([line, way, several["text/plain"]])
    assert several.keys() == {"text/plain", "image/png"}  # a page prefers HTML to a picture


@pytest.mark.parametrize(
    ("asked", "said"),
    [("pause", "is paused"), ("stop", "is stopping"), ("save", "is training now")],
)
def test_nobody_is_told_to_start_a_run_that_lives(asked: str, said: str, tmp_path: Path) -> None:
    run = folder_with(tmp_path, 1, process=MINE)
    run.request(asked)
    text = how_to_go_on(run)
    assert said in text and "1 epoch is done" in text and "camoxpert resume" not in text


def test_parts_of_a_run_are_shown_as_far_as_there_are_any(tmp_path: Path) -> None:
    dashboard = Dashboard(folder_with(tmp_path, 0, process=MINE))
    for kept in (dashboard.table(), dashboard.figure()):
        assert "follows when the training ends" in repr(kept)
    assert "No log yet" in repr(dashboard.log())
    folder_with(tmp_path, 2)
    (tmp_path / "log.txt").write_text("<b>one</b>\ntwo\n")
    assert "image/png" in dashboard.figure().bundle()
    assert "&lt;b&gt;one" in dashboard.log().bundle()["text/html"]
    assert repr(dashboard.log(1)) == "two"


def test_a_log_begins_with_a_whole_line_and_is_folded_between_words(tmp_path: Path) -> None:
    dashboard = Dashboard(folder_with(tmp_path, 2))
    long = " ".join(f"word{number}" for number in range(150))
    (tmp_path / "log.txt").write_text(f"{long}\n" * 5 + "last line\n")
    assert "\n" + repr(dashboard.log(3)) + "\n" in "\n" + repr(dashboard.log(40)) + "\n"
    shown = repr(dashboard.log(3)).split("\n")
    assert shown[0].startswith("word0 ") and shown[-1] == "last line"
    assert all(len(line) <= 100 for line in shown)
    assert " ".join(shown) == f"{long} {long} last line"
    assert "word-break:normal" in dashboard.log().bundle()["text/html"]
    assert tail(tmp_path / "log.txt", 2) == [long, "last line"]
    dashboard.refresh()
    panel = re.findall(r">([^<]*)</pre>", dashboard._parts["log"])[0]
    assert max(map(len, panel.split("\n"))) <= 100 and "word149" in panel


def test_plain_text_has_no_marks_of_code(tmp_path: Path) -> None:
    for end in ("end", "stop"):
        run = folder_with(tmp_path / end, 2, end)
        (run.folder / "last.pt").touch()
        dashboard = Dashboard(run)
        assert "`" not in str(dashboard) and "camoxpert" in str(dashboard)
        assert "`" not in dashboard._page() and "<code>camoxpert" in dashboard._page()


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("end", ["stop", ""])
def test_only_where_there_are_buttons_are_they_spoken_of(
    end: str, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = folder_with(Path("runs/one"), 2, end)
    if saved:
        (run.folder / "last.pt").touch()
    dashboard = Dashboard(run)
    assert "ress Resume" in html.unescape(dashboard._page())
    for text in (str(dashboard), repr(dashboard.line())):
        assert "ress Resume" not in text and "Dashboard('runs/one').resume()" in text
    monkeypatch.setenv("CAMOXPERT_BATCH", "1")
    dashboard._repr_mimebundle_()
    assert "ress Resume" not in dashboard._page()
    assert "Dashboard('runs/one').resume()" in html.unescape(dashboard._page())


@pytest.mark.parametrize(
    ("kernel", "scorer"),
    [
        ("", "notebook 04_evaluate, or camoxpert evaluate --run runs/one."),
        ("me/camoxpert-03-train", "notebook 04_evaluate, or camoxpert evaluate --run runs/one."),
        ("me/camoxpert-train", "the cells below, or judge."),
        ("this notebook", "the cells below, or judge."),
    ],
)
def test_a_finished_run_names_what_scores_it_where_one_is(
    kernel: str, scorer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAMOXPERT_KERNEL", kernel)
    text = str(Dashboard(folder_with(Path("runs/one"), 2, "end")))
    assert text.endswith(f"Score them: {scorer}")


def test_the_button_to_go_on_stands_above_the_picture_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "IPython.display.display", lambda bundle, **_: shown.append(bundle) or Handle()
    )
    dashboard = Dashboard(folder_with(tmp_path, 3, "stop"))
    dashboard._ipython_display_()
    button, picture = shown
    again = dashboard._widgets["again"]
    assert button["application/vnd.jupyter.widget-view+json"]["model_id"] == again.model_id
    assert "stopped" in picture["text/html"] and len(dashboard._outputs) == 1
    dashboard.close()


@pytest.mark.parametrize("process", [MINE, None], ids=["running", "stopped"])
def test_a_folder_that_is_removed_is_told_and_its_curves_stay(
    process: dict[str, Any] | None, tmp_path: Path
) -> None:
    run = folder_with(tmp_path / "run", 3, "" if process else "stop", process=process)
    dashboard = Dashboard(run)
    before = dashboard._parts["curves"]
    shutil.rmtree(run.folder)
    dashboard.refresh()
    assert dashboard.status.name == "gone" and dashboard.status.ended
    assert "deleted or moved" in str(dashboard) and dashboard._parts["curves"] == before
    assert (f"Process {os.getpid()} still trains" in str(dashboard)) == bool(process)
    assert "There is no folder" in str(Dashboard(tmp_path / "run"))


@pytest.mark.parametrize("name", list(BUTTONS))
def test_a_double_click_leaves_no_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder_with(tmp_path, 2, "stop" if name == "Resume" else "", process=MINE)
    if name == "Resume":
        run.save_process({})
    spawned: list[int] = []
    spawn = lambda run, flags: spawned.append(1) or run.save_process(MINE)  # noqa: E731
    monkeypatch.setattr("camoxpert_nb.runs.process._spawn", spawn)
    dashboard = Dashboard(run)
    dashboard._repr_mimebundle_()
    for _ in range(2):
        dashboard._pressed(dashboard._widgets[name])
    assert dashboard._note == "" and len(spawned) == (name == "Resume")
    dashboard.close()


def test_a_dashboard_that_nobody_holds_ends_its_thread(tmp_path: Path) -> None:
    dashboard = Dashboard(folder_with(tmp_path, 2, process=MINE))
    dashboard._keep_fresh()
    thread = dashboard._thread
    assert isinstance(thread, threading.Thread) and thread.daemon and thread.is_alive()
    del dashboard
    gc.collect()
    wait_until(lambda: not thread.is_alive())


def test_a_button_that_fails_says_so_until_things_change(tmp_path: Path) -> None:
    dashboard = Dashboard(folder_with(tmp_path, 2, "stop"))
    dashboard._repr_mimebundle_()
    settings = dashboard.run.config_path.read_text()
    dashboard.run.config_path.unlink()
    dashboard._widgets["Resume"].click()
    assert "holds no run" in dashboard._widgets["head"].value
    dashboard.run.config_path.write_text(settings)
    dashboard.run.save_process({**MINE, "started": 3e9})
    dashboard.refresh()
    assert "holds no run" not in dashboard._widgets["head"].value


def test_an_interrupt_of_waiting_stops_the_training_and_a_second_one_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder_with(tmp_path, 2, process=MINE)
    dashboard = Dashboard(run)

    def end() -> None:
        assert run.wants("stop")
        run.log("stop", step=40)
        run.save_process({})

    def interrupt() -> None:
        raise KeyboardInterrupt

    pauses = iter([lambda: None, interrupt, lambda: None, end])
    monkeypatch.setattr(
        "camoxpert_nb.notebook.dashboard.time.sleep", lambda seconds: next(pauses)()
    )
    assert dashboard.wait().name == "stopped"

    run.save_process(MINE)
    pauses = iter([interrupt, interrupt])
    with pytest.raises(KeyboardInterrupt):
        dashboard.wait()
    assert run.wants("stop")


def test_where_nobody_presses_buttons_it_is_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMOXPERT_BATCH", "1")
    bundle = Dashboard(folder_with(tmp_path, 2, "end"))._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert "data:image/svg+xml" in bundle["text/html"] and "finished" in bundle["text/plain"]


def wait_until(true: Any, seconds: float = 10) -> None:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
