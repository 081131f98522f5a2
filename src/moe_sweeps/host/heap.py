"""What glibc does with freed memory. With another C library nothing here has an effect."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
LARGE = 2**25  # bytes; the most that glibc takes as a threshold


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the kernel after every tensor of more than 128 kB.

    Each training step frees and allocates the same tensors, and fresh pages cost more than the arithmetic on them: at
    width 128 a step was 10% faster with this. Tensors of `LARGE` bytes and more are returned all the same: those of the
    talk's model vary with the load of its experts, do not fit into each other's gaps, and its evaluation would grow by
    half (docs/LOG.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in ((_M_MMAP_THRESHOLD, LARGE), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26)):
        mallopt(parameter, value)
