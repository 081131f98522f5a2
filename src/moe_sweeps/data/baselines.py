"""Losses of models that only count tokens: what a trained model has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moe_sweeps.data.memmap import Tokens

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# The corpus lies domain after domain, so a held-out tail would be one domain: every tenth block is held out instead.
HELD_OUT_EVERY, HELD_OUT_BLOCK = 10, 1024
WEIGHTS = np.arange(1, 100) / 100


@dataclass(frozen=True, slots=True)
class Baselines:
    """Validation cross-entropies in nats a token, and the bigram's share in the interpolation."""

    unigram: float
    bigram: float
    weight: float


def count_baselines(train: Tokens, val: Tokens, vocab_size: int) -> Baselines:
    """Train both models on `train` and evaluate them on `val[1:]`, each token given the one before it.

    unigram: p(w) = (count(w) + 1) / (N + V).
    bigram: p(w|v) = a count(v, w) / count(v) + (1 - a) p(w), and p(w) after a `v` that was never seen; the weight
    `a` is the best of a grid on a tenth of `train` that was not counted, so that `val` chooses nothing.
    """
    train_pairs, val_pairs = _Pairs.of(train), _Pairs.of(val)
    weight = _best_weight(train_pairs, vocab_size)
    model = _CountModel(train_pairs, vocab_size)
    p_unigram, p_bigram = model.unigram(val_pairs), model.bigram(val_pairs)
    mixed = _interpolate(p_unigram, p_bigram, weight)
    return Baselines(_cross_entropy(p_unigram), _cross_entropy(mixed), weight)


@dataclass(frozen=True)
class _Pairs:
    """Every token with the one before it: two arrays of the same length."""

    previous: Ints
    token: Ints

    @classmethod
    def of(cls, tokens: Tokens) -> _Pairs:
        ids = tokens[:].astype(np.int64)
        return cls(ids[:-1], ids[1:])

    def where(self, mask: Bools) -> _Pairs:
        return _Pairs(self.previous[mask], self.token[mask])

    def keys(self, vocab_size: int) -> Ints:
        return self.previous * vocab_size + self.token


@dataclass(frozen=True)
class _CountModel:
    """Probabilities of pairs by counting; only pairs that occur are stored, so any vocabulary fits in memory."""

    pairs: _Pairs
    vocab_size: int

    def unigram(self, query: _Pairs) -> Floats:
        counts = np.bincount(self.pairs.token, minlength=self.vocab_size) + 1
        probabilities: Floats = counts[query.token] / counts.sum()
        return probabilities

    def bigram(self, query: _Pairs) -> Floats:
        """count(v, w) / count(v); NaN where v was never seen."""
        keys, counts = self._pair_counts
        wanted = query.keys(self.vocab_size)
        place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        together = np.where(keys[place] == wanted, counts[place], 0)
        alone = np.bincount(self.pairs.previous, minlength=self.vocab_size)[query.previous]
        probabilities: Floats = np.divide(together, alone, out=np.full(len(wanted), np.nan), where=alone > 0)
        return probabilities

    @cached_property
    def _pair_counts(self) -> tuple[Ints, Ints]:
        return np.unique(self.pairs.keys(self.vocab_size), return_counts=True)


def _best_weight(pairs: _Pairs, vocab_size: int) -> float:
    held_out = np.arange(len(pairs.token)) // HELD_OUT_BLOCK % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    if not held_out.any():  # fewer than ten blocks: take single pairs
        held_out = np.arange(len(pairs.token)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    model, query = _CountModel(pairs.where(~held_out), vocab_size), pairs.where(held_out)
    p_unigram, p_bigram = model.unigram(query), model.bigram(query)
    losses = [_cross_entropy(_interpolate(p_unigram, p_bigram, weight)) for weight in WEIGHTS]
    return float(WEIGHTS[int(np.argmin(losses))])


def _interpolate(p_unigram: Floats, p_bigram: Floats, weight: float) -> Floats:
    return np.where(np.isnan(p_bigram), p_unigram, weight * p_bigram + (1 - weight) * p_unigram)


def _cross_entropy(probabilities: Floats) -> float:
    return float(-np.log(probabilities).mean())
