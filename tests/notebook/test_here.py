"""Settings in Python are those of the command, also what follows from the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from camoxpert_nb import make_config
from camoxpert_nb.cli.train import choose
from camoxpert_nb.errors import InputError
from camoxpert_nb.notebook import choice


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("", {}),
        ("", {"dataset_path": "photos"}),
        ("auto", {"dataset_path": "photos", "epochs": 12}),
        ("auto", {}),
        ("demo", {"epochs": 3}),
        ("balanced-2gpu", {"lr": 1e-3}),
    ],
)
def test_it_is_what_train_chooses(
    preset: str, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_listed_gpus", list)
    options = {"preset": preset, "config": "", "dry_run": False, "fit_to_budget": False}
    expected = choose({**options, "json": "", "device": "cpu", **changes}).config
    assert make_config(preset, device="cpu", **changes) == expected


def test_a_folder_may_be_a_path_and_a_wrong_name_is_told() -> None:
    assert make_config(dataset_path=Path("photos")).dataset_path == "photos"
    with pytest.raises(InputError, match=r"unknown setting epoch.*epochs"):
        make_config("tiny", epoch=3)
    with pytest.raises(InputError, match="no preset 'tyni'"):
        make_config("tyni")
