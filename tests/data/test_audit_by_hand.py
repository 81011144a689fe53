"""The report of a data set, whole: counts, findings in their order, and the verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camoxpert_nb.data.audit import Audit, SplitCount, audit, find_copies, report
from camoxpert_nb.data.findings import Finding
from camoxpert_nb.data.layouts import look_through
from camoxpert_nb.data.pairs import ImageSet, Pair
from camoxpert_nb.data.reading import AUTOMATIC, MaskReading


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 20, 3))


def mask(side: int) -> np.ndarray:
    """A square object in the middle of 20 x 20."""
    values = np.zeros((20, 20))
    values[10 - side // 2 : 10 + side // 2, 10 - side // 2 : 10 + side // 2] = 255
    return values


def pair(root: Path, name: str, seed: int, object: np.ndarray, how: MaskReading | None = None):
    image = save(root / "Imgs" / f"{name}.png", photo(seed))
    drawn = save(root / "GT" / f"{name}.png", object)
    return Pair(name, image, drawn, root.name, how or MaskReading())


def test_a_split_counts_what_is_there(tmp_path: Path) -> None:
    """Objects of 4, 2 and 0 pixels a side: 4 %, 1 % and nothing; one of them is meant so."""
    objects = {"a": 4, "b": 2, "c": 0, "d-NonCAM": 0, "e": 10}
    pairs = [pair(tmp_path, name, n, mask(side)) for n, (name, side) in enumerate(objects.items())]
    found = audit([ImageSet("s", "flat", tmp_path, tuple(pairs), ())])
    (row,) = found.splits
    assert row == SplitCount("s", "train", str(tmp_path), 5, 4, 1, 2, pytest.approx(1 / 3))
    assert [(each.kind, each.place, len(each.items)) for each in found.findings] == [
        ("empty", "s train", 1)
    ]
    assert found.findings[0].items[0].startswith("c.png (")
    assert found.verdict == "Usable: 5 pairs. Read the 1 warnings before trusting a number."


def test_the_report_is_a_table_then_each_finding_then_the_verdict() -> None:
    splits = (
        SplitCount("COD10K", "train", "/data/a", 3040, 3000, 40, 2, 0.125),
        SplitCount("x", "test", "b", 7, 7, 0, 0, 0.0),
    )
    items = tuple(f"m{number}.png (why)" for number in range(7))
    findings = (Finding("shape", "x test", items), Finding("grey", "x test", items[:1]))
    found = Audit(splits, findings)
    head = (
        "split         pairs  CAM   NonCAM  empty  object < 3%  folder\n"
        "COD10K train  3040   3000  40      2      12%          /data/a\n"
        "x test        7      7     0       0      0%           b\n"
        "\n"
    )
    shape = (
        "[stop] x test, masks of another shape than their image: 7\n"
        "    m0.png (why)\n    m1.png (why)\n    m2.png (why)\n    m3.png (why)\n"
        "    m4.png (why)\n"
    )
    advice = "    -> Put the mask that belongs to the image in its place, or remove both.\n\n"
    grey = (
        "[note] x test, masks with grey values: 1\n    m0.png (why)\n"
        "    -> Read as object where grey is above 128.\n\n"
    )
    verdict = "Not usable yet: 7 of 3047 pairs stop training. Mend or remove them."
    some = "    and 2 more (--all shows them)\n"
    every = "    m5.png (why)\n    m6.png (why)\n"
    assert report(found) == head + shape + some + advice + grey + verdict
    assert report(found, None) == head + shape + every + advice + grey + verdict


@pytest.mark.parametrize(
    ("kinds", "verdict"),
    [
        ([], "Clean: 4 pairs, every file readable, every mask fits, no copies."),
        (["grey"], "Clean: 4 pairs, every file readable, every mask fits, no copies."),
        (["full", "grey"], "Usable: 4 pairs. Read the 2 warnings before trusting a number."),
        (
            ["full", "unreadable"],
            "Not usable yet: 2 of 4 pairs stop training. Mend or remove them.",
        ),
        (
            ["unreadable", "nothing"],
            "Not usable yet: 4 pairs, but the masks as they are read teach nothing.",
        ),
    ],
)
def test_the_verdict_is_that_of_the_gravest_finding(kinds: list[str], verdict: str) -> None:
    splits = tuple(SplitCount("s", side, "", 2, 2, 0, 0, 0.0) for side in ("train", "test"))
    found = Audit(splits, tuple(Finding(kind, "s", ("a", "b")) for kind in kinds))
    assert found.verdict == found.as_dict()["verdict"] == verdict


def test_plain_values_hold_what_to_do_about_each_finding() -> None:
    split = SplitCount("s", "train", "/d", 2, 1, 1, 0, 0.5)
    found = Audit((split,), (Finding("alpha", "s train", ("a",)),)).as_dict()
    assert found["splits"] == [
        {
            "dataset": "s",
            "split": "train",
            "folder": "/d",
            "pairs": 2,
            "cam": 1,
            "noncam": 1,
            "empty": 0,
            "tiny": 0.5,
        }
    ]
    assert found["findings"] == [
        {
            "kind": "alpha",
            "place": "s train",
            "items": ("a",),
            "title": "masks in the alpha channel",
            "weight": "note",
            "advice": "Read from there.",
        }
    ]


def test_copies_are_told_with_their_places_each_place_among_the_first(tmp_path: Path) -> None:
    def held(folder: str, *names: str) -> tuple[Pair, ...]:
        made = [pair(tmp_path / folder, name, 1, mask(8)) for name in names]
        return tuple(made)

    train, test = held("one", "a", "b", "c", "d", "e", "f"), held("two", "x")
    own = (pair(tmp_path / "two", "y", 2, mask(8)),)
    found = audit([ImageSet("s", "flat", tmp_path, train, test + own)])
    (leak,) = found.findings
    assert (leak.kind, leak.place) == ("leak", "all splits")
    assert leak.items == (
        "a.png (s train) = x.png (s test) = b.png (s train) = c.png (s train) = d.png (s train) "
        "= 2 more",
    )
    groups = find_copies({"here": train[:2], "there": test + own})
    assert groups == [
        (("here", train[0].image), ("here", train[1].image), ("there", test[0].image))
    ]
    (alike,) = audit([ImageSet("s", "flat", tmp_path, train[:2], own)]).findings
    assert (alike.kind, alike.items) == ("copies", ("a.png (s train) = b.png (s train)",))


def test_a_value_that_no_mask_has_is_told(tmp_path: Path) -> None:
    how = MaskReading("255,3,7")
    pairs = tuple(pair(tmp_path, name, n, mask(8), how) for n, name in enumerate("ab"))
    (found,) = audit([ImageSet("s", "flat", tmp_path, pairs, ())]).findings
    assert (found.kind, found.place) == ("unnamed", "s train")
    assert found.items == ("no mask has the value 3", "no mask has the value 7")


def test_orphans_and_what_lies_beside_are_findings_of_their_set(tmp_path: Path) -> None:
    for n, name in enumerate("ab"):
        pair(tmp_path / "set", name, n, mask(8))
    save(tmp_path / "set" / "Imgs" / "alone.png", photo(9))
    save(tmp_path / "set" / "GT" / "lost.png", mask(8))
    save(tmp_path / "set" / "extra" / "q.png", photo(8))
    save(tmp_path / "set" / "Edge" / "q.png", photo(7))
    found = audit(look_through(tmp_path / "set", AUTOMATIC))
    told = [(each.kind, each.place, each.items) for each in found.findings]
    assert told == [
        ("unused", str(tmp_path / "set"), ("extra: 1 images whose masks were not found (q.png)",)),
        ("beside", str(tmp_path / "set"), ("Edge: 1 files beside the images and masks used",)),
        ("image alone", "set", ("Imgs/alone.png",)),
        ("mask alone", "set", ("GT/lost.png",)),
    ]
