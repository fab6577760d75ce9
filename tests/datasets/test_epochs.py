import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.epochs import EndlessBatches, EpochBatches, EveryItemOnce
from datasets.errors import DataError

counts = st.integers(1, 40)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 60), st.integers(1, 4), st.integers(1, 2), st.integers(0, 5))
def test_global_batches_do_not_depend_on_the_number_of_processes(count, per_rank, world, epoch):
    def batches(size, ranks):
        samplers = [EpochBatches(count, size, seed=1, rank=r, world=ranks) for r in range(ranks)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        return [[item for part in step for item in part] for step in zip(*samplers)]

    alone = batches(per_rank * world, 1)
    assert alone == batches(per_rank, world)
    seen = [index for step in alone for index, _ in step]
    assert len(set(seen)) == len(seen) == count // (per_rank * world) * per_rank * world


def test_each_epoch_leaves_out_others():
    sampler = EpochBatches(10, 4, seed=0)
    left_out = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        left_out |= set(range(10)) - {index for batch in sampler for index, _ in batch}
    assert left_out == set(range(10))


def test_fewer_files_than_a_global_batch_is_an_error_that_names_the_flag():
    with pytest.raises(DataError, match=r"3 volumes make no batch of 2 on 2 process.*--batch_size"):
        EpochBatches(3, 2, seed=0, world=2, what="volumes")


@settings(max_examples=30, deadline=None)
@given(counts, st.integers(1, 8), st.integers(1, 3))
def test_the_endless_row_shows_every_item_once_a_pass(count, size, world):
    samplers = [EndlessBatches(count, size, 20, seed=3, rank=r, world=world) for r in range(world)]
    row = [item for step in zip(*samplers) for batch in step for item in batch]
    for turn in range(len(row) // count):
        assert sorted(row[turn * count : (turn + 1) * count]) == [(index, turn) for index in range(count)]


def test_the_endless_row_goes_on_in_the_next_epoch():
    whole = list(EndlessBatches(7, 3, 10, seed=0))
    parts = EndlessBatches(7, 3, 5, seed=0)
    first = list(parts)
    parts.set_epoch(1)
    assert first + list(parts) == whole


@settings(max_examples=30, deadline=None)
@given(counts, st.integers(1, 8), st.integers(1, 4))
def test_everything_once_is_everything_once(count, size, world):
    samplers = [EveryItemOnce(count, size, r, world) for r in range(world)]
    seen = [index for sampler in samplers for batch in sampler for index, _ in batch]
    assert sorted(seen) == list(range(count))
    assert sum(map(len, samplers)) == -(-count // size)
    assert np.isin(seen, range(count)).all()


def test_banks_are_shown_everything_in_equally_many_steps():
    samplers = [EveryItemOnce(10, 3, rank, 3, steps=2) for rank in range(3)]
    assert [len(sampler) for sampler in samplers] == [2, 2, 2]
    assert {index for sampler in samplers for batch in sampler for index, _ in batch} == set(range(10))
