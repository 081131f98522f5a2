"""A training step against Hugging Face Mixtral and a loop over experts: same weights, batch, loss, optimizer.

    python benchmarks/step_vs_mixtral.py [SHAPE ...] [--seconds 6] [--save]

One thread. Everything takes turns, so that other work on the machine slows all alike. Mixtral runs in both of its
expert settings and with its layers compiled (`torch.compile`, max-autotune), and is judged by the fastest; all keep
freed memory, as our workers do. Mixtral also runs in a process of its own with the memory allocator as it comes
(`mixtral_plain`), as in a script written by hand. Seconds are given as CPU seconds of the thread, which other processes
disturb little, and ratios by both clocks. The share of peak is the model's arithmetic (docs/definitions.md) by the
fastest rate of float32, measured between the steps in every way that there is (`peak`: its name): a 1024^3 product by
torch and by oneDNN, and as many multiply-adds in a plain loop (fma_loop.py).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from fma_loop import FMA, multiply_adds
from record import Row, record, wants_saving
from torch import Tensor, nn
from transformers import MixtralForCausalLM

from moe_sweeps.config.groups import (
    EngineConfig,
    ExpertBackend,
    KernelChoice,
    ModelConfig,
    MoEExpertsConfig,
    TrainerConfig,
)
from moe_sweeps.experiment.schema import RunConfig, validate
from moe_sweeps.host import peak
from moe_sweeps.host.heap import keep_freed_memory
from moe_sweeps.model.sizes import sizes
from moe_sweeps.model.transformer import build_model

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import make_run
from mixtral import as_mixtral

WARM_UP, LEAST_ROUNDS = 1, 5
COMPILED = "compiled"
PLAIN = ("grouped_mm", COMPILED)  # the settings of Mixtral in a process of its own
Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Shape:
    """A model, its batch, and the ratio to Mixtral and the share of peak that are aimed at."""

    width: int
    heads: int
    experts: int
    ffn_hidden: int
    vocab: int
    batch: int
    ratio: float | None = None
    share: float | None = None
    layers: int = 4
    seq_len: int = 128

    def run(self, kernels: KernelChoice = KernelChoice.auto, experts: ExpertBackend = ExpertBackend.auto) -> RunConfig:
        """The run of this shape, computed in one way."""
        run = make_run(
            model=ModelConfig(layers=self.layers, width=self.width, heads=self.heads),
            experts=MoEExpertsConfig(num_experts=self.experts, top_k=2, ffn_hidden=self.ffn_hidden),
            trainer=TrainerConfig(batch_size=self.batch, micro_batch_size=self.batch, seq_len=self.seq_len),
            engine=EngineConfig(kernels=kernels, expert_backend=experts),
        )
        return validate(run)

    @property
    def flops(self) -> float:
        """Of a training step, by docs/definitions.md."""
        return sizes(self.run(), self.vocab).flops_per_token * self.tokens

    @property
    def tokens(self) -> int:
        return self.batch * self.seq_len


SHAPES = {
    "width 64, 8 experts": Shape(64, 4, 8, 176, 2048, 8, ratio=1.9, share=0.5),
    "width 64, 32 experts": Shape(64, 4, 32, 176, 2048, 8),
    "width 64, 128 experts": Shape(64, 4, 128, 176, 2048, 8, ratio=1.9),
    "width 128, 8 experts": Shape(128, 8, 8, 344, 4096, 16, ratio=1.8),
    "width 256, 8 experts": Shape(256, 8, 8, 688, 4096, 8, ratio=1.75, share=0.7),
}


class Timing(NamedTuple):
    """Seconds of a step."""

    wall: float
    cpu: float


TimedStep = Callable[[], Timing]


def main() -> None:
    """Measure, print, and with --save record."""
    save = wants_saving()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", help=f"of {', '.join(SHAPES)}; without: those with a target")
    parser.add_argument("--seconds", type=float, default=6.0, help="of measuring, for each shape")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for name in args.shapes or [name for name, shape in SHAPES.items() if shape.ratio]:
        with apart(SHAPES[name], PLAIN) as plains:
            rows.append(measure(name, SHAPES[name], plains, args.seconds))
        print(f"{name}: {rows[-1]['ratio']:.2f} times the fastest Mixtral ({rows[-1]['mixtral']})", flush=True)
    title = "A training step on one CPU thread, against Hugging Face Mixtral"
    record("step_vs_mixtral", title, rows, threads=1, save=save, note=NOTE)


NOTE = (
    "Milliseconds are CPU time of the thread, medians of steps that took turns. `ratio` is the fastest setting of "
    "Mixtral by ours, by CPU time and by the clock on the wall; there Mixtral keeps freed memory, as our workers do. "
    "`ratio_plain`: against the faster of grouped_mm and compiled in a process with the memory allocator as it comes. "
    "`compiled`: grouped_mm in layers that torch.compile made in `compile_s` seconds, max-autotune. `torch`: our model "
    "without compiled kernels; `loop`: that with a loop over the experts. `peak`: the fastest of a 1024^3 product by "
    "torch and by oneDNN and of as many multiply-adds in a plain loop (benchmarks/fma_loop.py), measured between steps."
)


def measure(name: str, shape: Shape, plains: dict[str, TimedStep], seconds: float) -> Row:
    """One row of the table. `plains`: steps of Mixtral with the memory allocator as it comes."""
    steps, rivals = ways(shape)
    compile_seconds = timed(steps[COMPILED]).wall - timed(steps[COMPILED]).wall
    for plain in plains.values():
        plain()
    a, b = torch.randn(2, peak.SIZE, peak.SIZE).unbind()
    gemms: dict[str, Step] = {way: partial(product, a, b) for way, product in peak.products().items()}
    if (loop := multiply_adds(peak.SIZE**3)) is not None:
        gemms[FMA] = loop
    here = {way: partial(timed, step) for way, step in (steps | gemms).items()}
    timings = take_turns(here | {f"plain {way}": step for way, step in plains.items()}, seconds)
    ours, fastest = timings["ours"], min(rivals, key=lambda rival: timings[rival].cpu)
    faster_plain = min(timings[f"plain {way}"].cpu for way in plains)
    gemm = min(gemms, key=lambda way: timings[way].cpu)
    rate = 2 * peak.SIZE**3 / timings[gemm].cpu
    return {
        "shape": name,
        "tokens_per_s": shape.tokens / ours.cpu,
        **{f"{way}_ms": timings[way].cpu * 1e3 for way in ("ours", "torch", "loop")},
        "mixtral_ms": timings[fastest].cpu * 1e3,
        "mixtral": fastest,
        "compiled_ms": timings[COMPILED].cpu * 1e3,
        "compile_s": compile_seconds,
        "ratio": timings[fastest].cpu / ours.cpu,
        "ratio_wall": min(timings[rival].wall for rival in rivals) / ours.wall,
        "mixtral_plain_ms": faster_plain * 1e3,
        "ratio_plain": faster_plain / ours.cpu,
        "target": shape.ratio,
        "ratio_loop": timings["loop"].cpu / ours.cpu,
        "peak": gemm,
        "peak_gflops": rate / 1e9,
        "share_of_peak": shape.flops / ours.cpu / rate,
        "target_share": shape.share,
    }


def ways(shape: Shape) -> tuple[dict[str, Step], list[str]]:
    """A training step in each of the ways that are compared, and which of them are Mixtral's."""
    runs = {
        "ours": shape.run(),
        "torch": shape.run(KernelChoice.torch),
        "loop": shape.run(KernelChoice.torch, ExpertBackend.loop),
    }
    models = {way: build_model(run, shape.vocab) for way, run in runs.items()}
    batch = a_batch(shape)
    steps = {way: stepper(model, partial(_our_loss, model, *batch)) for way, model in models.items()}
    loops = [] if shape.experts > 32 else ["eager"]  # over the experts, which many of them make slow
    rivals = ["grouped_mm", COMPILED, *loops]
    return steps | {rival: mixtral_step(shape, rival) for rival in rivals}, rivals


