from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.kaggle import missing as module
from camoxpert_nb.kaggle.missing import hub_answers, lacks_weights, missing
from camoxpert_nb.kaggle.session import Session
from camoxpert_nb.settings.config import Config, make_config

ASKS = make_config("balanced-2gpu", dataset_path="/data")


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("CAMOXPERT_WEIGHTS", "")
    monkeypatch.setattr(module, "hub_answers", lambda: False)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)


def said(*args: object, **how: object) -> list[str]:
    return list(missing(Session(), *args, **how))  # type: ignore[arg-type]


class TestWeights:
    def test_without_any_it_says_what_was_looked_for_and_what_repairs_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CAMOXPERT_WEIGHTS", "/in/resnet50.pth")
        (text,) = said(ASKS, 2, True)
        for part in (
            ASKS.backbone,
            "resnet50.pth",
            "Internet > on",
            ".safetensors",
            "From scratch",
        ):
            assert part in text

    def test_an_attached_file_a_cache_the_internet_or_a_wish_for_none_are_enough(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        assert lacks_weights(ASKS)
        for change in ({"pretrained": False}, {"weights": "a.pth"}, {"init_from": "runs/a"}):
            assert not lacks_weights(ASKS.replace(**change))
        with monkeypatch.context() as patch:
            patch.setenv("CAMOXPERT_WEIGHTS", f"/in/{ASKS.backbone}.usi_in1k.safetensors")
            assert not lacks_weights(ASKS)
        with monkeypatch.context() as patch:
            patch.setattr(module, "hub_answers", lambda: True)
            assert not lacks_weights(ASKS)
        name = f"models--timm--{ASKS.backbone}.usi_in1k/snapshots/0/model.safetensors"
        (tmp_path / "hub" / name).parent.mkdir(parents=True)
        (tmp_path / "hub" / name).touch()
        assert not lacks_weights(ASKS)
        assert lacks_weights(ASKS.replace(backbone="edgenext_small"))


class TestHub:
    def test_a_server_that_answers_is_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"http://127.0.0.1:{server.getsockname()[1]}"
            monkeypatch.setenv("HF_ENDPOINT", address)
            assert hub_answers()
        assert not hub_answers()

    def test_a_name_that_is_never_refused_costs_seconds(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ended = threading.Event()

        def never_answers(*_: object, **__: object) -> None:
            ended.wait(5)
            raise OSError

        monkeypatch.setattr(socket, "create_connection", never_answers)
        started = time.monotonic()
        assert not hub_answers(patience=0.1)
        assert time.monotonic() - started < 2
        ended.set()


class TestMachineAndData:
    def test_a_gpu_that_is_off_is_said(self) -> None:
        config = ASKS.replace(pretrained=False)
        (text,) = said(config, 0, True)
        assert "no GPU is on" in text and "Accelerator > GPU T4 x2" in text
        assert said(config.replace(device="cpu"), 0, True) == []
        assert said(config, 2, True) == []

    def test_one_gpu_alone_is_said_on_kaggle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = ASKS.replace(pretrained=False)
        assert said(config, 1, True) == []
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
        assert "only one GPU" in said(config, 1, True)[0]

    def test_no_images_are_said(self) -> None:
        (text,) = said(make_config("tiny"), 2, False)
        assert "no images with masks are attached" in text

    def test_few_images_that_will_validate_are_said(self, tmp_path: Path) -> None:
        def planted(count: int) -> Config:
            for part, end in (("Imgs", "jpg"), ("GT", "png")):
                (tmp_path / f"{count}" / part).mkdir(parents=True)
                for number in range(count):
                    (tmp_path / f"{count}" / part / f"{number}.{end}").touch()
            return ASKS.replace(pretrained=False, dataset_path=str(tmp_path / f"{count}"))

        (text,) = said(planted(60), 2, True)  # a tenth of them
        assert text.startswith("6 images validate: which epoch is the best is mostly chance.")
        assert said(planted(80), 2, True) == []
        assert said(planted(20).replace(val_share=0.4), 2, True) == []

    def test_two_sets_and_none_chosen_are_said(self, tmp_path: Path) -> None:
        for name, count in (("one", 3), ("two", 2)):
            for part, end in (("Imgs", "jpg"), ("GT", "png")):
                (tmp_path / name / part).mkdir(parents=True)
                for number in range(count):
                    (tmp_path / name / part / f"{name}{number}.{end}").touch()
        session = Session(sets=find_datasets(tmp_path))
        config = ASKS.replace(pretrained=False)
        (text,) = missing(session, config, 2, False)
        assert "2 image sets are attached and DATA is empty" in text and "5 images" in text
        assert f'DATA = "{tmp_path / "one"}"  # 3 to train' in text
        assert list(missing(session, config, 2, True)) == []
