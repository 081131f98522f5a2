"""The rate of a plain loop of fused multiply-adds: a core's limit, whatever a library reaches.

    python benchmarks/fma_loop.py

It is compiled for the widest vectors that the processor has, with the compiler of the kernels. Beside it: the rates of
the ways in which torch multiplies matrices (host/peak.py).
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch

from moe_sweeps.host.peak import gemm_peak
from moe_sweeps.kernels.arithmetic import Arithmetic
from moe_sweeps.kernels.build import compiler

SOURCE = Path(__file__).with_suffix(".cpp")
OPTIONS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-ffp-contract=fast")
CHAINS = 12  # of the source
FMA = "fma_loop"
FACTOR, TERM = 0.5, 1.0  # sums go to 2, and stay numbers that cost nothing extra
REPEATS = 5


def multiply_adds(count: int) -> Callable[[], float] | None:
    """A call that computes about `count` multiply-adds of float32; None without a compiler."""
    library = _library()
    if library is None:
        return None
    rounds = round(count / (CHAINS * _widest().target.width))
    return partial(library.multiply_adds, rounds, FACTOR, TERM)


def rate(repeats: int = REPEATS) -> float | None:
    """FLOP/s of one core, the best of `repeats`; None without a compiler. A multiply-add is two operations."""
    count = 1 << 28
    loop = multiply_adds(count)
    if loop is None:
        return None
    loop()
    return 2 * count / min(_seconds(loop) for _ in range(repeats))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled loop. The file may go once it is loaded."""
    command, target = compiler(), _widest().target
    if command is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fma_loop.so"
        told = [command, *OPTIONS, *target.options, f"-DWIDTH={target.width}", str(SOURCE), "-o", str(path)]
        subprocess.run(told, check=True)
        library = ctypes.CDLL(str(path))
    library.multiply_adds.argtypes = [ctypes.c_long, ctypes.c_float, ctypes.c_float]
    library.multiply_adds.restype = ctypes.c_float
    return library


def _widest() -> Arithmetic:
    """The first that the processor has: Arithmetic names the widest first."""
    return next(arithmetic for arithmetic in Arithmetic if arithmetic.obstacle() is None)


def main() -> None:
    """Print all rates."""
    torch.set_num_threads(1)
    rates = {FMA: rate()} | gemm_peak().rates
    for way, flops in rates.items():
        print(f"{way:>10}  {'no compiler' if flops is None else f'{flops / 1e9:.1f} GFLOP/s'}")


if __name__ == "__main__":
    main()
