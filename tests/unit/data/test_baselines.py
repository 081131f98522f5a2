from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from moe_sweeps.data.baselines import HELD_OUT_BLOCK, WEIGHTS, _best_weight, _Pairs, count_baselines
from moe_sweeps.data.memmap import TokenData, Tokens

V = 12


def markov(length: int, seed: int) -> Tokens:
    """Tokens that usually follow their predecessor by one, so that a bigram model has something to learn."""
    draw = np.random.default_rng(seed)
    tokens = [0]
    for _ in range(length - 1):
        tokens.append((tokens[-1] + 1) % 10 if draw.random() < 0.7 else int(draw.integers(10)))
    return np.array(tokens, dtype=np.uint16)


def oracle(train_pairs: list[tuple[int, int]], val_pairs: list[tuple[int, int]], weight: float) -> tuple[float, float]:
    """Cross-entropies by dictionaries and loops, straight from the formulas."""
    tokens, firsts, pairs = Counter(w for _, w in train_pairs), Counter(v for v, _ in train_pairs), Counter(train_pairs)
    unigram = bigram = 0.0
    for v, w in val_pairs:
        p = (tokens[w] + 1) / (len(train_pairs) + V)
        q = weight * pairs[v, w] / firsts[v] + (1 - weight) * p if firsts[v] else p
        unigram, bigram = unigram - math.log(p), bigram - math.log(q)
    return unigram / len(val_pairs), bigram / len(val_pairs)


def pairs_of(tokens: Tokens) -> list[tuple[int, int]]:
    return list(pairwise(tokens[:].tolist()))


def test_values_equal_a_brute_force_oracle() -> None:
    train, val = markov(900, 0), np.append(markov(200, 1)[:], [11, 3, 10]).astype(np.uint16)  # 10, 11: never trained on
    result = count_baselines(train, val, V)
    expected = oracle(pairs_of(train), pairs_of(val), result.weight)
    assert (result.unigram, result.bigram) == pytest.approx(expected, rel=1e-12)
    assert result.bigram < result.unigram - 0.2


@pytest.mark.parametrize("length", [300, 12 * HELD_OUT_BLOCK])
def test_weight_is_the_best_on_the_held_out_tenth_of_the_training_data(length: int) -> None:
    train = markov(length, 2)
    pairs, block = pairs_of(train), 1 if length == 300 else HELD_OUT_BLOCK
    held_out = [pair for i, pair in enumerate(pairs) if i // block % 10 == 9]
    counted = [pair for i, pair in enumerate(pairs) if i // block % 10 != 9]
    losses = {weight: oracle(counted, held_out, weight)[1] for weight in WEIGHTS}
    assert _best_weight(_Pairs.of(train), V) == min(losses, key=lambda weight: losses[weight])


def test_validation_tokens_do_not_choose_the_weight() -> None:
    train = markov(900, 0)
    weights = {count_baselines(train, val, V).weight for val in (markov(200, 1), np.zeros(50, dtype=np.uint16))}
    assert len(weights) == 1


def test_independent_tokens_give_their_entropy() -> None:
    draw = np.random.default_rng(0)
    train, val = (draw.integers(8, size=n).astype(np.uint16) for n in (200_000, 20_000))
    result = count_baselines(train, val, 8)
    assert result.unigram == pytest.approx(math.log(8), abs=1e-3)
    assert result.bigram == pytest.approx(math.log(8), abs=1e-3)


def test_real_corpus(real_data: TokenData) -> None:
    result = count_baselines(real_data.train, real_data.val, real_data.vocab_size)
    # Measured with Python 3.11.7; another version's standard library is a slightly different text.
    assert result.unigram == pytest.approx(6.525, abs=0.1)
    assert result.bigram == pytest.approx(4.511, abs=0.1)
