"""`moe-sweeps doctor`: is this machine ready, and if not, what to do. It changes nothing and takes a few seconds."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from rich.console import Console

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import MoeSweepsError

DISTRIBUTION = "moe_sweeps"
HUB = ("huggingface.co", 443)
SECONDS = 3.0
LOW_DISK_GB = 5
TRACKERS = ("wandb", "tensorboard")
WANDB = "https://api.wandb.ai"


class Mark(Enum):
    """How a check came out."""

    fine = "ok"
    absent = "--"  # not here, and not needed for a run on this machine
    wrong = "!!"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    subject: str
    mark: Mark
    text: str
    fix: str = ""


def examine(runs: Path, data: Path) -> list[Finding]:
    """Check everything. A check that fails in itself is a finding, too."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("Python", python),
        ("packages", packages),
        ("devices", devices),
        ("kernels", kernels),
        ("SLURM", slurm),
        ("disk", lambda: disk({"runs": runs, "data": data})),
        ("data", lambda: prepared_data(data)),
        ("Hub", hub),
        ("trackers", trackers),
    ]
    return [finding for subject, check in checks for finding in _guarded(subject, check)]


def print_findings(console: Console, findings: list[Finding]) -> int:
    """Print the report; exit code 1 when something is wrong."""
    for finding in findings:
        console.print(
            f"{finding.mark.value}  {finding.subject:<9} {finding.text}", highlight=False, markup=False, soft_wrap=True
        )
        if finding.fix:
            console.print(f"              {finding.fix}", highlight=False, markup=False, soft_wrap=True)
    wrong = sum(f.mark is Mark.wrong for f in findings)
    console.print(f"{wrong} to put right" if wrong else "nothing to put right", highlight=False)
    return 1 if wrong else 0


def python() -> Iterator[Finding]:
    needed = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    least = tuple(int(n) for n in re.findall(r"\d+", needed)[:2])
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info[:2] < least:
        yield Finding("Python", Mark.wrong, found, f"Python {needed} is needed. Make the environment anew with it.")
    else:
        yield Finding("Python", Mark.fine, found)


def packages() -> Iterator[Finding]:
    """Every requirement of the project against what is installed."""
    requirements = [Requirement(r) for r in importlib.metadata.requires(DISTRIBUTION) or []]
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    problems = [p for p in map(_problem, needed) if p]
    torch = importlib.metadata.version("torch")
    if problems:
        yield Finding("packages", Mark.wrong, "; ".join(problems), f"Run: {sys.executable} -m pip install -e .")
    else:
        yield Finding("packages", Mark.fine, f"torch {torch}, and all {len(needed)} requirements are met")


def devices() -> Iterator[Finding]:
    import torch

    from moe_sweeps.hardware import available_cores

    cores = f"{available_cores()} cores"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding("devices", Mark.fine, f"{cores}, {len(names)} CUDA: {', '.join(names)}")
    elif shutil.which("nvidia-smi"):
        fix = f"torch {torch.__version__} sees no device: install its CUDA build, and see what nvidia-smi says."
        yield Finding("devices", Mark.wrong, f"{cores}; there is an NVIDIA driver, and torch does not see it", fix)
    else:
        yield Finding("devices", Mark.fine, f"{cores}, no GPU: runs use the CPU")


def kernels() -> Iterator[Finding]:
    """Whether training on CPU can use compiled kernels. They are not compiled here."""
    from moe_sweeps.kernels import build  # brings torch

    obstacle, command = build.processor_obstacle(), build.compiler()
    if obstacle:
        yield Finding("kernels", Mark.absent, f"{obstacle}: training on CPU uses torch's operations alone")
    elif command:
        yield Finding("kernels", Mark.fine, f"{command} compiles them for training on CPU")
    else:
        fix = "For faster training on CPU: install g++ or clang++, or set CXX to a compiler."
        yield Finding("kernels", Mark.absent, "there is no C++ compiler: runs use torch's operations alone", fix)


