import io
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from camoxpert_nb.data import cache as cache_module
from camoxpert_nb.data.augment import K
from camoxpert_nb.data.batches import Batches, PairDataset, choose_workers, make_loader
from camoxpert_nb.data.cache import open_cache
from camoxpert_nb.data.layouts import Pair
from camoxpert_nb.errors import InputError

SIZE = 32


def ellipse(size=(60, 48), left=0.25):
    """A mask of 0 and 1 whose object fills a known part of the picture."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    return (((x / width - left) / 0.2) ** 2 + ((y / height - 0.5) / 0.3) ** 2 < 1).astype(np.uint8)


@pytest.fixture
def pairs(tmp_path):
    """Ten photos whose red channel is bright exactly where the mask is; blue tells them apart."""
    made = []
    for number in range(10):
        mask = ellipse(left=0.3 + 0.04 * number)
        image = np.stack([40 + 160 * mask, 90 * np.ones_like(mask), 20 * number + 0 * mask], 2)
        pair = Pair(f"p{number}", tmp_path / f"p{number}.jpg", tmp_path / f"p{number}.png", "made")
        Image.fromarray(image.astype(np.uint8)).save(pair.image, quality=95)
        Image.fromarray(mask * 255).save(pair.mask)
        made.append(pair)
    return made


@pytest.fixture
def cached(pairs, tmp_path):
    return PairDataset(open_cache(pairs, SIZE, tmp_path / "cache"), seed=3)


def no_decoding(monkeypatch):
    def fail(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache_module, "read_image", fail)


# --- the cache


def test_cache_holds_images_and_binary_masks_in_the_order_of_the_pairs(pairs, tmp_path):
    cache = open_cache(pairs, SIZE, tmp_path / "cache")
    assert cache.array.shape == (10, 4, SIZE, SIZE)
    assert cache.array.dtype == np.uint8
    assert set(np.unique(cache.array[:, 3])) == {0, 1}
    for number, (red, _, blue, mask) in enumerate(cache.array):
        assert np.mean((red > 120) == mask) > 0.97
        assert abs(blue.mean() - 20 * number) < 4
        assert abs(mask.mean() - ellipse(left=0.3 + 0.04 * number).mean()) < 0.01


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
    assert list((tmp_path / "cache").iterdir()) == [cache.path]


def test_a_pickled_cache_carries_no_pixels(cached):
    data = pickle.dumps(cached)
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data).cache.array, cached.cache.array)


# --- batches


def test_batch_has_the_promised_tensors(cached):
    batch = cached[[4, 1, 7]]
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "image": ((3, 3, SIZE, SIZE), torch.uint8),
        "mask": ((3, 1, SIZE, SIZE), torch.uint8),
        "index": ((3,), torch.int64),
        "uniform": ((3, K), torch.float32),
    }
    assert batch["index"].tolist() == [4, 1, 7]
    assert set(batch["mask"].unique().tolist()) == {0, 1}
    assert np.array_equal(batch["image"][2].numpy(), cached.cache.array[7, :3])
    assert np.array_equal(batch["mask"][2, 0].numpy(), cached.cache.array[7, 3])
    assert all(value.is_contiguous() for value in batch.values())


def test_uniform_depends_on_seed_epoch_and_index_alone(cached):
    together = cached[list(range(10))]["uniform"]
    apart = torch.cat([cached[[position]]["uniform"] for position in range(10)])
    assert torch.equal(together, apart)
    assert torch.equal(cached[[7, 2]]["uniform"], together[[7, 2]])
    assert together.min() >= 0
    assert together.max() < 1
    next_epoch = cached[[10 + 4]]
    assert next_epoch["index"].tolist() == [4]
    other_seed = PairDataset(cached.cache, seed=4)[[4]]["uniform"]
    rows = [*together, next_epoch["uniform"][0], other_seed[0]]
    assert len({tuple(row.tolist()) for row in rows}) == 12


def test_uniform_is_uniform(cached):
    numbers = torch.cat([cached[range(10 * e, 10 * e + 10)]["uniform"] for e in range(300)])
    assert torch.allclose(numbers.mean(0), torch.tensor(0.5), atol=0.03)
    assert torch.allclose(numbers.var(0), torch.tensor(1 / 12), atol=0.01)
    between_columns = torch.corrcoef(numbers.T) - torch.eye(K)
    assert between_columns.abs().max() < 0.1
    between_epochs = torch.corrcoef(torch.stack([numbers[:-10].ravel(), numbers[10:].ravel()]))
    assert abs(between_epochs[0, 1]) < 0.05


# --- the order


def epoch_of(batches, epoch=0, start=0):
    batches.set_epoch(epoch, start)
    return list(batches)


def test_training_order_is_a_new_permutation_each_epoch_and_repeatable():
    batches = Batches(20, 4, seed=1)
    first, second = epoch_of(batches, 0), epoch_of(batches, 1)
    assert sorted(chain(*first)) == list(range(20))
    assert sorted(chain(*second)) == list(range(20, 40))
    assert [position - 20 for position in chain(*second)] != list(chain(*first))
    assert list(chain(*first)) != list(range(20))
    assert epoch_of(Batches(20, 4, seed=1), 1) == second
    assert epoch_of(Batches(20, 4, seed=2), 0) != first


def test_only_full_batches_in_training():
    batches = Batches(23, 4)
    assert [len(batch) for batch in batches] == [4] * 5
    assert len(batches) == 5


def test_resuming_in_the_middle_gives_the_tail_and_leaves_the_length():
    batches = Batches(23, 4, seed=5)
    whole = epoch_of(batches, 3)
    assert epoch_of(batches, 3, start=2) == whole[2:]
    assert len(batches) == len(whole) == 5
    assert epoch_of(batches, 3, start=5) == []


@pytest.mark.parametrize("count", [24, 29])
def test_ranks_together_see_what_one_process_with_the_larger_batch_sees(count):
    one = epoch_of(Batches(count, 6, seed=7), 2)
    ranks = [epoch_of(Batches(count, 3, seed=7, rank=r, world=2), 2) for r in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == len(one) == 4
    for whole, mine, other in zip(one, *ranks, strict=True):
        assert not set(mine) & set(other)
        assert sorted(mine + other) == sorted(whole)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 10, 11])
def test_evaluation_sees_every_image_once_in_order(count, world):
    ranks = [Batches(count, 4, training=False, rank=r, world=world) for r in range(world)]
    lists = [list(rank) for rank in ranks]
    assert [len(rank) for rank in ranks] == [len(batches) for batches in lists]
    assert all(0 < len(batch) <= 4 for batches in lists for batch in batches)
    seen = [list(chain(*batches)) for batches in lists]
    assert all(positions == sorted(positions) for positions in seen)
    assert sorted(chain(*seen)) == list(range(count))


def test_batch_larger_than_the_data_says_what_fits():
    with pytest.raises(InputError, match=r"--batch-size 5 or less") as caught:
        Batches(10, 6, world=2)
    assert "12 images (6 on each of 2 devices)" in str(caught.value)
    with pytest.raises(InputError, match=r"0 images\. Use more images"):
        Batches(0, 2)
    assert list(Batches(10, 16, training=False)) == [list(range(10))]


# --- the loader


def test_two_spawned_workers_give_the_same_batches_as_none(cached):
    batches = Batches(len(cached), 3, seed=9)
    with_workers = make_loader(cached, batches, workers=2)
    assert len(with_workers) == 3
    for epoch, start in ((0, 0), (1, 1)):
        batches.set_epoch(epoch, start)
        expected = list(make_loader(cached, batches))
        assert len(expected) == 3 - start
        for batch, wanted in zip(with_workers, expected, strict=True):
            assert batch.keys() == wanted.keys()
            assert all(torch.equal(batch[key], wanted[key]) for key in wanted)


def test_loading_leaves_the_global_random_numbers_alone(cached):
    before = torch.get_rng_state()
    list(make_loader(cached, Batches(len(cached), 3)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("cpus", "processes", "expected"), [(1, 1, 0), (2, 1, 0), (4, 1, 2), (4, 2, 0), (64, 2, 2)]
)
def test_workers_follow_from_the_machine(cpus, processes, expected):
    assert choose_workers(None, cpus, processes)[0] == expected


def test_a_larger_request_is_honoured_with_a_warning():
    workers, reason = choose_workers(16, cpus=4)
    assert workers == 16
    assert "warning: 2 would do" in reason
    assert "4 CPUs" in reason
    assert choose_workers(0, cpus=64) == (0, "as asked")
