from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from camoxpert_nb.data.cache import cache_folder
from camoxpert_nb.errors import InputError
from camoxpert_nb.outside import paths
from camoxpert_nb.settings.config import Config


@pytest.mark.parametrize("text", ["", " ", "\t", "a\0b", "~nobody-of-this-name"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--json "):
        paths.given(text, "--json")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("runs/lates", "Did you mean runs/latest?"),
        ("./run/latest", "Did you mean runs/latest?"),
        ("runs/latest/bast.pt", "Did you mean runs/latest/best.pt?"),
        ("zebra", "--run zebra: no such file or folder. Looked in"),
    ],
)
def test_what_was_meant_is_told_so_that_it_can_be_typed(
    text: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "latest").mkdir(parents=True)
    (tmp_path / "runs" / "latest" / "best.pt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        paths.readable(text, "--run")
    assert meant in str(caught.value)


@pytest.mark.parametrize(
    ("name", "ending", "wanted"),
    [
        ("model", ".onnx", "model.onnx"),
        ("model.v1", ".onnx", "model.v1.onnx"),
        ("model.onnx", ".onnx", "model.onnx"),
        ("a.b.ONNX", ".onnx", "a.b.ONNX"),
        (".hidden", ".onnx", ".hidden.onnx"),
        ("run-0.5", ".png", "run-0.5.png"),
    ],
)
def test_dots_in_a_name_are_no_ending(name: str, ending: str, wanted: str) -> None:
    assert paths.with_ending(Path("x") / name, ending) == Path("x") / wanted


@pytest.mark.parametrize(
    "text", ["a/b", "a\\b", "COD10K (/data/x)", "a b", "a\nb", "\udcff", "x" * 400, "ä" * 400, ""]
)
def test_any_text_becomes_a_name_that_can_be_written(text: str, tmp_path: Path) -> None:
    name = paths.file_name(text)
    (tmp_path / name).touch()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert not any(map(str.isspace, name))


def test_many_at_once_get_a_folder_each(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        made = pool.map(paths.make_unique, [tmp_path / "runs" / "now"] * 24, chunksize=1)
    assert len(set(made)) == 24
    assert all(folder.is_dir() for folder in made)


def test_the_cache_needs_no_home_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(Path, "expanduser", lambda self: nobody() if "~" in str(self) else self)
    monkeypatch.setenv("CAMOXPERT_CACHE", str(tmp_path))
    assert cache_folder(Config()) == tmp_path
    monkeypatch.delenv("CAMOXPERT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(InputError, match="--cache-dir"):
        cache_folder(Config())


def test_what_lies_there_and_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    for holds in paths.SIGNS:
        with pytest.raises(InputError, match="would be lost"):
            paths.replaceable(tmp_path / "notes", "--json", holds)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="file of a run"):
        paths.replaceable(tmp_path / "config.json", "--json", "JSON")
    (tmp_path / "old.json").write_text('{"a": 1}')
    paths.replaceable(tmp_path / "old.json", "--json", "JSON")
