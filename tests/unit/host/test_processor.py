"""What Linux says about the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_sweeps.host import processor as module
from moe_sweeps.host.processor import Processor, processor

ZEN5 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model name\t: AMD EPYC: a name with a colon
flags\t\t: fpu avx2 avx512f

processor\t: 1
vendor_id\t: GenuineIntel
cpu family\t: 6
"""


@pytest.mark.parametrize(
    ("cpuinfo", "wanted"),
    [
        (ZEN5, Processor("AuthenticAMD", 26, frozenset(("fpu", "avx2", "avx512f")))),
        ("", Processor()),
        ("Features : asimd sve\nCPU architecture: 8\n", Processor()),  # ARM has other words
        ("vendor_id : GenuineIntel\ncpu family : unknown\nflags\n", Processor("GenuineIntel")),
        ("cpu family : ²\n", Processor()),
    ],
)
def test_of(cpuinfo: str, wanted: Processor) -> None:
    assert Processor.of(cpuinfo) == wanted


def test_a_system_without_the_file_has_an_unknown_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "none")
    assert processor.__wrapped__() == Processor()
    (tmp_path / "none").write_bytes(b"vendor_id : \xff\xfe\nflags : avx2\n")
    assert processor.__wrapped__().flags == {"avx2"}
