"""What the C library does with freed memory. Each test in a process of its own: the setting cannot be undone."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
START = """
import ctypes
import moe_sweeps.host.heap as heap
MB = 2**20
def resident():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmRSS"))
"""


def printed(code: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize(("megabytes", "kept"), [(1, True), (24, True), (32, False), (100, False)])
def test_freed_memory_is_kept_but_for_large_tensors(megabytes: int, kept: bool) -> None:
    before, held, freed = printed(f"""
heap.keep_freed_memory()
print(resident())
blocks = [bytearray(b"1" * {megabytes} * MB) for _ in range(200 // {megabytes})]
print(resident())
del blocks
print(resident())
""")
    assert held - before >= 180
    assert freed - before >= 150 if kept else freed - before <= 10


def test_another_c_library_has_none_of_it() -> None:
    assert printed("ctypes.CDLL = lambda name: None\nheap.keep_freed_memory()\nprint(0)") == [0]
