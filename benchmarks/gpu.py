"""A training step on a device, one way at a time: tokens per second, MFU, peak memory, and where its time goes.

    python benchmarks/gpu.py WAY [--scale talk] [--steps 20] [--device cuda] [--profile] [--out FILE]

The ways: `eager`, `compiled`, `loop` (over experts), `mixtral` (Hugging Face's, grouped_mm), `megatron` (megatron-core
with what of Transformer Engine is installed). All in bfloat16 autocast at the batch of `--scale`. MFU is the arithmetic
of docs/definitions.md over the peak of the device (host/peak.py), as in summary.json. `make gpu-hour PART=2` calls this
for every way. `--device cpu` computes a tiny model, as a rehearsal.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from common import wait
from record import Row
from torch import Tensor, nn

from moe_sweeps.engines.build import build_engine_model
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.files import write_json
from moe_sweeps.host.hardware import peak_memory
from moe_sweeps.host.peak import peak_of
from moe_sweeps.model.compiling import compiled
from moe_sweeps.model.sizes import sizes
from moe_sweeps.model.transformer import build_model
from moe_sweeps.sweep.grid import single

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from mixtral import as_mixtral

VOCAB = 50304
WARM_UP = 3
# What a rehearsal on the CPU makes of a scale.
TINY = (
    *("model.width=32", "model.layers=2", "model.heads=2", "experts.ffn_hidden=32", "trainer.seq_len=16"),
    *("trainer.batch_size=4", "trainer.micro_batch_size=2"),
)
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
    """Measure one way; print it, and with --out write its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--scale", default="talk")
    parser.add_argument("--steps", type=int, default=20, help="measured steps")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--profile", action="store_true", help="kernels of one step by groups, in place of its speed")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device, and torch sees none. `make bench` measures what needs none.")
    device, run = torch.device(args.device), talk_run(args.scale, args.device, args.way)
    name = f"{args.scale}, {args.way}"
    if args.profile:
        rows = [{"what": name} | row for row in kernel_groups(profiled(WAYS[args.way](run, device), device))]
    else:
        rows = [measure(name, run, device, WAYS[args.way], args.steps)]
    for one in rows:
        print("  ".join(f"{key}={value}" for key, value in one.items()))
    if args.out:
        write_json(args.out, rows)


def talk_run(scale: str = "talk", device: str = "cuda", way: str = "eager") -> RunConfig:
    """A run of the talk's model; on the CPU a tiny one."""
    more = {"loop": ("engine.expert_backend=loop",), "megatron": ("engine=megatron",)}.get(way, ())
    tiny = TINY if device == "cpu" else ()
    return compose(single([f"scale={scale}", "trainer.precision=bfloat16", *tiny, *more, f"engine.device={device}"]))


def vocabulary(run: RunConfig) -> int:
    """Tokens of the measured model: those of the talk, but for a tiny one."""
    return VOCAB if run.model.width > 32 else 96


