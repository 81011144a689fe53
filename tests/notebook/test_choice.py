"""What settings are called where they are chosen."""

from __future__ import annotations

import shlex

import pytest

from camoxpert_nb.notebook import choice
from camoxpert_nb.notebook.choice import command_line, presets_table
from camoxpert_nb.settings.config import make_config


def test_in_a_notebook_a_long_command_is_broken_between_its_flags(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "_listed_gpus", list)
    config = make_config("tiny", dataset_path="/a b/" + 40 * "c", weights="/" + 60 * "w", epochs=9)
    (line,) = command_line(config).split("\n")
    monkeypatch.setattr(choice, "kernel_shell", object)
    lines = command_line(config).split("\n")
    assert lines[0] == f"camoxpert train --preset tiny --dataset-path '/a b/{40 * 'c'}' \\"
    assert lines[1] == f"    --weights /{60 * 'w'} --epochs 9"
    assert shlex.split(" ".join(lines).replace(" \\ ", " ")) == shlex.split(line)
    assert command_line(make_config("tiny")) == "camoxpert train --preset tiny"


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
