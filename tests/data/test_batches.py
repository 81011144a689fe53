from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from camoxpert_nb.data import batches as module
from camoxpert_nb.data.augment import K
from camoxpert_nb.data.batches import (
    Batches,
    PairDataset,
    choose_workers,
    make_loader,
    shared_memory_short,
    uniforms,
)
from camoxpert_nb.data.cache import open_cache
from camoxpert_nb.errors import InputError

SIZE = 32


@pytest.fixture
def cached(pairs, tmp_path):
    return PairDataset(open_cache(pairs, SIZE, tmp_path / "cache"), seed=3)


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


def epoch_of(batches, epoch=0, seen=0, limit=None):
    batches.set_epoch(epoch, seen, limit)
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
    batches = Batches(23, 4, seed=4)
    whole = epoch_of(batches, 3)
    assert epoch_of(batches, 3, seen=8) == whole[2:]
    assert len(batches) == len(whole) == 5
    assert epoch_of(batches, 3, limit=2) == whole[:2]


@pytest.mark.parametrize(
    ("before", "after"), [((1, 4), (2, 3)), ((3, 2), (1, 5)), ((2, 5), (3, 1))]
)
def test_another_batch_or_number_of_ranks_repeats_no_image_and_loses_none(before, after):
    """(ranks, batch a rank): two steps of the first kind, then the rest in the other."""
    (world, size), (other, larger) = before, after
    ranks = [Batches(40, size, seed=2, rank=r, world=world) for r in range(world)]
    first = [position for rank in ranks for batch in epoch_of(rank, limit=2) for position in batch]
    seen = 2 * world * size
    assert len(first) == seen
    ranks = [Batches(40, larger, seed=2, rank=r, world=other) for r in range(other)]
    rest = [p for rank in ranks for batch in epoch_of(rank, seen=seen) for p in batch]
    assert not set(first) & set(rest)
    assert len({*first, *rest}) == seen + (40 - seen) // (other * larger) * other * larger


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
    for epoch, seen in ((0, 0), (1, 3)):
        batches.set_epoch(epoch, seen)
        expected = list(make_loader(cached, batches))
        assert len(expected) == 3 - seen // 3
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
    assert choose_workers(0, cpus=64) == (0, "as num_workers is set")


def test_order_and_chance_follow_from_seed_and_epoch_apart() -> None:
    """Not from their sum; and the two are drawn from different numbers."""
    orders = set()
    for seed, epoch in ((1, 2), (2, 1), (0, 3), (3, 0)):
        batches = Batches(12, 4, seed=seed)
        batches.set_epoch(epoch)
        expected = np.random.default_rng((seed, epoch)).permutation(12) + 12 * epoch
        assert [place for batch in batches for place in batch] == expected.tolist()
        orders.add(tuple(expected.tolist()))
        chance = np.random.default_rng((seed, epoch, 1)).random((12, K), np.float32)
        assert np.array_equal(uniforms(seed, epoch, 12), chance)
    assert len(orders) == 4


def test_an_epoch_goes_on_from_any_image_in_batches_of_any_size() -> None:
    """Two ranks share what is left after seven of 30 images: three batches of three each."""
    order = np.random.default_rng((5, 1)).permutation(30)[7:] + 30
    for rank in (0, 1):
        batches = Batches(30, 4, seed=5, rank=rank, world=2)
        batches.set_epoch(1, seen=7, per_rank=3)
        mine = order[rank::2].tolist()
        assert [*batches] == [mine[0:3], mine[3:6], mine[6:9]]
        batches.set_epoch(1, seen=7, limit=2)  # of the size it has now
        assert [*batches] == [mine[0:3], mine[3:6]]
        assert len(batches) == 5  # of a whole epoch


def test_every_image_is_scored_once_also_those_that_fill_no_batch() -> None:
    found = [Batches(11, 2, training=False, rank=rank, world=3) for rank in range(3)]
    assert [len(each) for each in found] == [2, 2, 2]
    assert [[*each] for each in found] == [[[0, 3], [6, 9]], [[1, 4], [7, 10]], [[2, 5], [8]]]


@pytest.mark.parametrize(
    ("cpus", "processes", "workers"),
    [(16, 1, 2), (3, 1, 1), (2, 1, 0), (8, 2, 2), (6, 2, 1), (8, 4, 0)],
)
def test_workers_are_those_that_cores_are_left_for(cpus: int, processes: int, workers: int) -> None:
    assert choose_workers(None, cpus, processes)[0] == workers


@pytest.mark.parametrize(("processes", "short"), [(1, False), (2, True)])
def test_the_batches_of_all_processes_meet_in_shared_memory(
    monkeypatch: pytest.MonkeyPatch, processes: int, short: bool
) -> None:
    """Two workers keep six batches of 10 on the way; 64 are free."""
    free = SimpleNamespace(free=64)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: free)
    assert bool(shared_memory_short(2, 10, processes)) == short
    assert shared_memory_short(0, 10**9, 4) == ""
