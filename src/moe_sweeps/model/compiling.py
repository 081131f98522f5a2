"""Whether a run's training passes go through `torch.compile`: where that pays within the run's length.

The decision follows from the config and the device alone, so that a run which goes on decides as it began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from moe_sweeps.errors import ConfigError
from moe_sweeps.model.router import RouterNoise
from moe_sweeps.model.sizes import sizes

if TYPE_CHECKING:
    from moe_sweeps.config.schema import RunConfig

# What a GPU is taken to do in a second, the share of a step that compiling saves, and what it costs. Not yet measured:
# guesses on the careful side, which leave short runs uncompiled.
_GPU_FLOPS, _SAVED_SHARE, _COMPILE_SECONDS = 150e12, 0.1, 120.0


@dataclass(frozen=True, slots=True)
class Compiling:
    """Whether, and why: for the log."""

    on: bool
    why: str


def compiling(run: RunConfig, vocab_size: int, device: torch.device, processes: int = 1) -> Compiling:
    """The decision for a run: `engine.compile` where it is set, else what its device and length say."""
    if run.engine.compile is not None:
        return Compiling(run.engine.compile, f"engine.compile={str(run.engine.compile).lower()}")
    if run.engine.kind != "native":
        return Compiling(False, f"engine={run.engine.kind} compiles functions of its own")
    if device.type != "cuda":
        return Compiling(False, "on CPU the compiled kernels do more (docs/performance.md)")
    if processes > 1:
        return Compiling(False, "several processes")
    if draws_random_numbers(run):
        return Compiling(False, "the router draws random numbers, and compiled code would draw others")
    flops = sizes(run, vocab_size).flops_per_token * run.trainer.tokens_per_step * run.trainer.steps
    saved = _SAVED_SHARE * flops / _GPU_FLOPS
    verdict = "pays" if saved > _COMPILE_SECONDS else "does not pay"
    return Compiling(
        saved > _COMPILE_SECONDS,
        f"{run.trainer.steps:,} steps: compiling {verdict}, saving about {saved:,.0f} s for {_COMPILE_SECONDS:.0f} s",
    )


def draws_random_numbers(run: RunConfig) -> bool:
    """Whether the router is noisy in training."""
    router = run.router
    return bool(router.input_jitter or router.input_dropout) or router.noise is not RouterNoise.none


def compiled(model: nn.Module) -> nn.Module:
    """A callable that shares everything with `model` and is compiled at its first call. Shapes are those of one run."""
    module: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    return module


def require_same_choice(began: bool, now: Compiling) -> None:
    """A run goes on as it began, or its numbers would differ in the last digits.

    Raises:
        ConfigError: it began compiled and would go on otherwise, or the other way round.
    """
    if began != now.on:
        words = {True: "compiled", False: "not compiled"}
        rule = f"the run began {words[began]}, and here it would go on {words[now.on]} ({now.why})"
        raise ConfigError("engine.compile", now.on, rule, "Go on where it began.")
