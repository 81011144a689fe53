"""Whatever a file or a variable holds, a reader answers with a sentence."""

from __future__ import annotations

import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_nb.errors import InputError
from camoxpert_nb.kaggle.rules import DATASET, KERNEL, problems
from camoxpert_nb.outside.reading import in_words, read_json
from camoxpert_nb.runs.checkpoint import load_checkpoint, settings_of
from camoxpert_nb.runs.process import status
from camoxpert_nb.runs.records import Watch
from camoxpert_nb.runs.run import KINDS, Run
from camoxpert_nb.settings.config import Config
from camoxpert_nb.training.budget import minutes_left


class Stranger:
    """What only another program can unpickle."""


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "zeros": b"\0" * 64,
    "text": b"hello\nworld\n",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "page": b"\n<!DOCTYPE html><html></html>",
    "half": b'{"a": ',
    "utf16": '{"a": 1}'.encode("utf-16"),
    "latin1": b'{"a": "\xe9"}',
    "list": b"[1, 2]",
    "null": b"null",
    "number": b"3",
    "deep": b"[" * 100_000,
    "pickle": pickle.dumps({"a": Stranger}),
    "pickled list": pickle.dumps([1]),
    "zip": b"PK\3\4" + bytes(50),
    "gzip": b"\x1f\x8b\x08" + bytes(50),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "noise": bytes(range(128, 256)),
}


def read_run_json(name: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        path.rename(path.with_name(f"{name}.json"))
        return Run(path.parent).load_json(name)

    return read


def read_history(path: Path) -> Any:
    path.rename(path.with_name("history.jsonl"))
    return Run(path.parent).records()


def read_preview(path: Path) -> Any:
    path.rename(path.with_name("preview.npz"))
    return Run(path.parent).load_preview()


def read_metadata(name: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        path.rename(path.with_name(name))
        if found := problems(path.parent):
            raise InputError("\n".join(found))

    return read


READERS: dict[str, Callable[[Path], Any]] = {
    "checkpoint": load_checkpoint,
    "config": Config.load,
    "kernel": read_metadata(KERNEL),
    "dataset": read_metadata(DATASET),
    "preview": read_preview,
    **{name: read_run_json(name) for name in KINDS},
}


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_answers_with_a_sentence(reader: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(BROKEN[content])
    with pytest.raises(InputError) as caught:
        READERS[reader](tmp_path / "x")
    said = str(caught.value)
    assert len(said) > 40 and "weights_only" not in said
    assert "Git LFS" in said or content != "lfs" or reader == "preview"


def test_a_folder_in_the_place_of_a_file_is_said(tmp_path: Path) -> None:
    for read in (load_checkpoint, Config.load):
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path)


@pytest.mark.parametrize("content", ["lfs", "text", "list", "utf16", "noise"])
def test_a_history_without_a_record_is_no_new_run(content: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(BROKEN[content] + b"\n")
    with pytest.raises(InputError, match="no line is a record"):
        read_history(tmp_path / "x")


def test_foreign_lines_of_a_history_are_left_out(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log("start")
    with run.history_path.open("a") as file:
        file.write('[1]\nnull\n"kind"\n{"no": 1}\n{"kind": 3}\n{"torn\n')
    run.log("stop")
    assert [record["kind"] for record in Run(tmp_path).records()] == ["start", "stop"]


WRONG = [None, [], {}, "x", 3, True]


@pytest.mark.parametrize("name", KINDS)
def test_values_of_another_kind_are_named(name: str, tmp_path: Path) -> None:
    for key, kind in KINDS[name].items():
        if "." in key:
            continue
        kinds = kind if isinstance(kind, tuple) else (kind,)
        for value in (v for v in WRONG if not isinstance(v, kinds) or isinstance(v, bool)):
            (tmp_path / f"{name}.json").write_text(json.dumps({key: value}))
            with pytest.raises(InputError, match=f"{key} is"):
                Run(tmp_path).load_json(name)
            if name == "process":
                with pytest.raises(InputError):
                    status(Run(tmp_path))


def test_the_message_says_which_key_deeper_down(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"data": {"root": 3}}')
    with pytest.raises(InputError, match=r"data\.root is a whole number, expected a text"):
        Run(tmp_path).load_json("summary")


def test_a_mark_at_the_beginning_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}\r\n')
    assert read_json(tmp_path / "x", "a file") == {"a": 1}
    assert in_words("ä".encode() * 600) == "it is text"  # the last character is cut


@pytest.mark.parametrize(
    "values",
    [{}, {"net": {}}, {"config": {}}, {"config": 3, "net": {}}, {"config": {"no": 1}, "net": {}}],
)
def test_a_checkpoint_without_settings_is_none_of_ours(values: Any, tmp_path: Path) -> None:
    torch.save(values, tmp_path / "x.pt")
    if values == {"config": {}}:
        values["net"] = 3
    with pytest.raises(InputError, match=r"x\.pt"):
        settings_of(load_checkpoint(tmp_path / "x.pt"), tmp_path / "x.pt")


@pytest.mark.parametrize(
    "text", ["12h", "nan", "inf", "-1", "720", "1e99", "2026-11-27", "1795752841375"]
)
def test_a_deadline_that_is_none_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMOXPERT_DEADLINE", text)
    with pytest.raises(InputError, match=r"CAMOXPERT_DEADLINE is .*Unix time in seconds"):
        minutes_left()
    monkeypatch.setenv("CAMOXPERT_DEADLINE", f" {time.time() + 600:.0f} ")
    assert 9 < minutes_left() < 11


def test_a_watched_run_with_broken_files_says_which(tmp_path: Path) -> None:
    (tmp_path / "process.json").write_text("[]")
    with pytest.raises(InputError, match=r"process\.json"):
        Watch(Run(tmp_path))


@pytest.mark.parametrize("kind", ["pipe", "device", "circle"])
def test_what_never_ends_is_not_read(kind: str, tmp_path: Path) -> None:
    for name in ("config.json", "history.jsonl", "preview.npz", "last.pt"):
        path = tmp_path / name
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero" if kind == "device" else name)
    run = Run(tmp_path)
    for read in (
        lambda: run.load_json("config"),
        run.records,
        run.load_preview,
        lambda: run.load("last"),
    ):
        with pytest.raises(InputError, match=r"a pipe or a device|cannot be read"):
            read()


def test_a_checkpoint_that_swells_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "last.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    with pytest.raises(InputError, match="would swell to 10000000"):
        load_checkpoint(tmp_path / "last.pt")
