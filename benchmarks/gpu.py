"""Training on one GPU: tokens per second, MFU, peak memory, Mixtral, a loop over experts, and where a step's time goes.

    python benchmarks/gpu.py [--steps 20] [--save]        (make bench-gpu)

`scale=talk` in bfloat16 at both of its batches: 20,480 tokens an update, and 163,840 in eight micro-batches. Eager and
compiled, then the same micro-batch through Hugging Face Mixtral in bfloat16 and through a loop over experts. MFU is the
arithmetic of docs/definitions.md over the dense bfloat16 peak of an H100, 989.4 TFLOP/s.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from record import Row, record, wants_saving
from torch import Tensor, nn

from moe_sweeps.config.compose import compose
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.model.compiling import compiled
from moe_sweeps.model.sizes import sizes
from moe_sweeps.model.transformer import build_model
from moe_sweeps.sweep.grid import single

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mixtral import as_mixtral

PEAK_FLOPS = 989.4e12
VOCAB = 50304
WARM_UP = 3
# A kernel belongs to the first group one of whose words is in its name.
GROUPS = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "matrix products": ("gemm", "cutlass", "cublas", "nvjet", "wgmma", "sm90_xmma"),
    "optimizer": ("adam", "multi_tensor"),
    "sorting and indexing": ("sort", "topk", "scatter", "gather", "index", "scan"),
    "reductions": ("reduce", "softmax", "norm"),
    "element-wise and copies": ("elementwise", "vectorized", "copy", "memcpy", "memset", "fill", "cat", "triton"),
}
OTHER = "other"


def main() -> None:
    """Measure, print, and with --save record."""
    save = wants_saving()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="measured steps of each way")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device, and torch sees none. `make bench` measures what needs none.")
    rows, profile = measure_all(args.steps)
    record("gpu", "scale=talk on one GPU", rows, threads=torch.get_num_threads(), save=save, note=device_note())
    record("gpu_profile", "A step of scale=talk by groups of kernels", profile, threads=1, save=save)


def measure_all(steps: int) -> tuple[list[Row], list[Row]]:
    """Rows for each way and batch, and the profile of our step at the smaller batch."""
    talk, long, loop = (talk_run(*more) for more in ((), ("scale=talk_long",), ("engine.expert_backend=loop",)))
    rows = [
        measure(f"ours, {name}, {run.trainer.tokens_per_step:,} tokens", run, partial(our_step, run, compiles), steps)
        for run in (talk, long)
        for name, compiles in (("eager", False), ("compiled", True))
    ]
    rows.append(measure("loop over experts", loop, partial(our_step, loop, False), steps))
    rows.append(measure("Mixtral, grouped_mm", talk, partial(mixtral_step, talk), steps))
    fastest = max(rows[:2], key=lambda row: row["tokens_per_s"])["tokens_per_s"]
    for row in rows[len(rows) - 2 :]:
        row["ours_by_it"] = fastest / row["tokens_per_s"]
    return rows, kernel_groups(profiled(our_step(talk, False)))


def talk_run(*overrides: str) -> RunConfig:
    """A run of the talk's model."""
    scale = () if any(o.startswith("scale=") for o in overrides) else ("scale=talk",)
    return compose(single([*scale, *overrides]))


def measure(name: str, run: RunConfig, build: Callable[[], Callable[[], None]], steps: int) -> Row:
    """Speed and peak memory of one way to take a step. Its memory is free again afterwards."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step = build()
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / steps
    return row(name, run, seconds, torch.cuda.max_memory_allocated())


def row(name: str, run: RunConfig, seconds: float, peak_bytes: int) -> Row:
    """What is told of one way: a step of `run` took so many seconds."""
    rate = run.trainer.tokens_per_step / seconds
    return {
        "what": name,
        "step_ms": seconds * 1e3,
        "tokens_per_s": rate,
        "mfu": sizes(run, VOCAB).flops_per_token * rate / PEAK_FLOPS,
        "peak_gib": peak_bytes / 2**30,
    }


def our_step(run: RunConfig, compiles: bool, device: str = "cuda") -> Callable[[], None]:
    """A training step of our model as the trainer takes it, without balancing and logs."""
    model = build_model(run, VOCAB).to(device)
    call = compiled(model) if compiles else model

    def loss(tokens_BS: Tensor, targets_BS: Tensor) -> Tensor:
        found: Tensor = call(tokens_BS, targets_BS).loss
        return found

    return stepper(run, model, loss, device)


def mixtral_step(run: RunConfig, device: str = "cuda") -> Callable[[], None]:
    """The same step of Hugging Face Mixtral with the same weights; its whole logits go through cross_entropy."""
    mixtral = as_mixtral(build_model(run, VOCAB), run, VOCAB)
    mixtral.set_experts_implementation("grouped_mm")
    nn.Module.to(mixtral, device)

    def loss(tokens_BS: Tensor, targets_BS: Tensor) -> Tensor:
        logits_BSV = mixtral(input_ids=tokens_BS).logits
        return nn.functional.cross_entropy(logits_BSV.flatten(0, 1), targets_BS.flatten())

    return stepper(run, mixtral, loss, device)


def stepper(
    run: RunConfig, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], device: str
) -> Callable[[], None]:
    """Every micro-batch forward and backward in bfloat16 autocast, then clipping and AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    settings = run.trainer
    shape = (2, settings.micro_batch_size, settings.seq_len)
    tokens_BS, targets_BS = torch.randint(VOCAB, shape, device=device).unbind()

    def step() -> None:
        for _ in range(settings.micro_batches):
            with torch.autocast(device, torch.bfloat16):
                value = loss(tokens_BS, targets_BS)
            (value / settings.micro_batches).backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def profiled(step: Callable[[], None]) -> Iterable[Any]:
    """Kernels of one step after the warm-up, with their times."""
    for _ in range(WARM_UP):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    found: Iterable[Any] = profile.key_averages()
    return found


def kernel_groups(kernels: Iterable[Any]) -> list[Row]:
    """Microseconds of each group of kernels, largest first, and their share."""
    totals: dict[str, float] = {}
    for kernel in kernels:
        name = group_of(kernel.key)
        totals[name] = totals.get(name, 0.0) + kernel.self_device_time_total
    whole = sum(totals.values())
    ordered = sorted(totals.items(), key=lambda item: -item[1])
    return [{"kernels": name, "ms": time_us / 1e3, "share": time_us / whole} for name, time_us in ordered if time_us]


def group_of(kernel: str) -> str:
    """The group of a kernel by its name."""
    lower = kernel.lower()
    return next((name for name, words in GROUPS.items() if any(word in lower for word in words)), OTHER)


def device_note() -> str:
    """The card and its memory."""
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}."


if __name__ == "__main__":
    main()
