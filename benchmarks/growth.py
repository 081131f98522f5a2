"""How costs grow: step time with experts, sequence length and width; the results frame with the number of runs.

    python benchmarks/growth.py [--save]

Sizes take turns, medians of CPU seconds are fitted: the exponent is the slope of log(seconds) over log(size), by least
squares. Experts grow at constant active parameters, so an exponent of 0 would mean that only active parameters cost;
sequences grow at a constant number of tokens, so 0 would mean that attention is free.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np
import torch
from record import Row, record, wants_saving
from results_frame import generate

from moe_sweeps.config.groups import ModelConfig, MoEExpertsConfig, TrainerConfig
from moe_sweeps.experiment.schema import validate
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.model.transformer import build_model
from moe_sweeps.results import load_curves, load_runs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import make_run

ROUNDS = 7
VOCAB, TOKENS = 2048, 1024
EXPERTS = (8, 16, 32, 64, 128, 256)
SEQUENCES = (64, 128, 256, 512)
WIDTHS = (64, 96, 128, 192, 256)
RUNS = (100, 200, 400)
METRIC_LINES = 100


def main() -> None:
    """Measure, print, and with --save keep."""
    save = wants_saving()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = [
        _row("step, experts at constant active parameters", {n: _stepper(experts=n) for n in EXPERTS}),
        _row("step, sequence length at constant tokens", {n: _stepper(seq_len=n) for n in SEQUENCES}),
        _row("step, width", {n: _stepper(width=n) for n in WIDTHS}),
        _row("results frame and curves, runs", {n: _reader(n) for n in RUNS}),
    ]
    record("growth", "Growth", rows, threads=1, save=save)


def exponent(seconds: Mapping[int, float]) -> float:
    """The slope of log(seconds) over log(size), by least squares."""
    slope, _ = np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)
    return float(slope)


def _row(what: str, works: Mapping[int, Callable[[], object]]) -> Row:
    found: dict[int, list[float]] = {size: [] for size in works}
    for i in range(ROUNDS + 1):
        for size, work in works.items():
            started = time.process_time()
            work()
            if i:  # the first round is slower: memory, caches
                found[size].append(time.process_time() - started)
    seconds = {size: median(times) for size, times in found.items()}
    sizes = ", ".join(f"{size}: {value * 1e3:.0f}" for size, value in seconds.items())
    return {"what": what, "exponent": exponent(seconds), "CPU ms by size": sizes}


def _stepper(experts: int = 8, seq_len: int = 128, width: int = 64) -> Callable[[], object]:
    """One training step of the proxy's model with another size: forward, backward, AdamW."""
    run = make_run(
        model=ModelConfig(layers=4, width=width, heads=4),
        experts=MoEExpertsConfig(num_experts=experts, top_k=2, ffn_hidden=width * 11 // 4),
        trainer=TrainerConfig(batch_size=TOKENS // seq_len, micro_batch_size=TOKENS // seq_len, seq_len=seq_len),
    )
    model = build_model(validate(dataclasses.replace(run)), VOCAB)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens_BS, targets_BS = torch.randint(VOCAB, (2, TOKENS // seq_len, seq_len)).unbind()

    def step() -> None:
        model(tokens_BS, targets_BS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _reader(runs: int) -> Callable[[], object]:
    folder = tempfile.TemporaryDirectory()
    generate(Path(folder.name), runs, METRIC_LINES)

    def read() -> object:
        frame, _ = load_runs(Path(folder.name))
        return load_curves(frame["folder"])

    return read


if __name__ == "__main__":
    main()
