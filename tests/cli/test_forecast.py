"""`camoxpert train --dry-run --on CARD`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from camoxpert_nb.cli import main as cli

DRY = ["train", "--dry-run", "--preset", "tiny", "--images", "400"]


def test_a_training_is_forecast_for_a_card_that_is_not_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "forecast.json"
    assert cli.main([*DRY, "--on", "t4x2", "--batch-size", "8", "--json", str(file)]) == 0
    said, found = capsys.readouterr().out, json.loads(file.read_text())
    assert found["text"] in said and "2 x Tesla T4" in said
    assert found["gpus"] == 2 and [row["batch"] for row in found["stages"]] == [8] * len(
        found["stages"]
    )
    assert found["stages"][0]["step"]["seconds"]["high"] > 0


def test_the_preset_is_that_of_the_card(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from camoxpert_nb.forecast import forecast

    seen = []
    monkeypatch.setattr(
        forecast, "forecast_on", lambda config, *rest: seen.append(config) or {"text": "-"}
    )
    for card in ("t4x2", "h100", "rtx3060"):
        assert cli.main(["train", "--dry-run", "--on", card]) == 0
    assert [config.batch_size for config in seen] == [16, 12, 8]
    assert {config.preset for config in seen} == {"auto"}
    assert "preset auto chosen: 2 GPUs, batch 16 and 12 on each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["train", "--on", "t4"], "belong together"),
        (["train", "--dry-run", "--images", "9"], "belong together"),
        ([*DRY[:-1], "0", "--on", "t4"], "must be at least 1"),
        ([*DRY, "--on", "rtx309"], "Near: rtx3090"),
        ([*DRY, "--on", "t4", "--fit-to-budget"], "leave out --fit-to-budget"),
        ([*DRY, "--on", "t4", "--resume-from", "run"], "leave out --fit-to-budget"),
    ],
)
def test_what_makes_no_forecast_is_refused(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) != 0
    assert reason in capsys.readouterr().err
