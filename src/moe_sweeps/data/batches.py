"""Batches as pure functions: nothing here has a state that a resumed run would have to restore.

Tensor names carry their axes: B sequences of the global batch, S tokens of a sequence, N windows of a split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moe_sweeps.data.memmap import SplitName, TokenData, Tokens
from moe_sweeps.errors import DataError

Batch = tuple[Tensor, Tensor]
Ids = npt.NDArray[np.int64]
DIGEST_STEPS = 100


def window_count(tokens: Tokens, seq_len: int) -> int:
    """Number of whole windows. Window i reads tokens[i*S : i*S+S] and predicts the same range shifted by one."""
    return max(0, (len(tokens) - 1) // seq_len)


class TrainBatches:
    """The global batch of every training step, as a function of (data_seed, step).

    Every epoch visits each window once, in an order of its own. Ranks slice the global batch, so the data do not depend
    on the number of GPUs. Raises `DataError` when there are fewer windows than one batch needs.
    """

    def __init__(self, tokens: Tokens, seq_len: int, batch_size: int, data_seed: int) -> None:
        self.tokens, self.seq_len, self.batch_size, self.data_seed = tokens, seq_len, batch_size, data_seed
        self.n_windows = window_count(tokens, seq_len)
        if self.n_windows < batch_size:
            raise DataError(
                f"trainer.batch_size={batch_size} is refused: the {len(tokens):,} training tokens make only "
                f"{self.n_windows:,} windows of trainer.seq_len={seq_len}, and a batch must not repeat a window. "
                "Use a smaller batch, shorter sequences or more text."
            )

    def batch(self, step: int, rows: slice = slice(None)) -> Batch:
        """(inputs_BS, targets_BS), int64, of the step with this number, counted from 0; `rows`: only those of it."""
        return _gather(self.tokens, self.window_ids(step)[rows], self.seq_len)

    def window_ids(self, step: int) -> Ids:
        """Windows (B,) of one step; a batch may take its first rows from one epoch and the rest from the next."""
        sequence_B = step * self.batch_size + np.arange(self.batch_size)
        epoch_B, position_B = np.divmod(sequence_B, self.n_windows)
        ids_B = np.empty(self.batch_size, dtype=np.int64)
        for epoch in np.unique(epoch_B):
            rows_B = epoch_B == epoch
            ids_B[rows_B] = window_order(self.n_windows, self.data_seed, int(epoch))[position_B[rows_B]]
        return ids_B


@lru_cache(maxsize=2)  # a batch needs at most two epochs
def window_order(n_windows: int, data_seed: int, epoch: int) -> Ids:
    """The permutation (N,) of one epoch.

    Sorts raw Philox output instead of calling numpy's shuffle: numpy keeps raw streams and SeedSequence as they are
    for ever (NEP 19), and promises nothing for what `Generator` makes of them.
    """
    seed = np.random.SeedSequence(data_seed, spawn_key=(epoch,))
    keys_N = np.random.Philox(seed).random_raw(n_windows)
    order_N: Ids = np.argsort(keys_N, kind="stable").astype(np.int64)
    order_N.setflags(write=False)  # it is shared by all callers
    return order_N


def batch_order_digest(batches: TrainBatches, fingerprint: str) -> str:
    """16 hex digits that agree for two runs when they train on the same batches in the same order, and else differ.

    Covers the data (by its fingerprint), the batch's shape, the number of windows and the windows of the first
    DIGEST_STEPS steps, from which those of all later steps follow.
    """
    shape = (batches.seq_len, batches.batch_size, batches.n_windows)
    digest = hashlib.sha256(repr((fingerprint, *shape)).encode())
    for step in range(DIGEST_STEPS):
        digest.update(batches.window_ids(step).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def val_batches(
    tokens: Tokens, seq_len: int, batch_size: int, max_windows: int | None = None, part: slice = slice(None)
) -> Iterator[Batch]:
    """(inputs_BS, targets_BS) over all windows in order; the last batch may have fewer rows.

    With `max_windows` that many (or all, if there are fewer), evenly spaced over the whole set: its beginning would be
    one domain alone. `part`: only these of the chosen windows. Raises `DataError`, at once, when there is no window.
    """
    n_windows = window_count(tokens, seq_len)
    if n_windows == 0:
        rule = f"the {len(tokens):,} validation tokens are fewer than one sequence and its last target need"
        raise DataError(f"trainer.seq_len={seq_len} is refused: {rule}. Use shorter sequences or more text.")
    chosen = chosen_windows(n_windows, max_windows)[part]
    return (_gather(tokens, chosen[i : i + batch_size], seq_len) for i in range(0, len(chosen), batch_size))


def chosen_windows(n_windows: int, max_windows: int | None) -> Ids:
    """The windows of an evaluation, in order: `max_windows` evenly spaced ones, or all."""
    n_chosen = n_windows if max_windows is None else min(n_windows, max_windows)
    chosen: Ids = np.arange(n_chosen, dtype=np.int64) * n_windows // n_chosen
    return chosen


def window_domains(data: TokenData, split: SplitName, seq_len: int) -> Ids:
    """Domain id (N,) of every window of a split, in order: the place in `data.domains` of its first token's domain."""
    spans = data.domain_spans(split)
    ids = np.array([data.domains.index(name) for name, _, _ in spans])
    ends = np.array([end for _, _, end in spans])
    first_N = np.arange(window_count(data.tokens(split), seq_len)) * seq_len
    domain_N: Ids = ids[np.searchsorted(ends, first_N, side="right")]
    return domain_N


def _gather(tokens: Tokens, windows_B: Ids, seq_len: int) -> Batch:
    starts_B = (windows_B * seq_len).tolist()
    ids_BS = np.stack([tokens[start : start + seq_len + 1] for start in starts_B]).astype(np.int64)
    return _tensor(ids_BS[:, :-1]), _tensor(ids_BS[:, 1:])


def _tensor(ids: Ids) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(ids))
