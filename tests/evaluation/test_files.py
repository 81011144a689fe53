"""What a folder of pictures holds beside them."""

from __future__ import annotations

from pathlib import Path

from camoxpert_nb.cli import main as cli
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
