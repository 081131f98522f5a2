from __future__ import annotations

import numpy as np
import pytest
import torch

from moe_sweeps.data.batches import (
    TrainBatches,
    batch_order_digest,
    val_batches,
    window_count,
    window_domains,
    window_order,
)
from moe_sweeps.data.memmap import Shards, SplitName, TokenData
from moe_sweeps.errors import DataError

# Token i is i, so a batch shows where it was read. 100 tokens make 24 windows of 4 with their targets.
TOKENS = np.arange(100, dtype=np.uint16)


def make(batch_size: int = 5, data_seed: int = 0, seq_len: int = 4) -> TrainBatches:
    return TrainBatches(TOKENS, seq_len, batch_size, data_seed)


@pytest.mark.parametrize(("length", "expected"), [(0, 0), (1, 0), (4, 0), (5, 1), (8, 1), (9, 2), (100, 24), (101, 25)])
def test_window_count_needs_one_token_more_for_the_last_target(length: int, expected: int) -> None:
    assert window_count(np.zeros(length, dtype=np.uint16), 4) == expected


def test_rows_are_windows_and_targets_are_the_next_tokens() -> None:
    inputs_BS, targets_BS = make().batch(0)
    assert inputs_BS.shape == targets_BS.shape == (5, 4)
    assert inputs_BS.dtype == targets_BS.dtype == torch.int64
    assert inputs_BS.is_contiguous()
    assert targets_BS.is_contiguous()
    starts_B = inputs_BS[:, 0]
    assert torch.all(starts_B % 4 == 0)
    assert torch.equal(inputs_BS, starts_B[:, None] + torch.arange(4))
    assert torch.equal(targets_BS, inputs_BS + 1)


@pytest.mark.parametrize("batch_size", [1, 5, 6, 7, 24])
def test_every_epoch_holds_every_window_once_and_in_an_order_of_its_own(batch_size: int) -> None:
    batches = make(batch_size)
    ids = np.concatenate([batches.window_ids(step) for step in range(3 * 24)])  # at least three epochs
    epochs = ids[: 3 * 24].reshape(3, 24)
    assert np.array_equal(np.sort(epochs), np.tile(np.arange(24), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()} | {tuple(range(24))}) == 4


def test_a_batch_that_straddles_epochs_ends_one_and_begins_the_next() -> None:
    ids_B = make(5).window_ids(4)  # sequences 20..24 of epochs with 24 windows
    assert np.array_equal(ids_B[:4], window_order(24, 0, 0)[20:])
    assert ids_B[4] == window_order(24, 0, 1)[0]


def test_the_sequence_does_not_depend_on_the_batch_size() -> None:
    one, five = make(1), make(5)
    assert np.concatenate([one.window_ids(s) for s in range(60)]).tolist() == [
        i for s in range(12) for i in five.window_ids(s)
    ]


def test_any_step_can_be_asked_for_first() -> None:
    running = make()
    expected = [running.batch(step) for step in range(40)]
    for step in (39, 3, 17, 4, 3):
        window_order.cache_clear()
        inputs_BS, targets_BS = make().batch(step)
        assert torch.equal(inputs_BS, expected[step][0])
        assert torch.equal(targets_BS, expected[step][1])


def test_seeds_give_different_orders() -> None:
    orders = {tuple(make(24, data_seed=seed).window_ids(0).tolist()) for seed in (0, 1, 2, 2**32, 2**40)}
    assert len(orders) == 5


def test_order_is_the_one_that_was_published() -> None:
    """A change here breaks the pairing with every run made before it."""
    assert window_order(10, 0, 0).tolist() == [1, 4, 5, 6, 8, 2, 0, 3, 9, 7]
    assert window_order(10, 7, 3).tolist() == [4, 5, 1, 0, 8, 3, 6, 9, 2, 7]


def test_the_cached_order_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        window_order(10, 0, 0)[0] = 1


