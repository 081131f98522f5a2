"""Training does what it is for: models learn, and balancers balance."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import compose_run, never, trainer
from skewed import SKEWED, skewed_tokens

from moe_sweeps.data.baselines import count_baselines
from moe_sweeps.data.memmap import TokenData


@pytest.fixture
def skewed(tmp_path: Path) -> TokenData:
    return skewed_tokens(tmp_path)


def final_maxvio(data: TokenData, *line: str) -> float:
    run = compose_run(*SKEWED, "trainer.steps=300", *line)
    return float(trainer(run, data).train(never)["train_maxvio_batch"])


def test_lossfree_balances_skewed_data(folders: Path, skewed: TokenData) -> None:
    unbalanced = final_maxvio(skewed, "balancer=none")
    lossfree = final_maxvio(skewed, "balancer=lossfree")
    print(f"MaxVio on skewed data after 300 steps: none {unbalanced:.2f}, lossfree {lossfree:.2f}")
    assert unbalanced > 1.5
    assert lossfree < 0.25 * unbalanced  # a bias of the wrong sign makes it larger than without


def test_a_smoke_run_learns_more_than_word_frequencies(folders: Path, real_data: TokenData) -> None:
    """After 150,000 tokens the model is far below the unigram model on the same validation tokens."""
    run = compose_run("scale=smoke", "trainer.eval_every=1000")
    summary = trainer(run, real_data).train(never)
    unigram = count_baselines(real_data.train, real_data.val, real_data.vocab_size).unigram
    assert summary["val_loss"] < unigram - 0.4
