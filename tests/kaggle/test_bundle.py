"""The kit as it is uploaded, and its notebooks run in a folder that holds nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.errors import InputError
from camoxpert_nb.kaggle import bundle
from camoxpert_nb.kaggle.bootstrap import print_of
from camoxpert_nb.kaggle.bundle import build
from camoxpert_nb.kaggle.carried import READY
from camoxpert_nb.kaggle.rules import problems
from camoxpert_nb.kaggle.session import begin
from camoxpert_nb.runs.process import start
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.fit import fit

PACKAGE = Path(bundle.__file__).parents[1]
NOTEBOOKS = sorted(path.stem for path in (PACKAGE.parent / "notebooks").glob("*.ipynb"))
# What a Kaggle session has not: the project installed, and the network.
ALONE = f"""
import os, socket, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
wanted = os.environ["PYTHONPATH"].split(os.pathsep)
sys.path = [p for p in sys.path if p in wanted or p != {str(PACKAGE.parent)!r}]
connect = socket.socket.connect
def refuse(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
        raise OSError(f"tried to reach {{address}}")
    return connect(self, address)
socket.socket.connect = refuse
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("build")
    build("some-one", output, data=["an-owner/cod10k-dataset"])
    return output


def slug(stem: str) -> str:
    return "camoxpert-" + stem.removeprefix("camoxpert_").replace("_", "-")


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class TestFiles:
    def test_all_of_it_keeps_the_rules(self, built: Path) -> None:
        assert sorted(path.name for path in built.iterdir()) == [
            *NOTEBOOKS,
            "built.json",
            "camoxpert_predict",
            "camoxpert_train",
            "kit",
        ]
        folders = [path for path in built.iterdir() if path.is_dir()]
        assert [line for folder in folders for line in problems(folder)] == []

    def test_the_kit_holds_the_same_package_twice(self, built: Path) -> None:
        (wheel,) = (built / "kit").glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            packed = {name for name in files.namelist() if name.startswith("camoxpert_nb/")}
            for name in packed:
                assert files.read(name) == (built / "kit" / name).read_bytes()
        source = {
            path.relative_to(PACKAGE.parent).as_posix()
            for path in PACKAGE.rglob("*")
            if path.suffix in (".py", ".csv", ".typed")
        }
        assert packed == source
        assert print_of(built / "kit" / "camoxpert_nb") == print_of(PACKAGE)
        assert "MIT" in (built / "kit" / "LICENSE").read_text()

    @pytest.mark.parametrize("stem", [*NOTEBOOKS, *READY])
    def test_each_notebook_is_whole_and_bare(self, built: Path, stem: str) -> None:
        notebook = nbformat.read(built / stem / f"{stem}.ipynb", 4)
        nbformat.validate(notebook)
        ids = [cell.id for cell in notebook.cells]
        assert len(set(ids)) == len(ids)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert not any(cell.outputs for cell in code)
        first = next(cell for cell in code if cell.id.startswith("kit"))
        assert "def find_kit(" in first.source and f'"some-one/{slug(stem)}"' in first.source
        assert notebook.metadata.kaggle.accelerator == "nvidiaTeslaT4"
        assert notebook.metadata.kaggle.isInternetEnabled is False
        for cell in code:
            if not cell.source.startswith("%%"):
                compile(cell.source, stem, "exec")

    def test_notebooks_are_taken_as_they_are(self, built: Path) -> None:
        own = load(PACKAGE.parent / "notebooks" / "05_visualize.ipynb")["cells"]
        there = load(built / "05_visualize" / "05_visualize.ipynb")["cells"]
        kept = [cell for cell in there if cell["id"] in {each["id"] for each in own}]
        assert ["".join(c["source"]) for c in kept] == ["".join(c["source"]) for c in own]

    def test_each_attaches_what_it_needs(self, built: Path) -> None:
        kernel = load(built / "04_evaluate" / "kernel-metadata.json")
        assert kernel["id"] == "some-one/camoxpert-04-evaluate"
        assert kernel["kernel_sources"] == ["some-one/camoxpert-03-train"]
        sources = ["some-one/camoxpert-kit", "an-owner/cod10k-dataset"]
        assert kernel["dataset_sources"] == sources
        alone = load(built / "camoxpert_train" / "kernel-metadata.json")
        assert alone["dataset_sources"] == sources[1:] and alone["kernel_sources"] == []
        uses = load(built / "camoxpert_predict" / "kernel-metadata.json")
        assert uses["kernel_sources"] == ["some-one/camoxpert-train"]
        assert uses["dataset_sources"] == []

    def test_weights_travel_with_the_kit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bundle, "_wheel", lambda folder: None)
        file = tmp_path / "edgenext_base.safetensors"
        file.touch()
        build("some-one", tmp_path / "out", weights=[file])
        assert (tmp_path / "out" / "kit" / file.name).exists()
        kernel = load(tmp_path / "out" / "camoxpert_train" / "kernel-metadata.json")
        assert "some-one/camoxpert-kit" in kernel["dataset_sources"]

    def test_what_breaks_a_rule_is_not_left_to_kaggle(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bundle, "_wheel", lambda folder: None)
        with pytest.raises(InputError, match="'owner/name'"):
            build("Not A Name", tmp_path)

    def test_without_the_project_it_says_what_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bundle, "PROJECT", tmp_path)
        with pytest.raises(InputError, match="no notebooks and no pyproject"):
            build("some-one", tmp_path / "out")


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The input root of an empty session: nothing is installed, nothing can be reached."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(ALONE)
    root = tmp_path / "kaggle" / "input"
    root.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("CAMOXPERT_INPUT", str(root))
    for name in ("CAMOXPERT_CACHE", "CAMOXPERT_DEADLINE"):
        monkeypatch.setenv(name, "")  # so that what `begin` sets is taken back at the end
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    return root