def test_global_rng_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, _ = make().batch(2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(make().batch(2)[0], first)


def test_ids_above_the_signed_16_bit_range_survive() -> None:
    tokens = np.array([65535, 40000, 32768, 0, 1], dtype=np.uint16)
    inputs_BS, targets_BS = TrainBatches(tokens, 4, 1, 0).batch(0)
    assert inputs_BS.tolist() == [[65535, 40000, 32768, 0]]
    assert targets_BS.tolist() == [[40000, 32768, 0, 1]]


def test_a_corpus_smaller_than_a_batch_is_refused() -> None:
    assert make(24).batch(0)[0].shape == (24, 4)
    with pytest.raises(DataError, match=r"trainer\.batch_size=25 is refused.* only 24 windows"):
        make(25)


def test_digest_agrees_for_equal_batches_only() -> None:
    digest = batch_order_digest(make(), "f00")
    assert len(digest) == 16
    assert digest == batch_order_digest(make(), "f00")
    others = [make(data_seed=1), make(batch_size=6), make(seq_len=5), TrainBatches(TOKENS[:-4], 4, 5, 0)]
    different = [batch_order_digest(b, "f00") for b in others] + [batch_order_digest(make(), "other data")]
    assert len({digest, *different}) == 6


@pytest.mark.parametrize("batch_size", [1, 5, 24, 100])
def test_val_batches_hold_all_windows_in_order(batch_size: int) -> None:
    batches = list(val_batches(TOKENS, 4, batch_size))
    assert [len(inputs) for inputs, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert torch.cat([inputs for inputs, _ in batches]).flatten().tolist() == list(range(96))
    assert torch.cat([targets for _, targets in batches]).flatten().tolist() == list(range(1, 97))


def test_val_split_without_a_window_is_refused_at_the_call() -> None:
    with pytest.raises(DataError, match=r"trainer\.seq_len=100 is refused: the 100 validation tokens"):
        val_batches(TOKENS, 100, 8)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("seq_len", [1, 7, 64])
def test_domain_of_a_window_is_that_of_its_first_token(tiny_data: TokenData, split: SplitName, seq_len: int) -> None:
    of_token = [data_id for data_id, (_, a, b) in enumerate(tiny_data.domain_spans(split)) for _ in range(a, b)]
    n_windows = window_count(tiny_data.tokens(split), seq_len)
    expected = [of_token[window * seq_len] for window in range(n_windows)]
    assert window_domains(tiny_data, split, seq_len).tolist() == expected
    assert set(expected) == {0, 1}


def test_real_batches_come_from_the_training_split(real_data: TokenData) -> None:
    batches = TrainBatches(real_data.train, seq_len=128, batch_size=8, data_seed=3)
    inputs_BS, targets_BS = batches.batch(5)
    for row, window in enumerate(batches.window_ids(5)):
        start = int(window) * 128
        assert inputs_BS[row].tolist() == real_data.train[start : start + 128].tolist()
        assert targets_BS[row].tolist() == real_data.train[start + 1 : start + 129].tolist()


def test_a_part_of_the_validation_set_is_spread_over_all_of_it() -> None:
    tokens = np.arange(101, dtype=np.uint16)  # ten windows of ten
    starts = [int(x[0]) for inputs, _ in val_batches(tokens, 10, 2, max_windows=4) for x in inputs]
    assert starts == [0, 20, 50, 70]
    whole = [int(x[0]) for inputs, _ in val_batches(tokens, 10, 3, max_windows=99) for x in inputs]
    assert whole == list(range(0, 100, 10))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_gathered_ranks_have_the_global_batch_also_after_a_resume(ranks: int) -> None:
    tokens = np.arange(1003, dtype=np.uint16)
    whole = TrainBatches(tokens, seq_len=10, batch_size=8, data_seed=5)
    for step in (0, 11, 12, 13, 250):  # 100 windows: an epoch ends within step 12
        fresh = TrainBatches(tokens, seq_len=10, batch_size=8, data_seed=5)  # what a resumed process has
        size = 8 // ranks
        parts = [fresh.batch(step, slice(rank * size, rank * size + size)) for rank in range(ranks)]
        for side in (0, 1):
            assert torch.equal(torch.cat([part[side] for part in parts]), whole.batch(step)[side])


def test_shards_give_the_batches_of_one_map() -> None:
    tokens = np.arange(1003, dtype=np.uint16)
    shards = Shards([tokens[:300], tokens[300:301], tokens[301:900], tokens[900:]])
    ours = TrainBatches(shards, seq_len=10, batch_size=8, data_seed=5)
    theirs = TrainBatches(tokens, seq_len=10, batch_size=8, data_seed=5)
    for step in range(14):
        assert all(torch.equal(a, b) for a, b in zip(ours.batch(step), theirs.batch(step), strict=True))
