"""The processor that this process runs on."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Processor:
    """What Linux says about it; empty where it says nothing, as on another system."""

    vendor: str = ""  # "AuthenticAMD", "GenuineIntel"
    family: int = 0
    flags: frozenset[str] = frozenset()

    @classmethod
    def of(cls, cpuinfo: str) -> Processor:
        """From the content of /proc/cpuinfo, which describes every core alike; the first one counts."""
        lines = (line.partition(":") for line in cpuinfo.split("\n\n")[0].splitlines())
        said = {name.strip(): value.strip() for name, _, value in lines}
        family = said.get("cpu family", "")
        return cls(said.get("vendor_id", ""), int(family) if family.isdecimal() else 0, _words(said.get("flags", "")))


@functools.cache
def processor() -> Processor:
    """The one of this machine."""
    try:
        return Processor.of(CPUINFO.read_text(errors="replace"))
    except OSError:
        return Processor()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())