def first_cell(notebook: Path) -> str:
    """Return what makes the package ready, as a script does it."""
    code = []
    for cell in load(notebook)["cells"]:
        if cell["source"].startswith("%%kit"):
            line, _, body = cell["source"].removeprefix("%%kit").partition("\n")
            code.append(f"keep_code({line!r}, {body!r})")
        elif cell["id"].startswith("kit"):
            magic = "get_ipython().register_magic_function"
            code.append(cell["source"].replace(magic, "(lambda *_: None)"))
    return "\n".join(code)


def run_cell(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, cwd=folder, check=False
    )
    return done.stdout + done.stderr


class TestBootstrap:
    @pytest.mark.parametrize("place", ["camoxpert-kit", "datasets/some-one/camoxpert-kit"])
    @pytest.mark.parametrize("form", ["camoxpert_nb", "*.whl"])
    def test_it_finds_an_attached_kit(
        self, built: Path, alone: Path, place: str, form: str
    ) -> None:
        (part,) = (built / "kit").glob(form)
        copy = shutil.copytree if part.is_dir() else shutil.copy
        (alone / place).mkdir(parents=True)
        copy(part, alone / place / part.name)
        said = run_cell(first_cell(built / "03_train" / "03_train.ipynb"), alone.parent)
        assert f"({print_of(PACKAGE)}), attached, {alone / place}" in said
        assert "NOTE" not in said

    def test_it_takes_what_the_notebook_carries(self, built: Path, alone: Path) -> None:
        code = first_cell(built / "camoxpert_train" / "camoxpert_train.ipynb")
        code += "\nfrom camoxpert_nb.evaluation.published import published"
        code += "\nprint(len(published('CAMO')))"
        code += "\nsys.stdout.flush()\nos.system(f'{sys.executable} -m camoxpert_nb --version')"
        *shown, how, rows, version = run_cell(code, alone.parent).splitlines()
        assert shown[0].startswith("settings, ")
        assert f"({print_of(PACKAGE)}), carried by this notebook" in how
        assert int(rows) > 10  # its tables travel with it
        assert version.startswith("camoxpert_nb 0.")  # a process that is started finds it, too

    @pytest.mark.parametrize("form", ["*.whl", "carried"])  # three sessions below use the folder
    def test_every_module_can_be_imported_from_what_travels(
        self, built: Path, alone: Path, form: str
    ) -> None:
        name = "camoxpert_predict" if form == "carried" else "03_train"
        for part in (built / "kit").glob(form):
            (alone / "camoxpert-kit").mkdir()
            shutil.copy(part, alone / "camoxpert-kit" / part.name)
        code = first_cell(built / name / f"{name}.ipynb")
        code += "\nimport camoxpert_nb, importlib, pkgutil"
        code += "\nfor found in pkgutil.walk_packages(camoxpert_nb.__path__, 'camoxpert_nb.'):"
        code += "\n    if not found.name.endswith('__main__'):"
        code += "\n        print('has', importlib.import_module(found.name).__name__)"
        lines = run_cell(code, alone.parent).splitlines()
        found = [line.removeprefix("has ") for line in lines if line.startswith("has ")]
        files = [path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py")]
        names = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
        assert sorted(found) == sorted(names - {"camoxpert_nb", "camoxpert_nb.__main__"})

    def test_an_outdated_kit_is_said(self, built: Path, alone: Path) -> None:
        shutil.copytree(built / "kit" / "camoxpert_nb", alone / "old" / "camoxpert_nb")
        with (alone / "old" / "camoxpert_nb" / "__init__.py").open("a") as file:
            file.write("# older\n")
        said = run_cell(first_cell(built / "03_train" / "03_train.ipynb"), alone.parent)
        assert f"NOTE: this notebook was made with kit {print_of(PACKAGE)}" in said

    def test_without_a_kit_it_says_what_to_attach(self, built: Path, alone: Path) -> None:
        said = run_cell(first_cell(built / "03_train" / "03_train.ipynb"), alone.parent)
        assert "Attach the data set camoxpert-kit" in said


def play(notebook: Path, folder: Path, **edits: str) -> str:
    """Run a notebook as Save & Run All does, in an empty folder; return all it said."""
    folder.mkdir()
    cells = nbformat.read(notebook, 4)
    for cell in cells.cells:
        cell.source += edits.get(cell.id.replace("-", "_"), "")
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(cells, timeout=120, kernel_name="python3", resources=place).execute()
    outputs = [out for cell in cells.cells if cell.cell_type == "code" for out in cell.outputs]
    assert "Traceback" not in str(outputs)
    data = [out.get("data", {}).get("text/plain", out.get("text", "")) for out in outputs]
    return "\n".join(data)


def trained_for(run: Run, epochs: int) -> None:
    """Wait until a run has trained so many epochs more."""
    until, patience = len(run.records("epoch")) + epochs, time.monotonic() + 60
    while len(run.records("epoch")) < until:
        assert time.monotonic() < patience, (run.folder / "stderr.txt").read_text()
        time.sleep(0.02)


def killed_session(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on with what is attached, and end without warning after two epochs."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    run = start(begin().settings(Config()).replace(time_budget=0.0), resume=True)
    trained_for(run, epochs=2)
    os.killpg(run.load_json("process")["pid"], signal.SIGKILL)
    assert not run.records("end")


def files(folder: Path) -> dict[Path, float]:
    """Return the times of all files but compiled ones: Kaggle's inputs are read-only."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.stat().st_mtime for path in found if path.suffix != ".pyc"}


def same_weights(one: Run, other: Run) -> bool:
    pairs = [(one.load("last")[name], other.load("last")[name]) for name in ("net", "ema")]
    return all(torch.equal(a[key], b[key]) for a, b in pairs for key in a)


def test_three_sessions_train_as_one_though_the_second_is_killed(
    built: Path, alone: Path, camouflage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(camouflage, alone / "datasets" / "an-owner" / "cod10k-dataset")
    shutil.copytree(built / "kit", alone / "datasets" / "some-one" / "camoxpert-kit")
    mine = alone / "notebooks" / "some-one"
    (mine / "camoxpert-02-configure" / "runs").mkdir(parents=True)
    config = make_config("tiny", dataset_path="/of/that/session", epochs=6, device="cpu")
    limited = config.replace(time_budget=0.0001)  # the clock stops the first session
    limited.save(mine / "camoxpert-02-configure" / "runs" / "next.json")
    before = files(alone)
    notebook, output = built / "03_train" / "03_train.ipynb", mine / "camoxpert-03-train"

    said = play(notebook, tmp_path / "one")
    assert "COD10K" in said and "To go on in the next session" in said
    assert "some-one/camoxpert-03-train" in said
    (first,) = (tmp_path / "one" / "runs").glob("2*")
    assert Run(first).records("stop")[-1]["why"] == "the time budget is used up"

    shutil.copytree(tmp_path / "one", output)  # runs/latest becomes a copy, as it may on Kaggle
    killed_session(tmp_path / "two", monkeypatch)
    shutil.rmtree(output)
    shutil.copytree(tmp_path / "two", output)
    said = play(notebook, tmp_path / "three")
    assert "epochs done, it goes on" in said and "is finished" in said
    shutil.rmtree(output)
    assert files(alone) == before  # nothing was written into the inputs

    third = Run(tmp_path / "three" / "runs" / first.name)
    assert [record["epoch"] for record in third.records("epoch")] == [1, 2, 3, 4, 5, 6]
    whole = {"dataset_path": str(camouflage), "checkpoint_dir": str(tmp_path / "whole")}
    assert same_weights(third, fit(config.replace(**whole)))


def test_the_ready_notebooks_train_go_on_and_predict(
    alone: Path, camouflage: Path, tmp_path: Path
) -> None:
    """As people do: imported into the browser, nothing installed, no internet."""
    shutil.copytree(camouflage, alone / "datasets" / "an-owner" / "zoo")
    ready, mine = PACKAGE.parent / "kaggle", alone / "notebooks" / "me" / "camoxpert-train"
    mine.parent.mkdir(parents=True)
    settings = "\nPRESET, EPOCHS, HOURS = 'tiny', 3, 1e-6"
    said = play(ready / "camoxpert_train.ipynb", tmp_path / "one", settings=settings)
    assert "no GPU is on" in said and "carried by this notebook" in said
    assert "Add Input > Your Work > this notebook" in said and "kernel-metadata" not in said
    shutil.copytree(tmp_path / "one", mine)

    settings = "\nPRESET, EPOCHS = 'tiny', 3"
    said = play(ready / "camoxpert_train.ipynb", tmp_path / "two", settings=settings)
    assert "epochs done, it goes on" in said and "is finished" in said
    assert "S-measure" in said and "keeps its own settings" not in said
    (folder,) = (tmp_path / "two" / "runs").glob("2*")
    assert [record["epoch"] for record in Run(folder).records("epoch")] == [1, 2, 3]
    assert (folder / "report.html").exists()
    shutil.rmtree(mine)
    shutil.copytree(tmp_path / "two", mine)

    said = play(ready / "camoxpert_predict.ipynb", tmp_path / "three")
    assert f"{mine}: a run, whose figures are no pictures" in said
    count = len(find_datasets(camouflage)[0].test)
    assert f"{count} maps in maps" in said
    maps = tmp_path / "three" / "maps"
    assert len([*maps.glob("*.png")]) == len([*maps.glob("overlays/*.png")]) == count
    assert (maps / "found.csv").exists() and (tmp_path / "three" / "maps.zip").exists()


def test_line_ends_make_no_other_kit(tmp_path: Path) -> None:
    for name, ending in (("lf", b"\n"), ("crlf", b"\r\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_bytes(b"x = 1" + ending + b"y = 2" + ending)
    assert print_of(tmp_path / "lf") == print_of(tmp_path / "crlf")
