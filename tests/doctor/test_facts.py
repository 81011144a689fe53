"""Facts made up, findings real: each fault of a machine is named, with what mends it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from camoxpert_nb.doctor import facts
from camoxpert_nb.doctor.facts import (
    Card,
    Facts,
    has_kernels,
    list_findings,
    parse_driver,
    read_facts,
    read_ram,
)

WHEEL = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
T4 = Card(0, "Tesla T4", 14.6, 14.5, (7, 5), 40, True)
HEALTHY = Facts(
    system="Linux 6.6, Python 3.12",
    torch="2.10.0+cu128",
    cuda="12.8",
    architectures=WHEEL,
    driver="570.86",
    driver_cuda="12.8",
    present=2,
    visible=None,
    cards=(T4, dataclasses.replace(T4, index=1)),
    cuda_error="",
    cores=4,
    ram_gib=31.4,
    ram_free_gib=29.0,
    shm_gib=14.0,
    disk_gib=19.5,
    folder="/kaggle/working",
    kaggle=True,
)
NO_GPU: dict[str, Any] = {"cards": (), "present": 0, "driver": "", "driver_cuda": ""}


def test_two_good_cards_have_no_findings() -> None:
    assert list_findings(HEALTHY) == []


@pytest.mark.parametrize(
    ("changes", "weight", "what", "fix"),
    [
        (NO_GPU, "warn", "no GPU", "GPU T4 x2"),
        (NO_GPU | {"kaggle": False}, "note", "no NVIDIA GPU", "CPU"),
        ({"cards": (), "cuda": ""}, "warn", "built without CUDA", "CUDA build"),
        ({"cards": (), "driver_cuda": "11.4"}, "stop", "serves CUDA 11.4", "Update the driver"),
        ({"cards": (), "cuda_error": "error 802"}, "stop", "error 802", "--gpus all"),
        ({"cards": (T4,), "visible": "1"}, "warn", "CUDA_VISIBLE_DEVICES='1'", "Unset"),
        ({"cards": (), "visible": ""}, "warn", "leaves 0", "Unset"),
        (
            {"cards": (Card(0, "Tesla P100", 15.9, 15.8, (6, 0), 56, False),), "present": 1},
            "stop",
            "compute capability 6.0",
            "GPU T4 x2",
        ),
        (
            {
                "cards": (Card(0, "Tesla P100", 15.9, 15.8, (6, 0), 56, False),),
                "present": 1,
                "kaggle": False,
            },
            "stop",
            "sm_70",
            "cu126",
        ),
        (
            {"cards": (dataclasses.replace(T4, free_gib=4.6),), "present": 1},
            "warn",
            "10.0 of 14.6 GiB",
            "nvidia-smi",
        ),
        (
            {"cards": (T4, dataclasses.replace(T4, index=1, name="L4"))},
            "note",
            "differ",
            "--gpus",
        ),
        ({"shm_gib": 0.0625}, "warn", "64 MiB", "--shm-size"),
        ({"ram_free_gib": 1.5}, "warn", "1.5 GiB of RAM", "--num-workers 0"),
        ({"disk_gib": 0.4}, "warn", "/kaggle/working", "--cache-dir"),
    ],
)
def test_each_fault_is_named_with_what_mends_it(
    changes: dict[str, Any], weight: str, what: str, fix: str
) -> None:
    (found,) = list_findings(dataclasses.replace(HEALTHY, **changes))
    assert found.weight == weight
    assert what in found.what
    assert fix in found.fix


def test_the_gravest_finding_comes_first() -> None:
    old = dataclasses.replace(T4, has_kernels=False)
    faults = dataclasses.replace(HEALTHY, cards=(old, old), disk_gib=1.0)
    assert [each.weight for each in list_findings(faults)] == ["stop", "stop", "warn"]


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 5), WHEEL, True),
        ((6, 0), WHEEL, False),  # a P100 under a build that starts with Volta
        ((8, 9), WHEEL, True),  # an L4: sm_86 code runs on it
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_90a",), True),
        ((9, 1), ("sm_90a",), False),
        ((12, 0), ("sm_90", "compute_90"), True),
        ((7, 5), ("sm_90", "compute_90"), False),
        ((11, 0), WHEEL, False),
        ((7, 5), (), True),
    ],
)
def test_kernels_run_where_nvidia_says_they_do(
    capability: tuple[int, int], architectures: tuple[str, ...], runs: bool
) -> None:
    assert has_kernels(capability, architectures) is runs


def test_the_drivers_answer_is_read_in_its_older_and_newer_wording() -> None:
    older = "Driver Version       : 550.54.15\nCUDA Version         : 12.4\nAttached GPUs  : 2\n"
    newer = "KMD Version          : 595.45\nCUDA UMD Version     : 13.2\nAttached GPUs  : 1\n"
    assert parse_driver(older) == ("550.54.15", "12.4", 2)
    assert parse_driver(newer) == ("595.45", "13.2", 1)
    assert parse_driver("") == ("", "", 0)


def test_a_containers_memory_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 33554432 kB\nMemAvailable: 31457280 kB\n")
    assert read_ram(tmp_path, tmp_path) == (32.0, 30.0)
    (tmp_path / "memory.max").write_text(f"{8 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{7 * 2**30}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {5 * 2**30}\n")
    assert read_ram(tmp_path, tmp_path) == (8.0, 6.0)  # what files left in the cache is free
    assert read_ram(tmp_path / "none", tmp_path) == (None, None)


def test_the_facts_of_this_machine_can_be_read(tmp_path: Path) -> None:
    facts = read_facts(2, tmp_path / "not" / "there")
    assert facts.folder == str(tmp_path)
    assert len(facts.rows()) >= 9
    assert facts.torch == torch.__version__


def test_a_card_is_read_as_pytorch_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    info = SimpleNamespace(
        name="Tesla P100", total_memory=16 * 2**30, major=6, minor=0, multi_processor_count=56
    )

    def cannot_open(index: int) -> tuple[int, int]:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: info)
    monkeypatch.setattr(torch.cuda, "mem_get_info", cannot_open)
    card = facts._read_card(0, WHEEL)
    assert card == Card(0, "Tesla P100", 16.0, None, (6, 0), 56, False)
    assert "NO kernels" in card.describe()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (4 * 2**30, 16 * 2**30))
    assert facts._read_card(0, WHEEL).free_gib == 4.0
    assert "4.0 GiB free" in facts._read_card(0, WHEEL).describe()