def slurm() -> Iterator[Finding]:
    if not shutil.which("sbatch"):
        yield Finding("SLURM", Mark.absent, "no sbatch here: sweeps run on this machine")
        return
    try:
        done = subprocess.run(["sinfo", "-h", "-o", "%P %a %D"], capture_output=True, text=True, timeout=SECONDS * 3)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("SLURM", Mark.wrong, f"sbatch is here, but sinfo fails: {error}", "Ask who runs the cluster.")
        return
    if done.returncode:
        text = f"sbatch is here, but sinfo fails: {' '.join(done.stderr.split())[:120]}"
        yield Finding("SLURM", Mark.wrong, text, "The controller does not answer. Ask who runs the cluster.")
    else:
        yield Finding("SLURM", Mark.fine, "partitions: " + "; ".join(done.stdout.strip().splitlines()))


def disk(roots: dict[str, Path]) -> Iterator[Finding]:
    """Room, and the right to write, where runs and data go."""
    for name, root in roots.items():
        there = next(p for p in (root, *root.parents) if p.exists())
        free, variable = shutil.disk_usage(there).free / 1e9, f"MOE_SWEEPS_{name.upper()}"
        text = f"{name} in {root}: {free:.0f} GB free"
        if not _can_write(there):
            yield Finding("disk", Mark.wrong, f"{text}, not writable", f"Set {variable} to a folder of yours.")
        elif free < LOW_DISK_GB:
            yield Finding("disk", Mark.wrong, text, f"Make room, or set {variable} to a larger disk.")
        else:
            yield Finding("disk", Mark.fine, text)


def prepared_data(root: Path) -> Iterator[Finding]:
    """Every prepared folder, complete or not."""
    folders = sorted(p for p in root.glob("*") if p.is_dir() and not p.name.startswith("."))
    if not folders:
        text = f"nothing is prepared in {root}"
        yield Finding("data", Mark.absent, text, "data=corpus prepares itself; others: moe-sweeps data prepare NAME")
    for folder in folders:
        if folder.name.endswith(".partial"):
            fix = "Type the same moe-sweeps data prepare again: it goes on where it stopped. Or delete the folder."
            yield Finding("data", Mark.wrong, f"{folder.name} is not finished", fix)
            continue
        try:
            found = TokenData.open(folder)
        except MoeSweepsError as error:
            yield Finding("data", Mark.wrong, str(error))
        else:
            count = f"{len(found.train):,} + {len(found.val):,} tokens"
            yield Finding("data", Mark.fine, f"{folder.name}: {count}, fingerprint {found.fingerprint[:12]}")


def hub() -> Iterator[Finding]:
    try:
        socket.create_connection(HUB, timeout=SECONDS).close()
    except OSError as error:
        fix = "Only data=fineweb_edu and data.hub need it; docs/data.md says how to do without."
        yield Finding("Hub", Mark.absent, f"{HUB[0]} cannot be reached ({error})", fix)
    else:
        yield Finding("Hub", Mark.fine, f"{HUB[0]} answers")


def trackers() -> Iterator[Finding]:
    """Installed or not, and whether wandb's server answers. Keys are not looked at."""
    for package in TRACKERS:
        version = _version(package)
        if version is None:
            fix = f"To use it: {sys.executable} -m pip install -e '.[{package}]'"
            yield Finding("trackers", Mark.absent, f"{package} is not installed", fix)
        else:
            yield Finding("trackers", Mark.fine, f"{package} {version}")
    yield wandb_server(os.environ.get("WANDB_BASE_URL") or WANDB)


def wandb_server(url: str) -> Finding:
    """Whether something listens where wandb sends to."""
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80}.get(parts.scheme, 443)
        socket.create_connection((parts.hostname or "", port), timeout=SECONDS).close()
    except (OSError, ValueError) as error:
        fix = "tracking=wandb needs it, but for tracking.mode=offline (docs/tracking.md)."
        return Finding("trackers", Mark.absent, f"wandb's server {parts.hostname} cannot be reached ({error})", fix)
    return Finding("trackers", Mark.fine, f"wandb's server {parts.hostname} answers")


def _guarded(subject: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # one broken corner must not hide the others
        return [Finding(subject, Mark.wrong, f"the check itself failed: {type(error).__name__}: {error}")]


def _problem(requirement: Requirement) -> str | None:
    version = _version(requirement.name)
    if version is None:
        return f"{requirement.name} is not installed"
    ok = requirement.specifier.contains(version, prereleases=True)
    return None if ok else f"{requirement.name} is {version}, and {requirement.specifier} is needed"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _can_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK)
