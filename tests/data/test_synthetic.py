from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from camoxpert_nb.data.images import image_size, read_grey, read_image
from camoxpert_nb.data.masks import read_mask
from camoxpert_nb.data.synthetic import make_synthetic
from camoxpert_nb.errors import InputError

Pairs = list[tuple[np.ndarray, np.ndarray]]


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """120 images with an object, each with its mask."""
    root = tmp_path_factory.mktemp("synthetic") / "set"
    make_synthetic(root, train=120, test=0, size=96, noncam=0)
    images = sorted((root / "Train/Image").glob("*.jpg"))
    masks = sorted((root / "Train/GT_Object").glob("*.png"))
    return [(read_image(i), read_mask(m)) for i, m in zip(images, masks, strict=True)]


def test_the_folder_is_laid_out_and_named_as_cod10k(tmp_path: Path) -> None:
    root = make_synthetic(tmp_path / "set", train=10, test=5, size=48, noncam=0.2)
    for split, count, empty in (("Train", 10, 2), ("Test", 5, 1)):
        images = sorted((root / split / "Image").glob("COD10K-*-9-Generated-*.jpg"))
        masks = sorted((root / split / "GT_Object").glob("*.png"))
        assert len(images) == count
        assert [path.stem for path in images] == [path.stem for path in masks]
        assert sum("-NonCAM-" in path.name for path in images) == empty
        for image, mask in zip(images, masks, strict=True):
            grey = read_grey(mask)
            assert image_size(image) == grey.shape
            assert min(grey.shape) == 48
            assert set(np.unique(grey)) == ({0} if "NonCAM" in mask.name else {0, 255})
    names = [path.stem for path in root.rglob("*.jpg")]
    assert len({name.split("-")[-1] for name in names}) == 15  # no number in both splits


def test_the_flat_layout_holds_the_same_images(tmp_path: Path) -> None:
    deep = make_synthetic(tmp_path / "deep", train=3, test=2, size=32)
    flat = make_synthetic(tmp_path / "flat", train=3, test=2, size=32, layout="flat")
    assert {path.parent.name for path in flat.rglob("*.*g")} == {"Imgs", "GT"}
    content = [
        {Path(name).name: data for name, data in files(root).items() if "json" not in name}
        for root in (deep, flat)
    ]
    assert len(content[0]) == 10
    assert content[0] == content[1]


def test_an_image_follows_from_the_seed_and_its_number_alone(tmp_path: Path) -> None:
    many, few, other = (
        files(make_synthetic(tmp_path / f"{train}-{seed}", train=train, test=2, size=32, seed=seed))
        for train, seed in ((6, 0), (3, 0), (3, 1))
    )
    del many["generated.json"], few["generated.json"], other["generated.json"]
    assert len(few) == 10
    assert few.items() <= many.items()
    assert not set(few.values()) & {data for name, data in other.items() if "Image" in name}
    images = [data for name, data in many.items() if "Image" in name]
    assert len(set(images)) == len(images)


def test_the_same_set_is_reused_and_nothing_else_is_overwritten(tmp_path: Path) -> None:
    root, calls = tmp_path / "set", []

    def make(**changes: object) -> None:
        wanted = {"train": 2, "test": 1, "size": 32} | changes
        make_synthetic(root, progress=lambda done, total: calls.append((done, total)), **wanted)

    make()
    assert calls == [(1, 3), (2, 3), (3, 3)]
    before = files(root)
    make()
    assert len(calls) == 3
    with pytest.raises(InputError, match="seed 0"):
        make(seed=1)
    assert files(root) == before
    next(root.rglob("*.jpg")).unlink()
    with pytest.raises(InputError, match="incomplete"):
        make()
    root = tmp_path / "photos"
    root.mkdir()
    (root / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="files"):
        make()
    assert files(root) == {"mine.txt": b"precious"}
    assert len(calls) == 3


def test_an_interrupted_call_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_synthetic(tmp_path / "set", train=2, test=0, size=32, progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": -1}, "at least one"),
        ({"train": 0, "test": 0}, "at least one"),
        ({"test": 10_001}, "10000"),
        ({"size": 31}, "32"),
        ({"noncam": 1.5}, "0 to 1"),
        ({"seed": -1}, "0 or more"),
        ({"layout": "CAMO"}, "COD10K-v3"),
    ],
)
def test_bad_settings_get_a_sentence(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_synthetic(tmp_path / "set", **({"train": 2, "test": 1, "size": 32} | changes))
    assert not list(tmp_path.iterdir())


def test_objects_cover_one_to_forty_per_cent(pairs: Pairs) -> None:
    areas = np.array([mask.mean() for _, mask in pairs])
    assert areas.min() > 0.008
    assert areas.max() < 0.42
    # log-uniform: a third each below 3.4 %, between, and above 11.7 %
    counts = np.histogram(areas, [0, 0.034, 0.117, 1])[0] / len(areas)
    assert counts.min() > 0.2


def iou(found: np.ndarray, mask: np.ndarray) -> float:
    return float((found & mask).sum() / max((found | mask).sum(), 1))


def test_neither_a_constant_nor_any_threshold_finds_the_object(pairs: Pairs) -> None:
    """Everything, or the data set's best threshold of either side, of grey or of a colour."""
    everything = np.mean([iou(np.ones_like(mask, bool), mask > 0) for _, mask in pairs])
    assert everything < 0.25
    best = 0.0
    with_grey = [np.dstack([image, image.mean(2)]) for image, _ in pairs]
    for channel, threshold, above in itertools.product(range(4), range(8, 256, 8), (True, False)):
        scores = [
            iou((image[..., channel] > threshold) == above, mask > 0)
            for image, (_, mask) in zip(with_grey, pairs, strict=True)
        ]
        best = max(best, float(np.mean(scores)))
    assert best < 0.25


def test_object_and_background_share_their_mean_colour(pairs: Pairs) -> None:
    """Signed and over the set: inside minus outside, in 8-bit levels, for each colour."""
    gaps = [image[mask > 0].mean(0) - image[mask == 0].mean(0) for image, mask in pairs]
    assert np.abs(np.mean(gaps, 0)).max() < 5
