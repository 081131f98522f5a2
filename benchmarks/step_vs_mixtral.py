"""Training steps of our model against Hugging Face Mixtral: the same weights, batch, loss and optimizer, one thread.

    python benchmarks/step_vs_mixtral.py [--width 128 --heads 8 --ffn-hidden 344 --vocab 4096 --batch 16 --rounds 15]

The models take turns, so that other work on the machine slows all alike; medians are reported. Mixtral runs in both of
its expert settings and is judged by the faster. All keep freed memory, as our workers do. The share of peak is
flops_per_token * tokens/s over the rate of a 1024^3 float32 product, measured between the steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from transformers import MixtralForCausalLM

from moe_sweeps.config.groups import ModelConfig, MoEExpertsConfig, TrainerConfig
from moe_sweeps.config.schema import RunConfig, validate
from moe_sweeps.hardware import keep_freed_memory
from moe_sweeps.model.sizes import sizes
from moe_sweeps.model.transformer import Transformer, build_model

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import make_run
from mixtral import as_mixtral


def main() -> None:
    """Measure and print."""
    args = _parse()
    torch.set_num_threads(1)
    run = validate(_run_config(args))
    ours = build_model(run, args.vocab)
    rivals = {f"Mixtral ({how})": _mixtral(ours, run, args.vocab, how) for how in ("grouped_mm", "eager")}
    keep_freed_memory()
    tokens_BS, targets_BS = torch.randint(args.vocab, (2, args.batch, args.seq_len)).unbind()
    steps = {"moe_sweeps": _stepper(ours, lambda: ours(tokens_BS, targets_BS).loss)}
    for name, mixtral in rivals.items():
        steps[name] = _stepper(mixtral, partial(_mixtral_loss, mixtral, tokens_BS, targets_BS))
    seconds, peak, losses = _take_turns(steps, args.rounds)
    flops = sizes(run, args.vocab).flops_per_token
    print(f"GEMM peak 1024^3 float32: {peak / 1e9:.1f} GFLOP/s; {flops / 1e6:.2f} MFLOP per token")
    for name in steps:
        rate = args.batch * args.seq_len / seconds[name]
        print(
            f"{name:>20}: {seconds[name] * 1e3:6.1f} ms a step, {rate:7,.0f} tokens/s, "
            f"{flops * rate / peak:5.1%} of peak, last loss {losses[name]:.4f}"
        )
    print(f"ratio to the faster Mixtral: {min(seconds[name] for name in rivals) / seconds['moe_sweeps']:.2f}")


def _take_turns(steps: dict[str, Callable[[], float]], rounds: int) -> tuple[dict[str, float], float, dict[str, float]]:
    """Median seconds of each step, the median GEMM rate in FLOP/s, and the last losses."""
    a, b = torch.randn(2, 1024, 1024).unbind()
    times: dict[str, list[float]] = {name: [] for name in steps}
    gemms, losses = [], {}
    for i in range(rounds + 2):
        for name, step in steps.items():
            elapsed, losses[name] = _timed(step)
            if i >= 2:
                times[name].append(elapsed)
        gemms += [_timed(lambda: a @ b)[0] for _ in range(3)]
    return {name: median(t) for name, t in times.items()}, 2 * 1024**3 / median(gemms), losses


def _timed(work: Callable[[], float | Tensor]) -> tuple[float, float]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result if isinstance(result, float) else 0.0


def _stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> float:
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value.item()

    return step


def _mixtral(ours: Transformer, run: RunConfig, vocab: int, experts: str) -> MixtralForCausalLM:
    mixtral = as_mixtral(ours, run, vocab)
    mixtral.set_experts_implementation(experts)
    return mixtral


def _mixtral_loss(mixtral: MixtralForCausalLM, tokens_BS: Tensor, targets_BS: Tensor) -> Tensor:
    logits_BSV = mixtral(input_ids=tokens_BS).logits
    return nn.functional.cross_entropy(logits_BSV.flatten(0, 1), targets_BS.flatten())


def _run_config(args: argparse.Namespace) -> RunConfig:
    return make_run(
        model=ModelConfig(layers=args.layers, width=args.width, heads=args.heads),
        experts=MoEExpertsConfig(num_experts=args.experts, top_k=args.top_k, ffn_hidden=args.ffn_hidden),
        trainer=TrainerConfig(batch_size=args.batch, micro_batch_size=args.batch, seq_len=args.seq_len),
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"width": 128, "layers": 4, "heads": 8, "experts": 8, "top_k": 2, "ffn_hidden": 344}
    defaults |= {"vocab": 4096, "batch": 16, "seq_len": 128, "rounds": 15}
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    return parser.parse_args()


if __name__ == "__main__":
    main()
