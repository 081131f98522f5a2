"""Tokens of skewed frequencies, which unbalance routers: for time_to_balance.py and tests/e2e/test_learning.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moe_sweeps.data.memmap import TokenData

# The run that is trained on them.
SKEWED = (
    "scale=smoke_v1",
    "router.z_loss=0",
    "schedule.warmup_steps=20",
    "trainer.batch_size=8",
    "trainer.micro_batch_size=8",
    "trainer.seq_len=64",
    "trainer.checkpoint_every=1000",
    "trainer.eval_every=1000",
)


def skewed_tokens(folder: Path) -> TokenData:
    """60,000 tokens of a Markov chain over 256 whose frequencies fall as 1/rank, written below `folder`."""
    draw = np.random.default_rng(0)
    weights = 1 / (np.arange(256) + 4)
    successors = draw.choice(256, size=(256, 8), p=weights / weights.sum())
    tokens = np.zeros(60_000, dtype="<u2")
    for i, choice in enumerate(draw.integers(8, size=len(tokens) - 1)):
        tokens[i + 1] = successors[tokens[i], choice]
    maps = []
    for name, part in (("train", tokens[:50_000]), ("val", tokens[50_000:])):
        part.tofile(folder / name)
        maps.append(np.memmap(folder / name, "<u2", mode="r"))
    domains = [[{"name": "chain", "start": 0, "end": len(tokens)}] for tokens in maps]
    spans = {split: {"domains": found} for split, found in zip(("train", "val"), domains, strict=True)}
    meta = {"vocab_size": 256, "fingerprint": "skewed", "domains": ["chain"], "splits": spans}
    return TokenData(folder, meta, *maps)
