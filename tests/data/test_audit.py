"""Each planted fault is found, named and explained; a clean set is called clean."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camoxpert_nb.data.audit import KINDS, Audit, audit, find_copies, report
from camoxpert_nb.data.layouts import find_datasets
from camoxpert_nb.data.masks import read_mask

SIZE = (24, 32)  # height, width


def photo(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def disc(size: tuple[int, int] = SIZE, share: float = 0.25) -> np.ndarray:
    """A mask of 0 and 255 whose first rows are object."""
    mask = np.zeros(size, np.uint8)
    mask.reshape(-1)[: round(share * mask.size)] = 255
    return mask


def save(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clean COD10K-v3: four CAM and two NonCAM images to train, two and one to test."""
    root = tmp_path / "COD10K-v3"
    plan = {"Train": (4, 2), "Test": (2, 1)}
    seed = 0
    for split, counts in plan.items():
        for kind, count in zip(("CAM", "NonCAM"), counts, strict=True):
            for number in range(count):
                stem = f"COD10K-{kind}-{split}-{number}"
                photo(root / split / "Image" / f"{stem}.jpg", seed := seed + 1)
                share = 0.25 if kind == "CAM" else 0
                save(root / split / "GT_Object" / f"{stem}.png", disc(share=share))
    return root


def look(root: Path) -> Audit:
    return audit(find_datasets(root))


def mask_of(root: Path, number: int = 0, split: str = "Train") -> Path:
    return root / split / "GT_Object" / f"COD10K-CAM-{split}-{number}.png"


def image_of(root: Path, number: int = 0, split: str = "Train") -> Path:
    return root / split / "Image" / f"COD10K-CAM-{split}-{number}.jpg"


def finding(found: Audit, kind: str, name: str, count: int = 1) -> str:
    """Check that `kind` alone was found and that the report names it; return the item."""
    assert [entry.kind for entry in found.findings] == [kind]
    items = found.findings[0].items
    assert len(items) == count
    assert name in items[0]
    text = report(found)
    assert items[0] in text
    assert KINDS[kind].title in text and KINDS[kind].advice in text
    assert text.endswith(found.verdict)
    return items[0]


def test_a_clean_set_is_called_clean(root):
    found = look(root)
    assert found.findings == ()
    assert found.verdict.startswith("Clean: 9 pairs")
    assert report(found).endswith(found.verdict)
    train, test = found.splits
    assert (train.dataset, train.split, train.folder) == ("COD10K-v3", "train", str(root))
    assert (train.pairs, train.cam, train.noncam, train.empty) == (6, 4, 2, 2)
    assert (test.pairs, test.cam, test.noncam, test.empty) == (3, 2, 1, 1)
    assert "COD10K-v3 train  6      4    2" in report(found)


def test_orphans_are_named(root):
    photo(root / "Train" / "Image" / "alone.jpg", 99)
    save(root / "Test" / "GT_Object" / "lonely.png", disc())
    found = look(root)
    assert [(entry.kind, entry.items) for entry in found.findings] == [
        ("image alone", ("Train/Image/alone.jpg",)),
        ("mask alone", ("Test/GT_Object/lonely.png",)),
    ]
    assert "Usable" in found.verdict and "2 warnings" in found.verdict


def test_empty_masks_are_named_unless_noncam(root):
    save(mask_of(root), disc(share=0))
    found = look(root)
    finding(found, "empty", mask_of(root).name)
    assert found.splits[0].empty == 3


@pytest.mark.parametrize("size", [(24, 24), (32, 24), (24, 33)])
def test_a_mask_of_another_shape_stops(root, size):
    save(mask_of(root), disc(size))
    found = look(root)
    item = finding(found, "shape", mask_of(root).name)
    assert f"{size[0]} x {size[1]}" in item and "24 x 32" in item
    assert found.verdict.startswith("Not usable yet: 1 of 9 pairs")


@pytest.mark.parametrize("size", [(48, 64), (12, 16), (99, 131)])
def test_a_mask_of_another_size_but_the_same_shape_is_a_note(root, size):
    save(mask_of(root), disc(size))
    found = look(root)
    finding(found, "size", mask_of(root).name)
    assert found.verdict.startswith("Clean")


@pytest.mark.parametrize("which", [image_of, mask_of])
@pytest.mark.parametrize("damage", ["cut", "text", "empty", "gone"])
def test_unreadable_files_are_named_with_the_reason(root, which, damage):
    path = which(root)
    sets = find_datasets(root)
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "text": b"hello"}.get(damage, b""))
    if damage == "gone":
        path.unlink()
    found = audit(sets)
    item = finding(found, "unreadable", path.name)
    assert "cannot be read (" in item and len(item) > len(path.name) + 20
    assert found.verdict.startswith("Not usable yet: 1 of 9 pairs")


