"""Copies of a picture are known however they were made; other pictures are not taken for copies."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from camoxpert_nb.data import copies
from camoxpert_nb.data.copies import alike, groups, look_of, looks, remembered_looks
from camoxpert_nb.data.synthetic import make_synthetic


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = make_synthetic(tmp_path_factory.mktemp("copies") / "c", train=40, test=0, size=160)
    return sorted((root / "Train" / "Image").iterdir())


def saved(image: Image.Image, path: Path, **how: object) -> Path:
    image.save(path, **how)
    return path


def recoded(image: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data)


WAYS = {
    "png": lambda image: image,
    "low quality": lambda image: recoded(image, 25),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "square": lambda image: image.resize((97, 97)),
    "larger": lambda image: image.resize((image.width * 2, image.height * 2)),
    "grey": lambda image: image.convert("L"),
    "mirrored": ImageOps.mirror,
    "flipped": ImageOps.flip,
    "turned": lambda image: image.rotate(90, expand=True),
    "turned back": lambda image: image.rotate(270, expand=True),
    "upside down": lambda image: image.rotate(180),
    "mirrored and turned": lambda image: ImageOps.mirror(image).rotate(90, expand=True),
    "palette": lambda image: image.convert("P"),
    "with alpha": lambda image: image.convert("RGBA"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_known(photos, tmp_path, way):
    own = [look_of(path) for path in photos[:12]]
    made = []
    for number, path in enumerate(photos[:12]):
        with Image.open(path) as image:
            made.append(look_of(saved(WAYS[way](image.convert("RGB")), tmp_path / f"{number}.png")))
    found = alike(own, made).tolist()
    assert found == [[number, number] for number in range(12)]


def test_other_pictures_are_no_copies(photos):
    assert groups({path: look_of(path) for path in photos}) == []


def test_a_negative_is_another_picture(photos, tmp_path):
    with Image.open(photos[0]) as image:
        path = saved(ImageOps.invert(image.convert("RGB")), tmp_path / "negative.png")
    assert not len(alike([look_of(photos[0])], [look_of(path)]))


def test_groups_go_by_way_of_others_and_hold_each_picture_once(photos, tmp_path):
    paths = list(photos[:6])
    with Image.open(photos[0]) as image:
        paths += [saved(WAYS[way](image), tmp_path / f"{way}.png") for way in ("half", "mirrored")]
    (group,) = groups({path: look_of(path) for path in paths})
    assert set(group) == {photos[0], *paths[-2:]}


def test_flat_pictures_are_copies_only_with_the_same_pixels(tmp_path):
    def plain(name: str, grey: int, noise: int = 0) -> Path:
        values = np.full((64, 64), grey, np.uint8)
        values[3, 4] += noise
        return saved(Image.fromarray(values), tmp_path / name)

    paths = [plain("a.png", 90), plain("b.bmp", 90), plain("c.png", 91), plain("d.png", 90, 1)]
    (group,) = groups({path: look_of(path) for path in paths})
    assert group == paths[:2]


def test_what_cannot_be_read_looks_like_nothing(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    seen = looks([tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "gone.jpg"])
    assert set(seen.values()) == {""} and groups(seen) == []


def test_looks_are_remembered_until_a_file_changes(photos, tmp_path):
    calls: list[tuple[int, int]] = []
    store = tmp_path / "store"
    assert remembered_looks(photos, store) is None
    first = looks(photos, store, lambda *done: calls.append(done))
    assert calls == [(number, 40) for number in range(1, 41)]
    assert looks(photos, store, lambda *done: calls.append(done)) == first
    assert len(calls) == 40 and remembered_looks(photos, store) == first
    own = saved(Image.open(photos[0]), tmp_path / "own.png")
    looks([own], store)
    time.sleep(0.01)
    saved(ImageOps.invert(Image.open(photos[1]).convert("RGB")), own)
    assert remembered_looks([own], store) is None
    assert looks([own], store)[own] == look_of(own)


def test_a_store_that_cannot_be_written_or_read_is_done_without(photos, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert len(looks(photos[:3], file)) == 3
    store = tmp_path / "store"
    looks(photos[:3], store)
    next(store.iterdir()).write_text("{")
    assert len(looks(photos[:3], store)) == 3


def test_looks_come_in_the_order_asked_also_where_some_are_remembered(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(path)
    store = tmp_path / "store"
    looks(paths[3:], store)  # the later ones are known before the others
    seen = looks(paths, store)
    assert list(seen) == paths
    assert list(seen.values()) == [look_of(path) for path in paths]


def framed(image: Image.Image) -> Image.Image:
    """Return a picture as an endoscope shows it: a disc, black around it."""
    small = image.convert("RGB").resize((160, 128))
    disc = Image.new("L", small.size)
    ImageDraw.Draw(disc).ellipse((22, 6, 138, 122), fill=255)
    return Image.composite(small, Image.new("RGB", small.size), disc)


def test_a_frame_that_all_share_makes_no_copies(photos, tmp_path):
    paths = []
    for path in photos:
        with Image.open(path) as image:
            paths.append(saved(framed(image), tmp_path / path.with_suffix(".png").name))
    with Image.open(paths[3]) as image:
        paths.append(saved(ImageOps.mirror(image), tmp_path / "mirrored.jpg", quality=60))
    found = groups({path: look_of(path) for path in paths})
    assert found == [[paths[3], paths[-1]]]


def test_pictures_that_are_all_the_same_are_copies(photos, tmp_path):
    with Image.open(photos[0]) as image:
        paths = [saved(image, tmp_path / f"{n}.jpg", quality=50 + 4 * n) for n in range(10)]
    (group,) = groups({path: look_of(path) for path in paths})
    assert len(group) == 10


def test_what_another_kit_remembered_is_looked_at_anew(photos, tmp_path) -> None:
    store, paths = tmp_path / "store", photos[:3]
    store.mkdir()
    expected = looks(paths, store)
    (file,) = store.iterdir()
    values = json.loads(file.read_text())
    wrong = dict.fromkeys(values["looks"], "=wrong")
    file.write_text(json.dumps({**values, "looks": wrong}))
    assert set(looks(paths, store).values()) == {"=wrong"}  # it is asked
    file.write_text(json.dumps({"format": values["format"] + 1, "looks": wrong}))
    assert looks(paths, store) == expected


def test_a_picture_that_was_saved_anew_is_looked_at_anew(tmp_path) -> None:
    """Of the same name and size, a moment later."""
    path, store = tmp_path / "x.png", tmp_path / "store"
    store.mkdir()
    found = []
    for level, moment in ((40, 1), (90, 2)):
        Image.new("L", (40, 30), level).save(path, compress_level=0)
        os.utime(path, ns=(0, moment * 10**9))
        found.append(looks([path], store)[path])
    assert found[0] != found[1]
    assert remembered_looks([path], store) == {path: found[1]}
    assert remembered_looks([path, tmp_path / "other.png"], store) is None


def test_plain_pictures_of_one_colour_but_other_shapes_differ(tmp_path) -> None:
    flat = [tmp_path / f"{n}.png" for n in range(3)]
    for path, size in zip(flat, ((40, 30), (30, 40), (40, 30)), strict=True):
        Image.new("L", size, 70).save(path)
    seen = [*looks(flat).values()]
    assert alike(seen).tolist() == [[0, 2]]


def test_places_are_those_of_the_lists_whatever_lies_between(photos, monkeypatch) -> None:
    """With flat and unreadable ones among them, and compared two at a time."""
    seen = [*looks(photos[:7]).values()]
    mixed = ["", seen[0], "=1", *seen[1:]]
    monkeypatch.setattr(copies, "ROWS", 2)
    assert alike(mixed, seen).tolist() == [[1, 0], *([place + 2, place] for place in range(1, 7))]
    assert alike([*seen, seen[4]]).tolist() == [[4, 7]]


def test_a_chain_of_likenesses_is_one_group(monkeypatch) -> None:
    pairs = np.array([[0, 1], [1, 2], [4, 5]], np.intp)
    monkeypatch.setattr(copies, "alike", lambda these: pairs)
    found = groups(dict.fromkeys("abcdef", ""))
    assert found == [["a", "b", "c"], ["e", "f"]]
