"""What a folder of pictures holds beside them."""

from __future__ import annotations

from pathlib import Path

from camoxpert_nb.data.folders import not_taken


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
