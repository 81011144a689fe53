"""What was meant is named, and nothing that is only a little like it."""

from __future__ import annotations

import pytest

from camoxpert_nb.outside.spelling import alike

PRESETS = ("auto", "tiny", "demo", "single-gpu", "balanced-2gpu", "high-res-2gpu")
COMMANDS = ("train", "resume", "evaluate", "compare", "predict", "export", "data", "lr-find")
FLAGS = ("--epochs", "--stage1-epochs", "--warmup-epochs", "--image-folder", "--img-size", "--lr")


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("sinlge-gpu", PRESETS, ["single-gpu"]),
        ("balanced2gpu", PRESETS, ["balanced-2gpu"]),
        ("tinny", PRESETS, ["tiny"]),
        ("trian", COMMANDS, ["train"]),
        ("evalute", COMMANDS, ["evaluate"]),
        ("--epochz", FLAGS, ["--epochs"]),
        ("--image-size", FLAGS, ["--img-size"]),
        ("something", COMMANDS, []),
        ("--zzz", FLAGS, []),
        ("run-a", ("run-b", "run-c", "run-d"), ["run-b", "run-c"]),
        ("x", (), []),
    ],
)
def test_only_near_names_are_guessed(word: str, known: tuple[str, ...], meant: list[str]) -> None:
    assert sorted(alike(word, known)) == sorted(meant)


def test_of_equally_near_names_the_first_in_the_alphabet_are_named() -> None:
    known = [f"net_lite{number}" for number in (3, 4, 0, 2, 1)]
    assert alike("net_lit", known) == ["net_lite0", "net_lite1"]
