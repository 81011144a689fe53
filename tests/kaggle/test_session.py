from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.data.selection import select
from camoxpert_nb.errors import InputError
from camoxpert_nb.kaggle import session
from camoxpert_nb.kaggle.earlier import find_runs, how_to_go_on
from camoxpert_nb.kaggle.inputs import input_root, sources
from camoxpert_nb.kaggle.session import begin, hand_over, session_start
from camoxpert_nb.outside.weights import find_weights
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.budget import disk_forecast, minutes_left

Plant = Callable[[str], Path]


@pytest.fixture(params=["old", "new"])
def plant(inputs: Path, request: pytest.FixtureRequest) -> Plant:
    """Return the folder of an attached data set, in both styles of mounting."""

    def folder(slug: str) -> Path:
        path = inputs / slug if request.param == "old" else inputs / "datasets" / "an-owner" / slug
        path.mkdir(parents=True)
        return path

    return folder


def touch(folder: Path, names: list[str], suffix: str) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}{suffix}").touch()


def plant_cod10k(folder: Path, cam: int = 3040, noncam: int = 2960, test: int = 2026) -> None:
    base = folder / "COD10K-v3"
    for split, shown, empty in (("Train", cam, noncam), ("Test", test, 4)):
        names = [f"COD10K-CAM-1-Aquatic-{split}-{i}" for i in range(shown)]
        names += [f"COD10K-NonCAM-5-Other-{split}-{i}" for i in range(empty)]
        touch(base / split / "Image", names, ".jpg")
        touch(base / split / "GT_Object", names, ".png")


def plant_camo(folder: Path) -> None:
    base = folder / "CAMO-V.1.0-CVIU2019"
    names = [f"camourflage_{i:05d}" for i in range(1250)]
    touch(base / "Images" / "Train", names[:1000], ".jpg")
    touch(base / "Images" / "Test", names[1000:], ".jpg")
    touch(base / "GT", names, ".png")


def plant_run(source: Path, name: str, *, at: float, end: bool = False) -> Run:
    run = Run(source / "runs" / name)
    run.folder.mkdir(parents=True)
    make_config("tiny", dataset_path="/elsewhere").save(run.config_path)
    run.log("epoch", epoch=3, step=9)
    run.log("end" if end else "stop", step=9)
    text = run.history_path.read_text().replace('"time": ', f'"time": {at} , "was": ')
    run.history_path.write_text(text)
    shutil.make_archive(str(run.folder / "last"), "zip", run.folder)  # as torch writes: a zip
    (run.folder / "last.zip").rename(run.folder / "last.pt")
    return run


def snapshot(root: Path) -> dict[Path, tuple[float, int]]:
    return {path: (path.stat().st_mtime, path.stat().st_size) for path in root.rglob("*")}


