"""Whether a run's training passes go through `torch.compile`: where it saves more time than it costs.

The decision follows from the config and the device alone, so that a resumed run decides as it did at its start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from moe_sweeps.config.groups import RouterNoise
from moe_sweeps.errors import ConfigError
from moe_sweeps.model.sizes import sizes

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run

# The assumed speed of a GPU, the share of a step that compiling saves, and what compiling costs. Not measured yet:
# cautious guesses, which leave short runs uncompiled.
_GPU_FLOPS, _SAVED_SHARE, _COMPILE_SECONDS = 150e12, 0.1, 120.0


@dataclass(frozen=True, slots=True)
class Compiling:
    """Whether the model is compiled, and why, for the log."""

    on: bool
    why: str

    def state_dict(self) -> bool:
        """What a checkpoint keeps: whether the model is compiled."""
        return self.on

    def load_state_dict(self, on: bool) -> None:
        """Check that a run is resumed as it was started, or its numbers would differ in the last digits.

        Raises:
            ConfigError: it was started compiled and would resume uncompiled, or the other way round.
        """
        if on != self.on:
            words = {True: "compiled", False: "not compiled"}
            rule = f"the run was started {words[on]}, and here it would resume {words[self.on]} ({self.why})"
            raise ConfigError("engine.compile", self.on, rule, "Resume on the kind of device where it was started.")


def compiling(run: Run, vocab_size: int, device: torch.device, processes: int = 1) -> Compiling:
    """The decision for a run: `engine.compile` where it is set, otherwise by its device and its length."""
    if run.engine.compile is not None:
        return Compiling(run.engine.compile, f"engine.compile={str(run.engine.compile).lower()}")
    if run.engine.kind != "native":
        return Compiling(False, f"engine={run.engine.kind} compiles functions of its own")
    if device.type != "cuda":
        return Compiling(False, "on CPU the compiled kernels do more (docs/performance.md)")
    if processes > 1:
        return Compiling(False, "several processes")
    if draws_random_numbers(run):
        return Compiling(False, "the router draws random numbers, and compiled code would draw different ones")
    flops = sizes(run, vocab_size).flops_per_token * run.trainer.tokens_per_step * run.trainer.steps
    saved = _SAVED_SHARE * flops / _GPU_FLOPS
    verdict = "pays" if saved > _COMPILE_SECONDS else "does not pay"
    return Compiling(
        saved > _COMPILE_SECONDS,
        f"{run.trainer.steps:,} steps: compiling {verdict}, saving about {saved:,.0f} s for {_COMPILE_SECONDS:.0f} s",
    )


def draws_random_numbers(run: Run) -> bool:
    """Whether the router draws random numbers in training."""
    router = run.router
    return bool(router.input_jitter or router.input_dropout) or router.noise is not RouterNoise.none


def compiled(model: nn.Module) -> nn.Module:
    """`model`, sharing its parameters, compiled at its first call for the shapes of that call."""
    module: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    return module
