"""Made-up routing records: a run whose loads drift, whose bias swings, and whose experts have favourite domains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from moe_sweeps.records.rundir import RunDir, State, Status

DOMAINS = ("wikipedia", "bible", "python")
TOKENS = 1024


def make_recorded_run(
    root: Path, *, layers: int = 4, experts: int = 8, points: int = 100, every: int = 20, dense: bool = False
) -> RunDir:
    """A run folder with metrics.jsonl and, unless it is dense, routing.jsonl."""
    kind = {"kind": "dense"} if dense else {"kind": "moe", "num_experts": experts, "top_k": 2}
    config = {
        "scale": "proxy",
        "balancer": {"kind": "lossfree"},
        "experts": kind,
        "data": {"kind": "corpus"},
        "seed": 0,
    }
    run = RunDir.create(root, "proxy-made-up", "0123456789ab", config=config, overrides=[],
                        identity={"run_id": "0123456789ab"}, provenance={}, total_steps=points * every)  # fmt: skip
    run.write_status(Status(State.done, step=points * every, total_steps=points * every, tokens_per_step=TOKENS))
    random = np.random.default_rng(0)
    write_lines(run.path / "metrics.jsonl", losses(random, points, every))
    if not dense:
        write_lines(run.path / "routing.jsonl", routing_records(random, layers, experts, points, every))
    return run


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def losses(random: np.random.Generator, points: int, every: int) -> list[dict[str, Any]]:
    """A loss that falls from 7.6 towards 4.1, validated ten times."""
    records: list[dict[str, Any]] = []
    for point in range(1, points + 1):
        value = 4.1 + 3.5 * float(np.exp(-5 * point / points))
        records.append({"step": point * every, "split": "train", "loss": value + 0.05 * random.normal()})
        if point % max(1, points // 10) == 0:
            records.append({"step": point * every, "split": "val", "loss": value + 0.03})
    return records


def routing_records(
    random: np.random.Generator, layers: int, experts: int, points: int, every: int
) -> list[dict[str, Any]]:
    """Records as the trainer writes them."""
    taste_LE = 0.9 * random.normal(size=(layers, experts))
    taste_DLE = 0.8 * random.normal(size=(len(DOMAINS), layers, experts))
    walk_LE = np.zeros((layers, experts))
    records: list[dict[str, Any]] = []
    for point in range(1, points + 1):
        done = point / points
        walk_LE += 0.06 * random.normal(size=(layers, experts))
        swing_LE = 0.01 * np.sin(point * 1.3 + np.arange(experts)) * (1 + np.arange(layers) % 4)[:, None]
        bias_LE = -0.25 * taste_LE * (1 - np.exp(-4 * done)) + swing_LE
        records.append(_train(random, point * every, taste_LE * np.exp(-4 * done) + 0.4 * walk_LE * done, bias_LE))
        if point % max(1, points // 10) == 0:
            records += _evaluated(random, point * every, taste_DLE * done + 0.1 * walk_LE, done)
    return records


def _train(random: np.random.Generator, step: int, logits_LE: Any, bias_LE: Any) -> dict[str, Any]:
    load_LE = _counts(random, logits_LE, 2 * TOKENS)
    layers, experts = load_LE.shape
    maxvio_L = load_LE.max(-1) / load_LE.mean(-1) - 1
    batch_L = np.full(layers, np.log(experts)) - 0.3 * maxvio_L
    token_L = batch_L * (0.9 - 0.5 * step / (step + 800)) - 0.05 * np.arange(layers)
    roles = {"expert": 0.5, "router": 0.05, "dense": 0.3, "embedding": 0.2, "norm": 0.02}
    share_LE = load_LE / load_LE.mean(-1, keepdims=True)
    decay = 0.3 + 300 / (100 + step)
    grad = {role: decay * size * float(np.exp(0.15 * random.normal())) for role, size in roles.items()}
    return {
        "step": step,
        "split": "train",
        "load_LE": load_LE.tolist(),
        "maxvio_batch_L": maxvio_L.tolist(),
        "maxvio_micro_L": (1.15 * maxvio_L + 0.04).tolist(),
        "n_eff_L": (experts - 2 * maxvio_L).tolist(),
        "dead_L": np.minimum(maxvio_L, 1.0).tolist(),
        "token_entropy_L": token_L.tolist(),
        "batch_entropy_L": batch_L.tolist(),
        "mutual_information_L": (batch_L - token_L).tolist(),
        "bias_LE": bias_LE.tolist(),
        "grad_norm": grad,
        "lr": {role: 0.003 * (0.1 if role == "router" else 1) * decay for role in roles},
        "expert_lr_min_LE": (0.001 * decay * share_LE).tolist(),
        "expert_lr_max_LE": (0.004 * decay * share_LE).tolist(),
        "param_norm": {role: 100 * size * (1 + step / 4000) for role, size in roles.items()},
    }


def _evaluated(random: np.random.Generator, step: int, logits_DLE: Any, done: float) -> list[dict[str, Any]]:
    load_DLE = np.stack([_counts(random, logits_LE, 2 * TOKENS) for logits_LE in logits_DLE])
    load_LE = load_DLE.sum(0)
    domain_load = {name: counts.tolist() for name, counts in zip(DOMAINS, load_DLE, strict=True)}
    maxvio_L = load_LE.max(-1) / load_LE.mean(-1) - 1
    saturation_L = 1 - 0.75 * (1 - done) ** (1.2 + np.arange(len(load_LE)) % 12 / 3)
    return [
        {"step": step, "split": "val", "load_LE": load_LE.tolist(), "maxvio_L": maxvio_L.tolist()}
        | {"domain_load": domain_load},
        {"step": step, "split": "saturation", "saturation_L": saturation_L.tolist()},
    ]


def _counts(random: np.random.Generator, logits_LE: Any, picks: int) -> Any:
    share_LE = np.exp(logits_LE) / np.exp(logits_LE).sum(-1, keepdims=True)
    return np.stack([random.multinomial(picks, share_E) for share_E in share_LE])
