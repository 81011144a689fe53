"""What a folder of pictures holds beside them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from camoxpert_nb.cli import main as cli
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation import files
from camoxpert_nb.evaluation.files import by_stem, cores, in_order
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.fit import fit

HEIC = "save them as JPEG or PNG"


def test_predict_says_what_it_passed_over(
    tiny: Config, camouflage: Path, tmp_path: Path, capsys
) -> None:
    run = fit(tiny.replace(epochs=1))
    source, picture = tmp_path / "pictures", next(camouflage.rglob("*CAM*.jpg"))
    source.mkdir()
    (source / picture.name).write_bytes(picture.read_bytes())
    words = ["predict", "--run", str(run.folder), "--input", str(source), "--output"]
    assert cli.main([*words, str(tmp_path / "maps")]) == 0
    assert "not read as pictures" not in capsys.readouterr().out
    assert cli.main([*words, str(tmp_path / "map.png")]) == 2
    assert "is named like a picture, but is the folder" in " ".join(capsys.readouterr().err.split())
    for name in ("phone.HEIC", "readme.txt"):
        (source / name).touch()
    assert cli.main([*words, str(tmp_path / "more")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"NOTE: 2 files of {source} not read as pictures: phone.HEIC, readme.txt ({HEIC})" in said
    )


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_are_found_by_stem_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.PNG", "a.jpg", "c.txt", ".d.png", "e/f.png")
    found = by_stem(tmp_path)
    assert found == {"a": tmp_path / "a.jpg", "b": tmp_path / "b.PNG"} and [*found] == ["a", "b"]
    touch(tmp_path, "b.jpg")
    with pytest.raises(InputError) as caught:
        by_stem(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'b.PNG'} and b.jpg share a stem: rename one."


def test_a_folder_without_images_says_where_there_are_some(tmp_path: Path) -> None:
    """In order, no masks, nothing hidden, and not below the fourth folder."""
    touch(tmp_path, "readme.txt", "z/a.png", "z/b.jpg", "z/c.txt", "z/.d.png", "b/in/a.bmp")
    touch(tmp_path, "GT/a.png", ".hidden/a.png", "1/2/3/4/a.png", "1/2/3/4/5/a.png")
    with pytest.raises(InputError) as caught:
        by_stem(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has no images itself; folders in it have: 1/2/3/4 (1), b/in (1), z (2). Give "
        "one of them."
    )
    touch(tmp_path, "b/c/a.png")
    with pytest.raises(
        InputError, match=r"have: 1/2/3/4 \(1\), b/c \(1\), b/in \(1\) and 1 more\."
    ):
        by_stem(tmp_path)


def test_a_folder_without_any_image_says_which_endings_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SUFFIXES", (".one", ".two"))
    touch(tmp_path, "GT/a.one")
    with pytest.raises(InputError) as caught:
        by_stem(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has no images, nor has a folder in it. Give the folder that holds .one, .two."
    )
    with pytest.raises(InputError) as caught:
        by_stem(tmp_path / "none")
    said = f"{tmp_path / 'none'} is no folder. Give the one that holds the images."
    assert str(caught.value) == said


@pytest.mark.parametrize(("there", "used"), [(1, 1), (7, 7), (8, 8), (64, 8), (None, 1)])
def test_at_most_eight_threads_score(
    there: int | None, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "cpu_count", lambda: there)
    assert cores() == used


def test_work_is_done_in_order_and_only_so_far_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = in_order(lambda item: -item, items(), workers=3)
    for turn in range(3):
        assert next(results) == -turn
        assert len(taken) == turn + 17
    assert [*results] == [-item for item in range(3, 100)]
    assert [*in_order(str, [], workers=1)] == []


def test_as_many_work_at_once_as_there_are_workers() -> None:
    """Each of two waits for the other one: with a single worker this would never end."""
    both = threading.Barrier(2, timeout=20)
    assert len([*in_order(lambda _: both.wait(), range(4), workers=2)]) == 4


def test_an_error_ends_the_work_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[bool, bool]] = []

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            told.append((wait, cancel_futures))
            super().shutdown(wait, cancel_futures=cancel_futures)

    monkeypatch.setattr(files, "ThreadPoolExecutor", Pool)
    with pytest.raises(ZeroDivisionError):
        [*in_order(lambda item: 1 / item, range(16), workers=2)]
    assert told == [(True, True)]
