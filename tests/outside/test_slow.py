"""A read that takes too long is named while it lasts, and others are not."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from camoxpert_nb.data.images import read_image
from camoxpert_nb.outside import slow


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slow.PATIENCE + slow.LOOK < 60  # noticed within a minute
    monkeypatch.setattr(slow, "PATIENCE", 0.2)
    monkeypatch.setattr(slow, "LOOK", 0.05)
    monkeypatch.setattr(slow, "_watcher", [0])


def wait_for(text: str, caplog: pytest.LogCaptureFixture) -> None:
    end = time.monotonic() + 20
    while text not in caplog.text and time.monotonic() < end:
        time.sleep(0.02)
    assert text in caplog.text


def test_a_file_that_never_comes_is_named(
    tmp_path: Path,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fine, hanging = tmp_path / "fine.png", tmp_path / "hanging.png"
    for path in (fine, hanging):
        Image.new("L", (4, 4)).save(path)
    answers, whole = threading.Event(), Image.open

    def wait(path: Path) -> Image.Image:
        if path == hanging:
            answers.wait(20)
        return whole(fine)

    monkeypatch.setattr(Image, "open", wait)
    reader = threading.Thread(target=read_image, args=(hanging,))
    reader.start()
    read_image(fine)
    wait_for("hanging.png: reading it takes longer than", caplog)
    answers.set()
    reader.join(20)
    assert not reader.is_alive() and "fine.png" not in caplog.text
    assert caplog.text.count("hanging.png") == 1
