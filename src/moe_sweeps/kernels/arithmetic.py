"""The instruction sets that the kernels are compiled for. Each adds in an order of its own, so each is an arithmetic.

A run computes with one from its beginning to its end; its checkpoints keep which.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from enum import StrEnum

from moe_sweeps.host.processor import processor

_WIDE_FAMILY = 26  # AMD's processors compute with 512 bits at once since Zen 5; Zen 4 does so in two halves
_X86 = ("x86_64", "AMD64")


class Arithmetic(StrEnum):
    """How the kernels add and multiply. All agree to rounding."""

    avx512 = "avx512"
    avx2 = "avx2"
    plain = "plain"  # what the compiler makes of the vectors on another kind of processor

    @property
    def target(self) -> Target:
        """What the compiler is told."""
        return _TARGETS[self]

    def obstacle(self) -> str | None:
        """Why this processor cannot compute so, or None."""
        if (self is Arithmetic.plain) is is_x86():
            return f"{self.value} is for {'other processors' if is_x86() else 'x86 processors'}, this is {_machine()}"
        missing = self.target.flags - processor().flags if processor().flags else frozenset()
        return f"the processor has no {' and no '.join(sorted(missing))}" if missing else None


@dataclass(frozen=True, slots=True)
class Target:
    """Options of the compiler, floats in a vector, and what /proc/cpuinfo says of a processor that can run it."""

    options: tuple[str, ...]
    width: int
    flags: frozenset[str] = frozenset()

    @property
    def panel(self) -> int:
        """Tokens of an expert that are worked on together."""
        return 2 * self.width


# Levels, not -march=native: what else a processor could do changes no bit.
_TARGETS = {
    Arithmetic.avx512: Target(
        ("-march=x86-64-v4",), 16, frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma"})
    ),
    Arithmetic.avx2: Target(("-march=x86-64-v3",), 8, frozenset({"avx2", "fma"})),
    Arithmetic.plain: Target((), 8),
}


def is_x86() -> bool:
    """Whether this machine runs x86 code."""
    return _machine() in _X86


def preferred() -> Arithmetic:
    """The fastest of this processor, by a rule, so that runs of one machine agree to the last bit.

    AVX-512 where the vectors are as wide as their names say: on AMD since Zen 5, and on Intel's with bfloat16 products
    (Cooper Lake, Sapphire Rapids), which do not slow down for them. On Zen 4 both are equally fast on large products,
    and AVX2 is faster on small ones (docs/LOG.md).
    """
    if not is_x86():
        return Arithmetic.plain
    cpu = processor()
    wide = cpu.family >= _WIDE_FAMILY if cpu.vendor == "AuthenticAMD" else "avx512_bf16" in cpu.flags
    return Arithmetic.avx512 if wide and Arithmetic.avx512.obstacle() is None else Arithmetic.avx2


def before_there_were_several() -> Arithmetic:
    """The arithmetic of kernels in checkpoints that say no more than that there were kernels."""
    return Arithmetic.avx2 if is_x86() else Arithmetic.plain


def _machine() -> str:
    return platform.machine()
