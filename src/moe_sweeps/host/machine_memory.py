"""How much memory this process may use, and how often the kernel has killed processes for lack of it.

Read from /proc and from control groups of both versions; where there are none, nothing is known. `root`: where the file
system starts, for tests.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
VMSTAT = "/proc/vmstat"
OUT_OF_MEMORY = "killed by the kernel: out of memory"
REMEDY = (
    "Let fewer runs train at once (launch.workers=1), make micro-batches smaller (trainer.micro_batch_size), or use a "
    "machine or a job with more memory (launch.mem_gb); the same command resumes from the last checkpoint"
)


@dataclass(frozen=True, slots=True)
class Limit:
    """Bytes of memory, and in words who has or allows them."""

    bytes: int
    where: str


def memory_limit(root: Path = ROOT) -> Limit | None:
    """The most memory that this process and its children can use, with swap; None if not known."""
    meminfo = _meminfo(root)
    if "MemTotal" not in meminfo:
        return None
    swap = meminfo.get("SwapTotal", 0)
    limits = [Limit(meminfo["MemTotal"] + swap, "this machine has")]
    for folder in _control_groups(root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            most = _number(folder / name)
            if most is not None:
                limits.append(Limit(most + _swap_of(folder, swap), "the control group of this process allows"))
    return min(limits, key=lambda limit: limit.bytes)


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that are free now or that the kernel can reclaim; None if not known."""
    return _meminfo(root).get("MemAvailable")


def oom_kills(root: Path = ROOT) -> dict[str, int]:
    """How many processes the kernel has killed for lack of memory: file -> count, this process's own group first."""
    groups = list(_control_groups(root))
    # Version 1 counts in the victim's own group alone, version 2 also in the groups above it.
    files = [folder / "memory.oom_control" for folder in groups[:1]] + [folder / "memory.events" for folder in groups]
    counts = {str(file): _keyed(file).get("oom_kill") for file in (*files, root / VMSTAT.lstrip("/"))}
    return {file: count for file, count in counts.items() if count is not None}


def out_of_memory(host: str | None, counts_before: Mapping[str, int], root: Path = ROOT) -> str | None:
    """What to say of a dead worker if the kernel killed it for lack of memory; None: it did not, or nobody knows.

    The kernel only counts its kills. `counts_before` was noted on `host` when the worker began; of those counts that
    can be read here, the innermost group's decides: it would have risen.
    """
    counts = oom_kills(root) if host == socket.gethostname() else {}
    for file, before in counts_before.items():
        if file not in counts:
            continue
        now = counts[file]
        if now <= before:
            return None
        if file.endswith(VMSTAT):
            many = f"{now - before} process{'es' if now - before > 1 else ''} of this machine"
            return f"{OUT_OF_MEMORY}, most likely (it has killed {many} since the run started). {REMEDY}"
        return f"{OUT_OF_MEMORY}. {REMEDY}"
    return None


def _meminfo(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    lines = (line.split() for line in _lines(root / "proc/meminfo"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3}


def _control_groups(root: Path) -> Iterator[Path]:
    """The folders of this process's memory control groups, the innermost first."""
    paths = _own_paths(root)
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = ([*after.split(" "), "", "", ""])[:3]
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and "memory" in options.split(","):
            path = paths.get("memory")
        else:
            continue
        if path is not None:
            mounted, at = before.split(" ")[3:5]
            yield from _up_to(root / at.lstrip("/"), _below(path, mounted))


def _own_paths(root: Path) -> dict[str, str]:
    """Controller -> path of this process's group; version 2 has no name."""
    found: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


def _below(path: str, mounted: str) -> str:
    """`path` as seen below a mount of `mounted`; a container often sees its own group as the root."""
    if mounted == "/":
        return path.lstrip("/")
    return path.removeprefix(mounted).lstrip("/") if path.startswith(mounted) else ""


def _up_to(top: Path, path: str) -> Iterator[Path]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:depth])


def _swap_of(folder: Path, swap: int) -> int:
    """Swap that a group may use beside its memory. Version 1 limits the sum, so there this is an upper bound."""
    lines = _lines(folder / "memory.swap.max")
    return min(int(lines[0]), swap) if lines and lines[0].isdigit() else swap


def _number(file: Path) -> int | None:
    lines = _lines(file)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _keyed(file: Path) -> dict[str, int]:
    """A file of lines with a word and a number."""
    lines = (line.split() for line in _lines(file))
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}


def _lines(file: Path) -> list[str]:
    """The lines of a file, none where it cannot be read."""
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []
