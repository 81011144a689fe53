from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from camoxpert_nb.errors import InputError
from camoxpert_nb.kaggle.attached import attached_folder, attached_pictures, attached_run

Plant = Callable[[str], Path]


def plant(root: Path, *files: str, at: float = 1e9) -> Path:
    """Write files, images as such, and return the root."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".png", ".webp"):
            Image.new("L" if path.suffix == ".png" else "RGB", (8, 8)).save(path)
        else:
            path.write_bytes(b"x")
        os.utime(path, (at, at))
    return root


class TestFolder:
    @pytest.mark.parametrize("style", ["cod10k", "datasets/an-owner/cod10k"])
    @pytest.mark.parametrize(
        "wanted",
        ["cod10k", "COD10K ", "/kaggle/input/cod10k", "cod10k/Train/Image"],
    )
    def test_a_name_an_owner_and_a_path_of_the_other_style_are_found(
        self, inputs: Path, style: str, wanted: str
    ) -> None:
        plant(inputs / style, "Train/Image/a.jpg")
        plant(inputs / "camo", "b.jpg")
        found = attached_folder(wanted)
        assert found == inputs / style / ("Train/Image" if "Train" in wanted else "")

    def test_an_owner_tells_two_of_one_name_apart(self, inputs: Path) -> None:
        for owner in ("one", "two"):
            plant(inputs / "datasets" / owner / "cod10k", "a.jpg")
        assert attached_folder("two/cod10k") == inputs / "datasets" / "two" / "cod10k"

    def test_a_path_of_the_new_style_is_found_in_the_old_one(self, inputs: Path) -> None:
        plant(inputs / "cod10k", "a.jpg")
        wanted = "/kaggle/input/datasets/cod10k"
        assert attached_folder(wanted) == inputs / "cod10k"

    def test_what_is_not_there_lists_what_is(self, inputs: Path) -> None:
        with pytest.raises(InputError, match="Attached:\n  nothing"):
            attached_folder("cod10k")
        plant(inputs / "camo", "b.jpg")
        with pytest.raises(InputError, match=f"not attached.*\n  {inputs / 'camo'}"):
            attached_folder("cod10k")


class TestRun:
    def test_the_newest_is_taken_and_the_others_named(self, inputs: Path) -> None:
        out = inputs / "notebooks" / "me" / "camoxpert-train"
        plant(out, "runs/old/best.pt", "runs/old/last.pt", at=1e9)
        plant(out, "runs/new/best.pt", "runs/latest/best.pt", at=2e9)
        run, which, lines = attached_run()
        assert (run.folder, which) == (out / "runs/new", "best")
        (other,) = lines[1:]
        assert "older" in other and f'RUN = "{out / "runs/old"}"' in other
        assert attached_run(str(out / "runs/old"))[0].folder == out / "runs/old"
        assert attached_run("camoxpert-train")[0].folder == out / "runs/new"

    def test_a_run_that_only_has_its_last_weights_is_taken(self, inputs: Path) -> None:
        plant(inputs / "mine", "last.pt")
        run, which, _ = attached_run()
        assert (run.folder, which) == (inputs / "mine", "last")

    @pytest.mark.parametrize("name", ["my_model.pt", "best (1).pt", "w.pth"])
    def test_a_file_under_another_name_is_taken_where_it_is_named(
        self, inputs: Path, name: str
    ) -> None:
        plant(inputs / "mine", name)
        run, which, _ = attached_run(str(inputs / "mine" / name))
        assert which == "best" and (run.folder / "best.pt").read_bytes() == b"x"

    def test_a_run_of_this_session_is_found(self, inputs: Path) -> None:
        plant(Path("runs"), "a/best.pt")
        assert attached_run()[0].folder == Path("runs/a")

    def test_without_one_it_says_what_is_attached_and_how_to(self, inputs: Path) -> None:
        with pytest.raises(InputError, match=r"Nothing is attached.*Add Input > Your Work"):
            attached_run()
        plant(inputs / "zoo", "a.jpg")
        with pytest.raises(InputError, match=f"no run is attached.*Attached: {inputs / 'zoo'}"):
            attached_run()
        with pytest.raises(InputError, match="no run is in 'zoo'"):
            attached_run("zoo")
        with pytest.raises(InputError, match=r"expected a run's best\.pt"):
            attached_run(str(inputs / "zoo" / "a.jpg"))


class TestPictures:
    def test_a_folder_of_pictures_at_any_depth_is_taken(self, inputs: Path) -> None:
        plant(inputs / "zoo", "a.jpg", "deep/er/b.webp", "notes.txt", ".c.jpg", "__MACOSX/d.jpg")
        pictures, (line,) = attached_pictures()
        assert [path.name for path in pictures] == ["a.jpg", "b.webp"]
        assert line.endswith("zoo: 2 pictures")

    def test_of_a_data_set_its_test_images_are_taken_or_all_where_it_is_named(
        self, inputs: Path
    ) -> None:
        names = [
            f"{split}/{part}.{end}"
            for split in ("Train", "Test")
            for part, end in (
                ("Imgs/a", "jpg"),
                ("Imgs/b", "jpg"),
                ("GT/a", "png"),
                ("GT/b", "png"),
            )
        ]
        plant(inputs / "cod", *names)
        pictures, (line,) = attached_pictures()
        assert {path.parent.parent.name for path in pictures} == {"Test"} and len(pictures) == 2
        assert "its 2 test images" in line
        pictures, (line,) = attached_pictures("cod")
        assert len(pictures) == 4 and "4 masks left out" in line

    def test_figures_of_runs_and_maps_are_no_pictures(self, inputs: Path) -> None:
        plant(inputs / "out", "runs/a/best.pt", "runs/a/figures/curves.png", "maps/overlays/x.png")
        plant(inputs / "zoo", "a.jpg", "maps/b.png")
        pictures, lines = attached_pictures()
        assert [path.name for path in pictures] == ["a.jpg"]
        assert any("a run, whose figures are no pictures" in line for line in lines)

    def test_one_file_is_taken(self, inputs: Path) -> None:
        plant(inputs / "zoo", "a.jpg", "b.jpg")
        assert len(attached_pictures(str(inputs / "zoo/b.jpg"))[0]) == 1

    def test_without_any_it_says_what_it_found(self, inputs: Path) -> None:
        with pytest.raises(InputError, match="nothing is attached\nAttach some"):
            attached_pictures()
        plant(inputs / "out", "runs/a/best.pt")
        plant(inputs / "docs", "a.csv", "b.txt")
        with pytest.raises(InputError) as caught:
            attached_pictures()
        assert "docs: no pictures (files: .csv, .txt)" in str(caught.value)
        assert "out: a run" in str(caught.value)
