"""What a folder of pictures holds beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb.data.folders import not_taken
from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.errors import InputError


def test_what_is_passed_over_is_named_with_what_mends_it(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.txt", "Thumbs.db", "readme.txt", "phone.HEIC", "x.zip"):
        (tmp_path / name).touch()
    (tmp_path / "folder.heic").mkdir()
    found = {path.name: advice for path, advice in not_taken(tmp_path).items()}
    assert found == {
        "phone.HEIC": "save them as JPEG or PNG",
        "readme.txt": "",
        "x.zip": "unpack the archive",
    }


def test_images_of_the_folder_itself_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.png", "b.png", "more/c.png"):
        (tmp_path / name).touch()
    with pytest.raises(InputError) as caught:
        find_datasets(tmp_path)
    assert "Found: this folder itself (2), more (1)." in str(caught.value)