def test_masks_of_zero_and_one(root):
    save(mask_of(root), disc() // 255)
    found = look(root)
    finding(found, "zero_one", mask_of(root).name)
    assert found.splits[0].empty == 2  # read as object, not as empty
    assert "Read as object = 1" in report(found)


def test_masks_with_grey_values(root):
    mask = disc()
    mask[0, :8] = 100
    save(mask_of(root), mask)
    item = finding(look(root), "grey", mask_of(root).name)
    assert f"{100 * 8 / mask.size:.1f} % of the pixels" in item


def test_coloured_masks(root):
    red = np.zeros((*SIZE, 3), np.uint8)
    red[:6, :, 0] = 255
    save(mask_of(root), red)
    found = look(root)
    assert [entry.kind for entry in found.findings] == ["empty", "colour"]  # red is dark: 76
    assert "above 128" in report(found)
    red[:6, :, 1] = 255
    save(mask_of(root), red)
    finding(look(root), "colour", mask_of(root).name)


def test_a_mask_with_three_equal_channels_is_an_ordinary_mask(root):
    save(mask_of(root), np.stack([disc()] * 3, axis=2))
    assert look(root).findings == ()


def test_the_audit_reads_masks_as_training_does(root):
    """The share of object behind `empty` and `tiny` is that of `read_mask`, however it is kept."""
    for mask in (disc(share=0.02), disc(share=0.02) // 255, disc(share=0.02) - disc() // 5):
        save(mask_of(root), mask)
        share = read_mask(mask_of(root)).mean()
        found = look(root).splits[0]
        assert found.empty == 2 + (share == 0)
        assert found.tiny == (1 / 4 if 0 < share < 0.03 else 0)


def test_copies_within_a_split(root):
    shutil.copy(image_of(root, 0), image_of(root, 2))
    item = finding(look(root), "copies", image_of(root, 0).name)
    assert image_of(root, 2).name in item


def test_training_images_in_the_test_set_are_a_leak(root):
    shutil.copy(image_of(root, 1), image_of(root, 0, "Test"))
    shutil.copy(image_of(root, 1), image_of(root, 1, "Test"))
    found = look(root)
    item = finding(found, "leak", image_of(root, 1).name)
    assert image_of(root, 0, "Test").name in item and image_of(root, 1, "Test").name in item
    assert "COD10K-v3 train" in item and "COD10K-v3 test" in item


def test_leaks_between_two_sets_are_found_under_other_names(root):
    other = root.parent / "CHAMELEON"
    (other / "Imgs").mkdir(parents=True)
    shutil.copy(image_of(root), other / "Imgs" / "animal-1.jpg")
    save(other / "GT" / "animal-1.png", disc())
    finding(look(root.parent), "leak", "animal-1.jpg (CHAMELEON test)")


def test_files_of_equal_size_and_other_content_are_no_copies(root):
    sizes = set()
    for number in range(3):
        path = image_of(root, number)
        content = path.read_bytes().ljust(5000, bytes([number]))
        path.write_bytes(content)
        sizes.add(path.stat().st_size)
    assert len(sizes) == 1
    assert look(root).findings == ()


def test_only_files_of_equal_size_are_hashed(root, monkeypatch):
    pairs = find_datasets(root)[0].train
    for number, pair in enumerate(pairs):
        pair.image.write_bytes(b"x" * (number + 1))
    pairs[1].image.write_bytes(b"x")
    read = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or original(path))
    assert find_copies({"train": pairs}) == [(("train", pairs[0].image), ("train", pairs[1].image))]
    assert sorted(read) == [pairs[0].image, pairs[1].image]


def test_two_sets_of_one_name_are_both_counted(root):
    shutil.copytree(root, root.parent / "again" / "COD10K-v3")
    found = look(root.parent)
    assert [split.pairs for split in found.splits] == [6, 3, 6, 3]
    assert [(entry.kind, len(entry.items)) for entry in found.findings] == [("copies", 9)]


def test_the_report_shows_five_names_and_counts_the_rest(root):
    for number in range(8):
        photo(root / "Train" / "Image" / f"alone-{number}.jpg", 100 + number)
    text = report(look(root))
    assert "images without a mask: 8" in text
    assert "alone-4.jpg" in text and "alone-5.jpg" not in text
    assert "and 3 more" in text


def test_progress_counts_every_pair_once_and_may_stop_the_audit(root):
    sets = find_datasets(root)
    seen: list[tuple[int, int]] = []
    audit(sets, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 9) for done in range(1, 10)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(sets, progress=stop)


def test_the_dictionary_survives_json(root):
    save(mask_of(root), disc((24, 24)))
    found = look(root)
    again = json.loads(json.dumps(found.as_dict()))
    assert again["verdict"] == found.verdict
    assert again["splits"][0]["noncam"] == 2
    entry = again["findings"][0]
    assert (entry["kind"], entry["weight"], len(entry["items"])) == ("shape", "stop", 1)
    assert entry["advice"] == KINDS["shape"].advice


def test_every_problem_of_a_pair_is_named_the_fatal_ones_first(root):
    save(mask_of(root, 1), disc((24, 24)))
    image_of(root, 2).write_bytes(b"no photo")
    save(mask_of(root, 3), disc((48, 64)) // 255)
    found = look(root)
    assert [(entry.kind, KINDS[entry.kind].weight) for entry in found.findings] == [
        ("unreadable", "stop"),
        ("shape", "stop"),
        ("zero_one", "note"),
        ("size", "note"),
    ]
    files = (image_of(root, 2), mask_of(root, 1), mask_of(root, 3), mask_of(root, 3))
    for entry, path in zip(found.findings, files, strict=True):
        (item,) = entry.items
        assert item.startswith(f"{path.name} (")
    assert found.count("stop") == 2


def test_sets_that_only_train_or_only_test(tmp_path):
    for folder in ("animals", "NC4K"):
        photo(tmp_path / folder / "Imgs" / f"{folder}.jpg", len(folder))
        save(tmp_path / folder / "GT" / f"{folder}.png", disc())
    found = look(tmp_path)
    assert [(split.dataset, split.split) for split in found.splits] == [
        ("NC4K", "test"),
        ("animals", "train"),
    ]
    assert found.verdict.startswith("Clean: 2 pairs")
