import io
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camoxpert_nb.data import cache as cache_module
from camoxpert_nb.data.batches import PairDataset
from camoxpert_nb.data.cache import _name, cache_folder, open_cache, seconds_to_decode
from camoxpert_nb.data.reading import MaskReading
from camoxpert_nb.errors import InputError
from camoxpert_nb.settings.config import make_config

SIZE = 32


def no_decoding(monkeypatch):
    def fail(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache_module, "look", fail)


def test_cache_holds_images_and_binary_masks_in_the_order_of_the_pairs(pairs, tmp_path):
    cache = open_cache(pairs, SIZE, tmp_path / "cache")
    assert cache.array.shape == (10, 4, SIZE, SIZE)
    assert cache.array.dtype == np.uint8
    assert set(np.unique(cache.array[:, 3])) == {0, 1}
    for number, (red, _, blue, mask) in enumerate(cache.array):
        assert np.mean((red > 120) == mask) > 0.97
        assert abs(blue.mean() - 20 * number) < 4
        assert abs(mask.mean() - np.asarray(Image.open(pairs[number].mask)).mean() / 255) < 0.01


def test_cache_is_reused_without_decoding_and_reports_progress_once(pairs, tmp_path, monkeypatch):
    calls = []
    first = open_cache(pairs, SIZE, tmp_path, progress=lambda *done: calls.append(done))
    assert calls == [(n, 10) for n in range(1, 11)]
    no_decoding(monkeypatch)
    second = open_cache(pairs, SIZE, tmp_path, progress=lambda *done: calls.append(done))
    assert len(calls) == 10
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(first.array, second.array)


def test_another_size_or_order_makes_another_cache(pairs, tmp_path):
    variants = [(pairs, SIZE), (pairs, SIZE + 1), (pairs[::-1], SIZE), (pairs[1:], SIZE)]
    caches = [open_cache(some, size, tmp_path) for some, size in variants]
    assert len({cache.fingerprint for cache in caches}) == 4
    assert len({cache.path for cache in caches}) == 4


