"""The report holds everything in one file, and nothing in it can act."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camoxpert_nb.cli import main
from camoxpert_nb.errors import InputError
from camoxpert_nb.evaluation.judge import Judged, judge
from camoxpert_nb.evaluation.predict import Predictor, Views
from camoxpert_nb.figures.report import write_report
from camoxpert_nb.network import build
from camoxpert_nb.runs.run import Run
from camoxpert_nb.settings.config import Config, make_config
from camoxpert_nb.training.fit import fit

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text, self.open = "", list[str]()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(camouflage: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    places = {"dataset_path": str(camouflage), "cache_dir": str(cache), "device": "cpu"}
    folder = tmp_path_factory.mktemp("report") / "run"
    return fit(make_config("tiny", checkpoint_dir=str(folder), **places))


@pytest.fixture(scope="module")
def judged(run: Run, camouflage: Path) -> list[Judged]:
    return judge(run, camouflage, device="cpu", views=Views(flip=True), threshold=True)


@pytest.fixture(scope="module")
def report(run: Run, judged: list[Judged]) -> Reader:
    path = write_report(run, judged)
    assert path == run.folder / "report.html"
    return Reader(path.read_text(encoding="utf-8"))


def test_nothing_is_fetched_and_nothing_runs(report: Reader) -> None:
    for tag, attributes in report.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "a"}
        assert not any(name.startswith("on") for name in attributes)
        assert "href" not in attributes
        assert attributes.get("src", "data:").startswith("data:")
    assert not re.search(r"https?://|url\(|@import", report.text)


def test_all_pictures_are_inside_and_whole(report: Reader) -> None:
    pictures = [attributes for tag, attributes in report.tags if tag == "img"]
    assert len(pictures) == 5  # the test set, its precision-recall, training, validation, experts
    for attributes in pictures:
        kind, data = attributes["src"].split(",")
        assert kind == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.width == 1300
            assert np.ptp(np.asarray(image)) > 200
        assert len(attributes["alt"]) > 10


def test_it_holds_settings_data_results_and_limits(
    report: Reader, run: Run, judged: list[Judged]
) -> None:
    summary, scores = run.load_json("summary"), judged[0].scores
    low, high = scores.interval["iou"]
    for wanted in (
        summary["data"]["fingerprint"],
        summary["versions"]["torch"],
        f"{scores.mean['iou']:.3f} ({low:.3f} to {high:.3f})",
        f"(n = {scores.n})",
        "training time to IoU",
        "Not set beside published results",
        "IoU at validation's threshold",
        "Test-time augmentation: seen as it is and mirrored",
        "another seed may change as much",
        "The backbone began with random weights",
        *(row["group"] for row in scores.by_size),
        *(item.name for item in dataclasses.fields(Config)),
    ):
        assert wanted in report.text, wanted


def test_words_from_outside_are_escaped_and_a_benchmark_stands_among_the_published(
    run: Run, judged: list[Judged], tmp_path: Path
) -> None:
    evil = "<script>alert(1)</script>&\"'"
    scores = dataclasses.replace(judged[0].scores, n=76)  # as many as CHAMELEON has
    named = dataclasses.replace(judged[0], name="CHAMELEON", note=evil, scores=scores)
    before = run.load_json("summary")
    run.save_json("summary", before | {"weights_source": evil, "precision": evil})
    found = Reader(write_report(run, [named], tmp_path / "r.html").read_text(encoding="utf-8"))
    run.save_json("summary", before)
    assert not [tag for tag, _ in found.tags if tag == "script"]
    assert found.text.count(evil) == 3
    assert "CHAMELEON: this run among published results." in found.text
    assert "this run, as it is and mirrored" in found.text
    assert "CamoFormer README" in found.text


def test_a_run_without_test_scores_or_end_says_so(run: Run, tmp_path: Path) -> None:
    half = Run(tmp_path / "half")
    half.folder.mkdir()
    for name in ("config.json", "history.jsonl", "split.json"):
        (half.folder / name).write_bytes((run.folder / name).read_bytes())
    text = Reader(write_report(half).read_text(encoding="utf-8")).text
    assert "This training has not ended" in text
    assert "No test set has been scored" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such settings file"):
        write_report(Run(tmp_path))


@pytest.mark.parametrize(
    ("flags", "predicted"),
    [([], 1), (["--validation-threshold"], 2), (["--validation-threshold", "--flip"], 3)],
)
def test_evaluating_with_a_report_opens_the_network_once_and_predicts_nothing_twice(
    run: Run, camouflage: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], predicted: int
) -> None:
    calls: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *words, **more: (calls.append(name), function(*words, **more))[1]

    load_run = counted("load_run", build.load_run)
    for module in [each for name, each in sys.modules.items() if name.startswith("camoxpert_nb")]:
        if "load_run" in vars(module):
            monkeypatch.setattr(module, "load_run", load_run)
    monkeypatch.setattr(Predictor, "predict", counted("predict", Predictor.predict))
    places = ["--run", str(run.folder), "--dataset-path", str(camouflage)]
    assert main.main(["evaluate", *places, "--report", *flags]) == 0
    assert (calls.count("load_run"), calls.count("predict")) == (1, predicted)


def test_each_set_keeps_its_report_and_the_newest_is_beside_the_run(
    run: Run, judged: list[Judged]
) -> None:
    (test,) = judged
    held_out = dataclasses.replace(test, name="CAMO validation", split="validation")
    odd = dataclasses.replace(test, name="a/b: c", split="all")
    newest = run.folder / "report.html"
    for sets, name in (
        ([test], f"{test.name}.html"),
        ([test, held_out], f"{'+'.join(sorted([test.name, 'CAMO_validation']))}.html"),
        ([odd], "a_b__c_all.html"),
    ):
        assert write_report(run, sets) == newest
        assert (run.folder / "reports" / name).read_bytes() == newest.read_bytes()
    assert len(list((run.folder / "reports").iterdir())) == 3
    elsewhere = run.folder / "mine.html"
    assert write_report(run, judged, elsewhere) == elsewhere and elsewhere.exists()
