from __future__ import annotations

import os

# One thread per process, children included: the networks of the tests are too small to share, and
# threads that wait for each other on busy cores cost ten times what they give.
os.environ["OMP_NUM_THREADS"] = "1"

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from camoxpert_nb.data.synthetic import make_synthetic
from camoxpert_nb.settings.config import Config, make_config


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the suite may reach beyond this machine."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> object:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"the test suite tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a command hands over to those it starts ends with its test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def camouflage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated data set in COD10K-v3's layout: 40 training and 8 test images of 64 px."""
    return make_synthetic(tmp_path_factory.mktemp("data") / "camouflage", train=40, test=8, size=64)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(camouflage: Path, cache: Path, tmp_path: Path) -> Config:
    """Settings of a whole training that takes about a second."""
    return make_config(
        "tiny",
        dataset_path=str(camouflage),
        cache_dir=str(cache),
        checkpoint_dir=str(tmp_path / "run"),
        device="cpu",
    )


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /kaggle/input; the current folder is /kaggle/working beside it."""
    root = tmp_path / "kaggle" / "input"
    root.mkdir(parents=True)
    (root.parent / "working").mkdir()
    monkeypatch.chdir(root.parent / "working")
    monkeypatch.setenv("CAMOXPERT_INPUT", str(root))
    for name in ("CAMOXPERT_CACHE", "CAMOXPERT_DEADLINE", "CAMOXPERT_WEIGHTS"):
        monkeypatch.setenv(name, "")  # so that what `begin` sets is taken back at the end
        monkeypatch.delenv(name)
    return root
