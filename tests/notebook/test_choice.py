"""What settings are called where they are chosen."""

from __future__ import annotations

import pytest

from camoxpert_nb.notebook import choice
from camoxpert_nb.notebook.choice import presets_table


def test_the_presets_stand_side_by_side_as_they_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_listed_gpus", list)

    def rows() -> dict[str, dict[str, str]]:
        head, rule, *lines = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in presets_table().splitlines()
        ]
        assert rule == ["---"] * len(head) and {len(line) for line in lines} == {len(head)}
        return {line[0]: dict(zip(head[1:], line[1:], strict=True)) for line in lines}

    found = rows()
    assert found["augment"]["auto"] == found["uncertainty"]["auto"] == "by the recipe"
    assert found["augment"]["demo"] == ""
    assert (found["img_size"]["auto"], found["epochs"]["auto"]) == ("192", "6")  # without a GPU
    assert found["img_size"]["balanced-2gpu"] == ""
    assert found["stage1_epochs"]["tiny"] == "1" and found["num_workers"]["tiny"] == "0"
    assert found["pretrained"]["demo"] == "off"
    monkeypatch.setattr(choice, "_listed_gpus", lambda: [15.0, 15.0])
    assert rows()["img_size"]["auto"] == "" and rows()["batch_size"]["auto"] == "16"
