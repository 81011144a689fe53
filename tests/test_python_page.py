"""docs/python.md: every snippet runs as it stands there, and names what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from camoxpert_nb.figures.found import Found
from camoxpert_nb.runs.run import Run

PAGE = Path(__file__).parent.parent / "docs" / "python.md"


def test_every_snippet_runs_in_order(
    camouflage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preset is a small one, so that it takes seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAMOXPERT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").symlink_to(camouflage)
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 4
    names: dict[str, Any] = {}
    for snippet in snippets:
        assert "auto" in snippet or "config" in snippet or "resume" in snippet
        exec(snippet.replace('"auto"', '"tiny"'), names)
    run = names["run"]
    assert run.finished and run.epochs == 6
    assert run.own_parts == {"loss": "loss", "augment": "augment", "optimizer": "optimizer"}
    assert len([*(tmp_path / "maps").glob("*.png")]) == len(names["found"])
    assert (tmp_path / "batch.png").exists() and (tmp_path / "own.png").exists()
    table = re.findall(r"^\| (`.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    of_a_run, of_scores, of_a_photo = (re.findall(r"`(\w+)(?=[`(])", row)[1:] for row in table)
    for owners, wanted in (
        ([run, Run], of_a_run),
        ([names["scores"], names["scores"][0]], of_scores),
        ([names["found"][0], Found], of_a_photo),
    ):
        missing = [name for name in wanted if not any(hasattr(each, name) for each in owners)]
        assert wanted and not missing


def test_the_page_is_one_screen() -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 100
