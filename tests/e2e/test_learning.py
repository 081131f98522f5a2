"""Training does what it is for: models learn, and balancers balance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import compose_run

from moe_sweeps.data.baselines import count_baselines
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.freeze import freeze
from moe_sweeps.trainer import Trainer

SKEWED = (
    "scale=smoke",
    "router.z_loss=0",
    "schedule.warmup_steps=20",
    "trainer.steps=300",
    "trainer.batch_size=8",
    "trainer.micro_batch_size=8",
    "trainer.seq_len=64",
    "trainer.checkpoint_every=1000",
    "trainer.eval_every=1000",
)


class Silent:
    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None: ...
    def alive(self, step: int) -> None: ...


def never() -> bool:
    return False


@pytest.fixture
def skewed(tmp_path: Path) -> TokenData:
    """A Markov chain over 256 tokens whose frequencies fall as 1/rank, so that routers pile up on a few of them."""
    draw = np.random.default_rng(0)
    weights = 1 / (np.arange(256) + 4)
    successors = draw.choice(256, size=(256, 8), p=weights / weights.sum())
    tokens = np.zeros(60_000, dtype="<u2")
    for i, choice in enumerate(draw.integers(8, size=len(tokens) - 1)):
        tokens[i + 1] = successors[tokens[i], choice]
    maps = []
    for name, part in (("train", tokens[:50_000]), ("val", tokens[50_000:])):
        part.tofile(tmp_path / name)
        maps.append(np.memmap(tmp_path / name, "<u2", mode="r"))
    domains = [[{"name": "chain", "start": 0, "end": len(tokens)}] for tokens in maps]
    spans = {split: {"domains": found} for split, found in zip(("train", "val"), domains, strict=True)}
    meta = {"vocab_size": 256, "fingerprint": "skewed", "domains": ["chain"], "splits": spans}
    return TokenData(tmp_path, meta, *maps)


def final_maxvio(data: TokenData, *line: str) -> float:
    run = compose_run(*SKEWED, *line)
    ours = Trainer(run, freeze(run, [], command="test"), data, torch.device("cpu"), Silent())
    return float(ours.train(never)["train_maxvio_batch"])


def test_lossfree_balances_skewed_data(folders: Path, skewed: TokenData) -> None:
    unbalanced = final_maxvio(skewed, "balancer=none")
    lossfree = final_maxvio(skewed, "balancer=lossfree")
    print(f"MaxVio on skewed data after 300 steps: none {unbalanced:.2f}, lossfree {lossfree:.2f}")
    assert unbalanced > 1.5
    assert lossfree < 0.25 * unbalanced  # a bias of the wrong sign makes it larger than without


def test_a_smoke_run_learns_more_than_word_frequencies(folders: Path, real_data: TokenData) -> None:
    """After 150,000 tokens the model is far below the unigram model on the same validation tokens."""
    run = compose_run("scale=smoke", "trainer.eval_every=1000")
    ours = Trainer(run, freeze(run, [], command="test"), real_data, torch.device("cpu"), Silent())
    summary = ours.train(never)
    unigram = count_baselines(real_data.train, real_data.val, real_data.vocab_size).unigram
    assert summary["val_loss"] < unigram - 0.4