def measure(name: str, run: RunConfig, device: torch.device, build: Builder, steps: int) -> Row:
    """Speed and peak memory of one way to take a step."""
    step = build(run, device)
    for _ in range(WARM_UP):
        step()
    wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    seconds = (time.perf_counter() - started) / steps
    peak = peak_of(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    return row(name, run, seconds, peak_memory(device), peak.flops) | {"peak_from": peak.way, "steps": steps}


def row(name: str, run: RunConfig, seconds: float, peak_bytes: int, peak_flops: float) -> Row:
    """What is told of one way: a step of `run` took so many seconds."""
    rate = run.trainer.tokens_per_step / seconds
    return {
        "what": name,
        "tokens_a_step": run.trainer.tokens_per_step,
        "step_ms": seconds * 1e3,
        "tokens_per_s": rate,
        "mfu": sizes(run, vocabulary(run)).flops_per_token * rate / peak_flops,
        "peak_gib": peak_bytes / 2**30,
    }


def eager_step(run: RunConfig, device: torch.device) -> Callable[[], None]:
    """A training step of our model as the trainer takes it, without balancing and logs."""
    return _our_step(run, device, lambda model: model)


def compiled_step(run: RunConfig, device: torch.device) -> Callable[[], None]:
    """The same, compiled."""
    return _our_step(run, device, compiled)


def _our_step(run: RunConfig, device: torch.device, wrapped: Callable[[nn.Module], nn.Module]) -> Callable[[], None]:
    model = build_engine_model(run, vocabulary(run), None, device).to(device)
    call = wrapped(model)

    def loss(tokens_BS: Tensor, targets_BS: Tensor) -> Tensor:
        found: Tensor = call(tokens_BS, targets_BS).loss
        return found

    return stepper(run, model, loss, device)


def megatron_step(run: RunConfig, device: torch.device) -> Callable[[], None]:
    """A step of megatron-core through our engine for it."""
    version = importlib.metadata.version("megatron-core")  # PackageNotFoundError says what is missing
    print(f"megatron-core {version}")
    return eager_step(run, device)


def mixtral_step(run: RunConfig, device: torch.device) -> Callable[[], None]:
    """The same step of Hugging Face Mixtral with the same weights; its whole logits go through cross_entropy."""
    mixtral = as_mixtral(build_model(run, vocabulary(run)), run, vocabulary(run))
    mixtral.set_experts_implementation("grouped_mm")
    nn.Module.to(mixtral, device)

    def loss(tokens_BS: Tensor, targets_BS: Tensor) -> Tensor:
        logits_BSV = mixtral(input_ids=tokens_BS).logits
        return nn.functional.cross_entropy(logits_BSV.flatten(0, 1), targets_BS.flatten())

    return stepper(run, mixtral, loss, device)


Builder = Callable[[RunConfig, torch.device], Callable[[], None]]
WAYS: dict[str, Builder] = {
    "eager": eager_step,
    "compiled": compiled_step,
    "loop": eager_step,
    "mixtral": mixtral_step,
    "megatron": megatron_step,
}


def stepper(
    run: RunConfig, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], device: torch.device
) -> Callable[[], None]:
    """Every micro-batch forward and backward in bfloat16 autocast, then clipping and AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    settings = run.trainer
    shape = (2, settings.micro_batch_size, settings.seq_len)
    tokens_BS, targets_BS = torch.randint(vocabulary(run), shape, device=device).unbind()

    def step() -> None:
        for _ in range(settings.micro_batches):
            with torch.autocast(device.type, torch.bfloat16):
                value = loss(tokens_BS, targets_BS)
            (value / settings.micro_batches).backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def profiled(step: Callable[[], None], device: torch.device) -> Iterable[Any]:
    """Kernels of one step after the warm-up, with their times; on the CPU its operators, which count twice."""
    for _ in range(WARM_UP):
        step()
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if device.type == "cuda" else activity.CPU]) as profile:
        step()
        wait(device)
    found: Iterable[Any] = profile.key_averages()
    return found


def kernel_groups(kernels: Iterable[Any]) -> list[Row]:
    """Microseconds of each group of kernels, largest first, and their share."""
    totals: dict[str, float] = {}
    for kernel in kernels:
        name = group_of(kernel.key)
        spent = kernel.self_device_time_total or getattr(kernel, "self_cpu_time_total", 0.0)
        totals[name] = totals.get(name, 0.0) + spent
    whole = sum(totals.values())
    ordered = sorted(totals.items(), key=lambda item: -item[1])
    return [{"kernels": name, "ms": time_us / 1e3, "share": time_us / whole} for name, time_us in ordered if time_us]


def group_of(kernel: str) -> str:
    """The group of a kernel by its name."""
    lower = kernel.lower()
    return next((name for name, words in GROUPS.items() if any(word in lower for word in words)), OTHER)


if __name__ == "__main__":
    main()
