"""A build deletes nothing that it did not make."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb.cli import main as cli
from camoxpert_nb.errors import InputError
from camoxpert_nb.kaggle import bundle
from camoxpert_nb.kaggle.bundle import build
from camoxpert_nb.kaggle.rules import problems


@pytest.fixture(autouse=True)
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_wheel", lambda folder: None)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_build_replaces_the_first(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("beside the folders nobody minds")
    build("some-one", tmp_path)
    first = contents(tmp_path)
    build("another", tmp_path)
    second = contents(tmp_path)
    assert set(first) == set(second) and first != second
    assert second[tmp_path / "mine.txt"] == first[tmp_path / "mine.txt"]


@pytest.mark.parametrize(
    "name",
    [
        "kit/notes.txt",
        "kit/camoxpert_nb/deep/mine.py",
        "03_train/data.csv",
        "03_train/03_train.ipynb",
        "camoxpert_train/.hidden",
        "04_evaluate",
    ],
)
@pytest.mark.parametrize("built_before", [False, True])
def test_files_of_others_are_named_and_kept(name: str, built_before: bool, tmp_path: Path) -> None:
    if built_before and name != "04_evaluate":
        build("some-one", tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"Nothing was touched.*move them away") as caught:
        build("some-one", tmp_path)
    assert name in str(caught.value)
    assert contents(tmp_path) == before


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kit").symlink_to(mine, target_is_directory=True)
    with pytest.raises(InputError, match="kit"):
        build("some-one", tmp_path / "out")
    assert (mine / "thesis.tex").exists()


def test_an_owner_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kaggle", "build", str(tmp_path / "out")]) == 2
    assert "--user NAME" in capsys.readouterr().err
    with pytest.raises(InputError, match="stands for a name"):
        build("your-name", tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    build("some-one", tmp_path / "out")
    kernel = tmp_path / "out" / "03_train" / "kernel-metadata.json"
    kernel.write_text(kernel.read_text().replace("some-one", "your-name"))
    assert "stands for a name" in str(problems(kernel.parent))
