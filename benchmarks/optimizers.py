"""What each optimizer costs: training steps at proxy scale and with four times the batch, in turn, on one thread.

    python benchmarks/optimizers.py [--rounds 100] [scale=proxy ...]

All optimizers train a model of their own from the same weights on the same batches; their steps take turns, in changing
order, so that other work on the machine slows all alike. Means are over `--rounds` steps, which for Shampoo are a whole
period with one computation of the roots in it. `model` is forward, backward and clipping, the mean over all of them.
Shampoo's own parts are timed inside its rule.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from moe_sweeps.data.batches import TrainBatches
from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.model.transformer import build_model
from moe_sweeps.optim import ShampooConfig, state_bytes
from moe_sweeps.optim.blocked import BlockedOptimizer
from moe_sweeps.optim.groups import expected_roles, parameter_groups
from moe_sweeps.optim.shampoo import ShampooStack
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.grid import single

KINDS = ("adamw", "shampoo", "muon", "soap")
PARTS = {"add_to_factors": "factor updates", "preconditioned": "preconditioning", "update_roots": "roots"}


@dataclass(slots=True)
class Subject:
    """One optimizer with its model, and the seconds that it took."""

    run: RunConfig
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    model_seconds: float = 0.0
    optimizer_seconds: float = 0.0

    def step(self, batch: tuple[Tensor, Tensor]) -> None:
        """One training step on `batch` (inputs_BS, targets_BS), timed in two parts."""
        started = time.perf_counter()
        self.model(*batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.run.trainer.grad_clip)
        between = time.perf_counter()
        self.optimizer.step()
        self.optimizer_seconds += time.perf_counter() - between
        self.optimizer.zero_grad(set_to_none=True)
        self.model_seconds += between - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for times in (1, 4):
        measure(args.overrides, times, args.rounds)


def measure(overrides: list[str], times: int, rounds: int) -> None:
    """Print one table: the batch of `overrides` times `times`."""
    runs = [compose(single([*overrides, f"optimizer={kind}"])) for kind in KINDS]
    data = prepared(runs[0].data, resolve(runs[0].paths.data))
    settings = runs[0].trainer
    batches = TrainBatches(data.train, settings.seq_len, times * settings.batch_size, 0)
    subjects = [subject(run, data.vocab_size) for run in runs]
    for i in range(3):  # the first steps are slower
        for one in subjects:
            one.step(batches.batch(i))
    for one in subjects:
        forget(one, rounds)
    for i in range(rounds):
        for one in subjects if i % 2 else reversed(subjects):
            one.step(batches.batch(3 + i))
    report(subjects, rounds, times * settings.tokens_per_step)


def subject(run: RunConfig, vocab_size: int) -> Subject:
    """A model with its optimizer; the parts of Shampoo's rule are timed."""
    model = build_model(run, vocab_size)
    groups = parameter_groups(model, run.lr_split, expected_roles(run.experts.is_moe))
    found = Subject(run, model, run.optimizer.build(groups))
    for rules in found.optimizer.rules if isinstance(found.optimizer, BlockedOptimizer) else []:
        for rule in rules:
            if isinstance(rule, ShampooStack):
                for name in PARTS:
                    setattr(rule, name, timed(getattr(rule, name), found.parts, name))
    return found


def timed(method: Callable[..., Any], parts: dict[str, float], name: str) -> Callable[..., Any]:
    """`method`, whose seconds are added to `parts[name]`."""

    def call(*args: Any) -> Any:
        started = time.perf_counter()
        result = method(*args)
        parts[name] += time.perf_counter() - started
        return result

    return call


def forget(one: Subject, rounds: int) -> None:
    """Reset the clocks; move Shampoo to the middle of the second period in which it preconditions."""
    one.model_seconds = one.optimizer_seconds = 0.0
    one.parts.clear()
    config = one.run.optimizer
    if isinstance(config, ShampooConfig) and isinstance(one.optimizer, BlockedOptimizer):
        one.optimizer.steps = config.first_roots + rounds // 2


def report(subjects: list[Subject], rounds: int, tokens: int) -> None:
    """Print the table, and the parts of Shampoo's step."""
    model = sum(one.model_seconds for one in subjects) / len(subjects) / rounds
    base = model + subjects[0].optimizer_seconds / rounds
    print(f"\n{tokens} tokens a step; model {model * 1e3:.1f} ms; means over {rounds} steps")
    print("| optimizer | its step, ms | whole step, ms | of AdamW's | in turn | state, MB |\n|---|---|---|---|---|---|")
    in_turn = subjects[0].model_seconds + subjects[0].optimizer_seconds
    for one in subjects:
        own = one.optimizer_seconds / rounds
        ratio = (one.model_seconds + one.optimizer_seconds) / in_turn
        numbers = f"{own * 1e3:.1f} | {(model + own) * 1e3:.1f} | {(model + own) / base:.2f} | {ratio:.2f}"
        print(f"| {one.run.optimizer.kind} | {numbers} | {state_bytes(one.optimizer) / 1e6:.1f} |")
    for one in subjects:
        if one.parts:
            ms = {label: one.parts[name] / rounds * 1e3 for name, label in PARTS.items()}
            ms["the rest"] = one.optimizer_seconds / rounds * 1e3 - sum(ms.values())
            print("Shampoo, ms a step: " + ", ".join(f"{label} {value:.1f}" for label, value in ms.items()))


if __name__ == "__main__":
    main()