class TestData:
    def test_sets_are_found_in_both_styles(self, plant: Plant) -> None:
        plant_cod10k(plant("cod10k-dataset"), cam=3, noncam=2, test=1)
        assert len(select(find_datasets(begin().data)).train) == 3

    def test_the_protocol_of_the_field_is_found(self, inputs: Path) -> None:
        plant_cod10k(inputs / "datasets" / "an-owner" / "cod10k-dataset")
        plant_camo(inputs / "camo-dataset")
        before = snapshot(inputs)
        session = begin()
        assert snapshot(inputs) == before
        found = select(find_datasets(session.data))
        assert len(found.train) == 4040
        assert {name: len(pairs) for name, pairs in found.test.items()} == {
            "CAMO": 250,
            "COD10K-v3": 2026,
        }
        said = str(session)
        assert "COD10K-v3: 3,040 to train, 2,026 to test, 2,964 NonCAM left out" in said
        assert "together: 4,040 to train" in said
        assert Path(os.environ["CAMOXPERT_CACHE"]) == inputs.parent / "temp/camoxpert/cache"

    def test_the_same_images_attached_twice_count_once(self, plant: Plant) -> None:
        for slug in ("cod10k", "cod10k-again"):
            plant_cod10k(plant(slug), cam=30, noncam=5, test=10)
        session = begin()
        assert len(select(find_datasets(session.data)).train) == 30
        assert "cod10k-again: its images are attached already" in str(session)

    def test_data_are_called_by_what_was_attached(self, plant: Plant) -> None:
        plant_cod10k(plant("my-photos"), cam=3, noncam=0, test=1)
        (mounted,) = sources()
        assert begin().data == str(mounted) and mounted.name == "my-photos"
        for slug in ("a", "b", "c"):
            touch(plant(slug) / "Imgs", [f"{slug}{n}" for n in range(2)], ".jpg")
            touch(mounted.parent / slug / "GT", [f"{slug}{n}" for n in range(2)], ".png")
        folder = Path(begin().data)
        assert folder.name == "a+b+c+1 more"
        assert sorted(each.name for each in folder.iterdir()) == ["a", "b", "c", "my-photos"]

    def test_images_in_the_output_of_a_notebook_are_no_data(self, inputs: Path) -> None:
        output = inputs / "notebooks" / "me" / "camoxpert-00-start-here"
        plant_cod10k(output / "data", cam=3, noncam=1, test=2)
        (output / "runs").mkdir()
        session = begin()
        assert session.data == ""
        assert "none attached" in str(session)

    def test_a_second_look_gives_the_same(self, plant: Plant) -> None:
        plant_cod10k(plant("cod10k"), cam=3, noncam=1, test=2)
        assert str(begin()) == str(begin())

    def test_without_inputs_nothing_is_done(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CAMOXPERT_INPUT", str(tmp_path / "none"))
        assert "not on Kaggle" in str(begin())
        assert list(tmp_path.iterdir()) == []

    def test_kaggle_s_place_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CAMOXPERT_INPUT", raising=False)
        assert input_root() == Path("/kaggle/input")


class TestTheEnd:
    def test_on_kaggle_twelve_hours_run_from_the_first_process(
        self, monkeypatch: pytest.MonkeyPatch, inputs: Path
    ) -> None:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
        monkeypatch.setattr(session, "session_start", lambda: time.time() - 100 * 60)
        hand_over()
        assert minutes_left() == pytest.approx(620, abs=0.1)

    def test_an_end_that_is_set_already_stays(
        self, monkeypatch: pytest.MonkeyPatch, inputs: Path
    ) -> None:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
        monkeypatch.setenv("CAMOXPERT_DEADLINE", str(time.time() + 60))
        hand_over()
        assert minutes_left() == pytest.approx(1, abs=0.1)

    def test_the_start_is_read_from_the_first_process(self, tmp_path: Path) -> None:
        boot, ticks = int(time.time()) - 5000, 100 * 2000  # 2000 s after the boot
        (tmp_path / "1").mkdir()
        (tmp_path / "stat").write_text(f"cpu 1 2\nbtime {boot}\nprocesses 3\n")
        fields = ["S", *["0"] * 18, str(ticks), "0"]
        (tmp_path / "1" / "stat").write_text(f"1 (a ) b) {' '.join(fields)}\n")
        assert session_start(tmp_path) == pytest.approx(boot + 2000)

    @pytest.mark.parametrize("stat", ["", "btime 12\n"])
    def test_a_start_that_cannot_be_is_now(self, tmp_path: Path, stat: str) -> None:
        (tmp_path / "1").mkdir()
        (tmp_path / "stat").write_text(stat)
        (tmp_path / "1" / "stat").write_text(f"1 (x) {' '.join(['0'] * 22)}\n")
        assert session_start(tmp_path) == pytest.approx(time.time(), abs=5)


class TestWeights:
    def test_the_file_that_names_the_backbone_is_taken(self, plant: Plant, inputs: Path) -> None:
        folder = plant("timm-weights")
        for name in ("edgenext_small_rw.sw_in1k.pth", "edgenext_small.usi_in1k.pth", "notes.txt"):
            (folder / name).touch()
        hub = inputs / "models" / "timm" / "edgenext-base" / "pytorch" / "usi" / "1"
        hub.mkdir(parents=True)
        (hub / "model.safetensors").touch()
        hand_over()
        assert Path(find_weights("edgenext_small")).name == "edgenext_small.usi_in1k.pth"
        assert Path(find_weights("edgenext_base")) == hub / "model.safetensors"
        assert find_weights("resnet50") == ""

    def test_what_a_run_saved_is_no_backbone(self, inputs: Path) -> None:
        plant_run(inputs / "resnet50-output", "a", at=1)
        hand_over()
        assert find_weights("resnet50") == ""
        assert "none attached. Without internet" in str(begin())


class TestEarlierRun:
    def test_the_newest_whole_run_is_brought_and_goes_on(self, inputs: Path) -> None:
        plant_run(inputs / "notebooks/me/camoxpert-03-train", "old", at=1)
        newest = plant_run(inputs / "camoxpert-kaggle", "new", at=5)
        (newest.folder / "lock.json").write_text("{}")
        newest.folder.chmod(0o555)
        cut = plant_run(inputs / "cut-short", "torn", at=9)
        whole = (cut.folder / "last.pt").read_bytes()
        (cut.folder / "last.pt").write_bytes(whole[:-30])
        shutil.copytree(newest.folder, newest.folder.parent / "latest")
        assert [run.folder.name for run in find_runs()] == ["old", "new"]
        session = begin()
        newest.folder.chmod(0o755)
        here = Run("runs/new")
        assert Path("runs/latest").resolve() == here.folder.resolve()
        assert not (here.folder / "lock.json").exists()
        assert os.access(here.folder, os.W_OK)
        config = session.settings(make_config("demo"))
        assert (config.preset, config.checkpoint_dir) == ("tiny", "runs/new")
        assert "1 epochs done, it goes on" in str(session)

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda f: (f / "config.json").unlink(), "no config.json"),
            (lambda f: (f / "config.json").write_text("{"), "config.json"),
            (lambda f: (f / "config.json").write_text("[]"), "config.json"),
            (lambda f: (f / "last.pt").unlink(), "no last.pt"),
            (lambda f: (f / "last.pt").write_bytes(b""), "last.pt is empty"),
            (lambda f: (f / "last.pt").write_bytes(b"PK cut"), "last.pt was cut short"),
            (lambda f: (f / "history.jsonl").write_text("nonsense\n"), "history.jsonl"),
        ],
    )
    def test_a_run_that_cannot_go_on_is_named(
        self, spoil: Callable[[Path], object], said: str, inputs: Path
    ) -> None:
        run = plant_run(inputs / "notebooks/me/a", "torn", at=9)
        spoil(run.folder)
        session = begin()
        assert session.run is None and not session.goes_on
        (note,) = session.notes
        assert str(run.folder) in note and said in note and note in str(session)
        plant_run(inputs / "old", "whole", at=1)  # beside it the whole one goes on
        session = begin()
        assert session.run is not None and session.run.folder.name == "whole"
        assert said in str(session)

    def test_the_unfinished_one_goes_on_though_another_is_newer(self, inputs: Path) -> None:
        plant_run(inputs / "a", "older", at=1)
        plant_run(inputs / "b", "wanted", at=5)
        demo = plant_run(inputs / "c", "demo", at=9, end=True)
        session = begin()
        assert session.run is not None and session.run.folder.name == "wanted"
        assert f"{demo.folder}: passed over, it is finished" in str(session)
        assert "older: passed over, it is older" in str(session)

    def test_other_settings_than_it_began_with_are_said(self, inputs: Path) -> None:
        plant_run(inputs / "a", "x", at=1)
        session = begin()
        asked = make_config("balanced-2gpu", epochs=200, img_size=352)
        session.settings(asked)
        assert session.notes == []  # nobody chose: it is a proposal
        Path("runs").mkdir(exist_ok=True)
        asked.save(Path("runs/next.json"))
        for _ in range(2):
            assert session.settings(asked).preset == "tiny"
        (note,) = session.notes
        assert "--epochs" in note and "(chosen in 02 200)" in note and "352" in note
        assert "keeps its own settings" in note
        again = begin()
        again.settings(make_config("tiny"))
        assert again.notes == []

    def test_images_that_are_missing_are_said(self, plant: Plant, inputs: Path) -> None:
        plant_cod10k(plant("cod10k"), cam=3, noncam=0, test=2)
        run = plant_run(inputs / "out", "x", at=1)
        names = {f"{i}": f"COD10K-CAM-1-Aquatic-Train-{i}.jpg" for i in range(3)}
        run.save_json("split", {"train": names, "validation": {}})
        assert begin().notes == []
        shutil.rmtree("runs")  # the next session begins in an empty folder
        camo = {f"c{i}": f"CAMO/camourflage_{i:05d}.jpg" for i in range(3)}
        run.save_json("split", {"train": names, "validation": camo})
        (note,) = begin().notes
        assert "began with 6 images, of which 3 are not attached" in note

    def test_settings_keep_the_set_that_was_chosen(self, plant: Plant, inputs: Path) -> None:
        chosen_set = plant("cod10k")
        plant_cod10k(chosen_set, cam=3, noncam=1, test=2)
        plant_camo(plant("camo"))
        source = plant("camoxpert-02-configure") / "runs"
        source.mkdir()
        for path in (chosen_set, "/kaggle/input/cod10k"):  # here, or mounted elsewhere then
            make_config("tiny", dataset_path=str(path)).save(source / "next.json")
            session = begin()
            assert Config.load(Path("runs/next.json")).dataset_path == str(chosen_set)
            Path("runs/next.json").unlink()
        make_config("tiny", dataset_path="/gone").save(source / "next.json")
        session = begin()
        assert Config.load(Path("runs/next.json")).dataset_path == session.data
        assert "saved with the images in /gone, which is not here" in session.notes[0]

    def test_settings_that_cannot_be_read_are_said(self, plant: Plant) -> None:
        source = plant("camoxpert-02-configure") / "runs"
        source.mkdir()
        (source / "next.json").write_text("{")
        assert "cannot be used" in begin().notes[0]
        assert not Path("runs/next.json").exists()

    def test_places_are_put_right(self, plant: Plant) -> None:
        plant_cod10k(plant("cod10k"), cam=3, noncam=1, test=2)
        plant_run(plant("output"), "a", at=1)
        session = begin()
        assert session.settings(Config()).dataset_path == session.data

    def test_generated_images_of_a_run_are_there_again(self, inputs: Path) -> None:
        run = plant_run(inputs / "output", "a", at=1, end=True)
        make_config("tiny", img_size=32).save(run.config_path)
        assert find_datasets(begin().data)[0].test

    def test_a_run_that_went_on_here_is_left_alone(self, inputs: Path) -> None:
        plant_run(inputs / "output", "a", at=1)
        begin()
        Run("runs/a").log("epoch", epoch=4, step=12)
        begin()
        assert len(Run("runs/a").records("epoch")) == 2

    def test_settings_of_another_notebook_are_brought(self, plant: Plant) -> None:
        source = plant("camoxpert-02-configure") / "runs"
        source.mkdir()
        make_config("tiny", epochs=7).save(source / "next.json")
        begin()
        assert Config.load(Path("runs/next.json")).epochs == 7

    def test_the_words_say_what_to_click_and_what_to_write(
        self, inputs: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = plant_run(inputs / "a", "x", at=1)
        assert how_to_go_on(run).endswith(f"To go on: camoxpert resume {run.folder}")
        monkeypatch.setenv("CAMOXPERT_KERNEL", "me/camoxpert-03-train")
        said = how_to_go_on(run)
        assert "1 epoch is done" in said
        assert "Add Input > Your Work > camoxpert-03-train" in said
        assert '"kernel_sources": ["me/camoxpert-03-train"]' in said
        done = plant_run(inputs / "b", "y", at=1, end=True)
        assert done.finished
        assert "is finished" in how_to_go_on(done)

    def test_a_copy_has_no_links_and_nothing_of_a_process(self, tmp_path: Path) -> None:
        run = plant_run(tmp_path, "a", at=time.time())
        (run.folder / "figures").mkdir()
        (run.folder / "figures" / "one.png").touch()
        (run.folder / "failure.json").touch()
        run.copy_to(tmp_path / "copy")
        names = {path.name for path in (tmp_path / "copy").rglob("*")}
        assert names == {"config.json", "history.jsonl", "last.pt", "figures", "one.png"}


def test_both_styles_are_listed(inputs: Path) -> None:
    for name in ("datasets/a/x", "notebooks/b/y", "z"):
        (inputs / name).mkdir(parents=True)
    assert [path.name for path in sources()] == ["x", "y", "z"]


def test_disk_space_is_forecast_and_missed_in_time(tmp_path: Path) -> None:
    said = disk_forecast(4040, 320, 31_000_000, tmp_path / "cache", tmp_path / "runs" / "a")
    assert said.startswith(f"images 1.7 GB in {tmp_path / 'cache'} (")
    assert f"checkpoints 1.1 GB in {tmp_path / 'runs' / 'a'}" in said
    said = disk_forecast(4040, 320, 31_000_000, tmp_path, tmp_path / "a", kept=3)  # and a fourth
    assert f"checkpoints 1.6 GB in {tmp_path / 'a'}" in said
    with pytest.raises(InputError, match="GB free"):
        disk_forecast(10**9, 320, 1, tmp_path, tmp_path)