@pytest.mark.parametrize("hidden", ["size", "time"])
def test_a_changed_file_is_seen_by_its_time_or_its_size(pairs, tmp_path, hidden):
    first = open_cache(pairs, SIZE, tmp_path)
    path = pairs[4].mask
    before = path.stat()
    Image.fromarray(np.zeros((48, 60), np.uint8)).save(path)
    if hidden == "time":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        path.write_bytes(path.read_bytes().ljust(before.st_size, b"\0"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert (path.stat().st_size == before.st_size) == (hidden == "size")
    second = open_cache(pairs, SIZE, tmp_path)
    assert second.fingerprint != first.fingerprint
    assert first.array[4, 3].sum() > 0
    assert second.array[4, 3].sum() == 0


def array_file(array):
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


@pytest.mark.parametrize(
    "damage", [b"", b"not an array", array_file(np.zeros((10, 4, 8, 8), np.uint8)), None]
)
def test_a_damaged_cache_is_made_again(pairs, tmp_path, damage):
    first = open_cache(pairs, SIZE, tmp_path)
    whole = first.path.read_bytes()
    first.path.unlink()  # a new file, so that the old mapping stays as it is
    first.path.write_bytes(whole[:-100] if damage is None else damage)
    assert np.array_equal(open_cache(pairs, SIZE, tmp_path).array, first.array)
    assert first.path.read_bytes() == whole


def test_masks_in_colour_and_of_zeros_and_ones_are_read_right(pairs, tmp_path):
    expected = open_cache(pairs, SIZE, tmp_path / "a").array[:2, 3].copy()
    for pair, form in zip(pairs[:2], ("RGB", "L"), strict=True):
        mask = np.asarray(Image.open(pair.mask)) // 255
        mask = np.stack([mask * 255] * 3, 2) if form == "RGB" else mask
        Image.fromarray(mask).save(pair.mask)
    assert np.array_equal(open_cache(pairs, SIZE, tmp_path / "b").array[:2, 3], expected)


def test_masks_of_ids_are_known_again_from_the_cache(pairs, tmp_path, monkeypatch):
    """A file of 1 alone is an object, one of 1 and 2 is not: both are told, and empty ones."""
    for pair, values in zip(pairs, ((0, 1), (1, 2), (0, 0), (0, 128), (0, 129)), strict=False):
        grey = np.full(np.asarray(Image.open(pair.mask)).shape, values[0], np.uint8)
        grey[5:20, 5:20] = values[1]
        Image.fromarray(grey).save(pair.mask)
    told = {
        "zero_one": [pairs[0].name],
        "ids": [pairs[1].name, pairs[3].name],
        "empty": [pairs[2].name],
    }
    first = open_cache(pairs, SIZE, tmp_path / "cache")
    assert first.doubts == told
    assert first.array[:5, 3].any((1, 2)).tolist() == [True, False, False, False, True]
    no_decoding(monkeypatch)
    assert open_cache(pairs, SIZE, tmp_path / "cache").doubts == told


def test_an_empty_mask_that_says_so_in_its_name_is_no_doubt(pairs, tmp_path):
    nothing = np.zeros_like(np.asarray(Image.open(pairs[0].mask)))
    Image.fromarray(nothing).save(pairs[0].mask)
    assert open_cache(pairs[:1], SIZE, tmp_path).doubts == {"empty": ["p0"]}
    named = pairs[0]._replace(name="COD10K-NonCAM-1")
    assert open_cache([named], SIZE, tmp_path / "other").doubts == {}


def test_all_broken_files_are_named_in_one_error_and_nothing_stays(pairs, tmp_path):
    data = pairs[2].image.read_bytes()
    pairs[2].image.write_bytes(data[: len(data) // 2])
    Image.fromarray(np.zeros((60, 48), np.uint8)).save(pairs[7].mask)
    with pytest.raises(InputError) as caught:
        open_cache(pairs, SIZE, tmp_path / "cache")
    message = str(caught.value)
    assert message.startswith("2 of")
    assert "p2.jpg" in message
    assert "p7.png: the mask is 48x60 pixels, its image p7.jpg 60x48" in message
    assert "camoxpert data" in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_first_five_broken_files_are_named_and_the_rest_counted(pairs, tmp_path):
    for pair in pairs[:7]:
        pair.image.write_bytes(b"no photo")
    with pytest.raises(InputError, match=r"(?s)^7 of .*p0\.jpg.*p4\.jpg.*and 2 more") as caught:
        open_cache(pairs, SIZE, tmp_path / "cache")
    assert "p5.jpg" not in str(caught.value)


def test_a_missing_file_is_named(pairs, tmp_path):
    pairs[1].mask.unlink()
    with pytest.raises(InputError, match=r"p1\.png: No such file"):
        open_cache(pairs, SIZE, tmp_path / "cache")


def test_a_cache_folder_that_is_a_file_is_said(pairs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"decoded images cannot be written there .*--cache-dir"):
        open_cache(pairs, SIZE, tmp_path / "file")


def test_no_pairs_and_no_room_are_said(pairs, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no images"):
        open_cache([], SIZE, tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 0, 10))
    with pytest.raises(InputError, match="--cache-dir"):
        open_cache(pairs, SIZE, tmp_path)


def test_a_disk_that_fills_while_writing_is_said_and_nothing_stays(pairs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"No space left.*--cache-dir"):
        open_cache(pairs, SIZE, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


BUILDER = """
import sys
import time
from pathlib import Path
from camoxpert_nb.data.cache import open_cache
from camoxpert_nb.data.layouts import Pair
folder = Path(sys.argv[1])
pairs = [Pair(f"p{n}", folder / f"p{n}.jpg", folder / f"p{n}.png", "made") for n in range(10)]
(folder / f"ready{sys.argv[2]}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
print(int(open_cache(pairs, 32, folder / "cache").array.sum(dtype=int)))
"""


def test_two_processes_that_build_at_once_both_get_the_whole_cache(pairs, tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(tmp_path), str(n)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    while not all((tmp_path / f"ready{n}").exists() for n in range(2)):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    sums = [int(process.communicate(timeout=60)[0]) for process in processes]
    cache = open_cache(pairs, SIZE, tmp_path / "cache")
    assert sums == [cache.array.sum(dtype=int)] * 2
    assert {*(tmp_path / "cache").iterdir()} == {cache.path, cache.path.with_suffix(".json")}


def test_a_pickled_cache_carries_no_pixels(pairs, tmp_path):
    cache = open_cache(pairs, SIZE, tmp_path)
    data = pickle.dumps(cache)
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data).array, cache.array)


def test_the_cache_goes_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("CAMOXPERT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    config = make_config("tiny")
    assert cache_folder(config) == tmp_path / "xdg" / "camoxpert_nb"
    monkeypatch.setenv("CAMOXPERT_CACHE", str(tmp_path / "env"))
    assert cache_folder(config) == tmp_path / "env"
    assert cache_folder(config.replace(cache_dir=str(tmp_path))) == tmp_path


def test_an_ignored_label_is_a_channel_of_its_own(pairs, tmp_path):
    for pair in pairs:
        values = np.asarray(Image.open(pair.mask)) // 255
        values = values.astype(np.uint8)
        values[:10] = 255
        Image.fromarray(values).save(pair.mask)
    plain = open_cache(pairs, SIZE, tmp_path)
    assert plain.array.shape[1] == 4 and plain.doubts["void"]
    told = [pair._replace(how=MaskReading(ignore=255)) for pair in pairs]
    cache = open_cache(told, SIZE, tmp_path)
    assert cache.array.shape[1] == 5 and cache.fingerprint != plain.fingerprint
    assert "void" not in cache.doubts
    rows = round(10 / np.asarray(Image.open(pairs[0].mask)).shape[0] * SIZE)
    assert cache.array[:, 4, : rows - 1].all() and not cache.array[:, 4, rows + 1 :].any()
    assert not (cache.array[:, 3] & cache.array[:, 4]).any()
    batch = PairDataset(cache)[[0, 1]]
    assert batch["mask"].shape == (2, 2, SIZE, SIZE)


def test_what_a_killed_process_left_of_a_cache_goes_though_it_is_whole_by_now(pairs, tmp_path):
    half = tmp_path / "cache" / ".images.0123.part"

    def left() -> None:
        half.mkdir(parents=True)
        for name in ("held", "images-64px-0123.npy"):
            (half / name).write_bytes(b"half")

    for _ in range(2):  # while the cache is made, and when it is there
        left()
        open_cache(pairs, SIZE, tmp_path / "cache")
        assert sorted(path.suffix for path in half.parent.iterdir()) == [".json", ".npy"]


@pytest.mark.parametrize("which", ["image", "mask"])
@pytest.mark.parametrize("changed", ["time", "size", "place", "meaning", "pixels"])
def test_whatever_a_cache_was_made_from_names_it(pairs, tmp_path, which, changed):
    """One file of one pair in the middle, or how its mask is read, or the size in pixels."""
    before = _name(pairs, 32, tmp_path)
    file, size = getattr(pairs[4], which), 32
    status = file.stat()
    if changed == "time":
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    elif changed == "size":
        with file.open("ab") as opened:
            opened.write(b"more")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif changed == "place":
        (tmp_path / "other").mkdir()
        moved = tmp_path / "other" / file.name
        shutil.copy2(file, moved)
        pairs[4] = pairs[4]._replace(**{which: moved})
    elif changed == "meaning":
        pairs[4] = pairs[4]._replace(how=MaskReading(ignore=7))
    else:
        size = 33
    after = _name(pairs, size, tmp_path)
    assert after[:2] != before[:2] and after[0].name != before[0].name
    channels = 5 if changed == "meaning" else 4
    assert after[2] == (10, channels, size, size)


def test_a_cache_is_on_the_disk_before_it_has_its_name(pairs, tmp_path, monkeypatch):
    """The doubts are there first: who finds the images finds them too."""
    order, replace = [], Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: order.append("flushed"))

    def renamed(self, target):
        order.append(target.suffix)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", renamed)
    open_cache(pairs, 32, tmp_path / "cache")
    assert order == ["flushed", ".json", ".npy"]


def test_a_few_pairs_tell_how_long_all_take(pairs, tmp_path, monkeypatch):
    """Ten pairs, of which every third is decoded: four, each in a second."""
    clock, decoded = [0.0], []

    def decode(file, few, shape, progress):
        decoded.append(len(few))
        clock[0] += len(few)

    monkeypatch.setattr(cache_module, "TIMED", 3)
    monkeypatch.setattr(cache_module, "_decode_into", decode)
    monkeypatch.setattr(cache_module.time, "perf_counter", lambda: clock[0])
    assert seconds_to_decode(pairs, 32, tmp_path) == 10.0
    assert decoded == [4]


def test_progress_goes_on_from_chunk_to_chunk(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "CHUNK", 4)
    told = []
    open_cache(pairs, 32, tmp_path / "cache", progress=lambda *now: told.append(now))
    assert told == [(done, 10) for done in range(1, 11)]


def test_room_is_asked_for_all_channels(pairs, tmp_path, monkeypatch):
    """Ten pairs of 32 x 32 pixels in four channels."""
    asked = []
    monkeypatch.setattr(cache_module, "_require_space", lambda folder, needed: asked.append(needed))
    open_cache(pairs, 32, tmp_path / "cache")
    assert asked == [10 * 4 * 32 * 32]