def mixtral_step(shape: Shape, setting: str) -> Step:
    """A training step of Mixtral with the weights of our model and the batch of the others.

    `setting`: how it computes its experts, or COMPILED: by grouped_mm, in layers that are compiled at the first call.
    All layers share the compiled code. Compiling the whole pass took twice as long, and no step was faster.
    """
    run = shape.run()
    mixtral = as_mixtral(build_model(run, shape.vocab), run, shape.vocab)
    mixtral.set_experts_implementation("grouped_mm" if setting == COMPILED else setting)
    for layer in mixtral.model.layers if setting == COMPILED else ():
        layer.compile(mode="max-autotune", dynamic=False)
    return stepper(mixtral, partial(_mixtral_loss, mixtral, *a_batch(shape)))


def a_batch(shape: Shape) -> tuple[Tensor, Tensor]:
    """Random tokens and targets, the same for all."""
    draw = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(shape.vocab, (2, shape.batch, shape.seq_len), generator=draw).unbind()
    return tokens, targets


@contextmanager
def apart(shape: Shape, settings: Sequence[str]) -> Iterator[dict[str, TimedStep]]:
    """A step of Mixtral in each setting, in a process of their own, which waits while it is not its turn."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve_steps, args=(there, shape, settings))
    process.start()

    def step(setting: str) -> Timing:
        here.send(setting)
        found: Timing = here.recv()
        return found

    try:
        yield {setting: partial(step, setting) for setting in settings}
    finally:
        here.send(None)
        process.join()


def _serve_steps(pipe: Connection, shape: Shape, settings: Sequence[str]) -> None:
    torch.set_num_threads(1)
    steps = {setting: mixtral_step(shape, setting) for setting in settings}
    while (setting := pipe.recv()) is not None:
        pipe.send(timed(steps[setting]))


def timed(step: Step) -> Timing:
    """What one call takes."""
    wall, cpu = time.perf_counter(), time.thread_time()
    step()
    return Timing(time.perf_counter() - wall, time.thread_time() - cpu)


def take_turns(steps: dict[str, TimedStep], seconds: float) -> dict[str, Timing]:
    """Call each step in turn for about so long, and at least LEAST_ROUNDS times after the warm-up."""
    found: dict[str, list[Timing]] = {name: [] for name in steps}
    started, rounds = time.perf_counter(), 0
    while rounds < WARM_UP + LEAST_ROUNDS or time.perf_counter() - started < seconds:
        for name, step in steps.items():
            found[name].append(step())
        rounds += 1
    kept = {name: timings[WARM_UP:] for name, timings in found.items()}
    return {name: Timing(median(t.wall for t in ts), median(t.cpu for t in ts)) for name, ts in kept.items()}


def stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """Forward pass, backward pass and AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> None:
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        value.item()

    return step


def _our_loss(model: nn.Module, tokens_BS: Tensor, targets_BS: Tensor) -> Tensor:
    loss: Tensor = model(tokens_BS, targets_BS).loss
    return loss


def _mixtral_loss(mixtral: MixtralForCausalLM, tokens_BS: Tensor, targets_BS: Tensor) -> Tensor:
    logits_BSV = mixtral(input_ids=tokens_BS).logits
    return nn.functional.cross_entropy(logits_BSV.flatten(0, 1), targets_BS.flatten())


if __name__ == "__main__":
    main()
