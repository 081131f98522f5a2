"""`moe-sweeps doctor`: is this machine ready, and if not, what to do? It changes nothing and takes a few seconds."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from rich.console import Console

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.host.files import owner
from moe_sweeps.host.locks import locked
from moe_sweeps.host.shell import pip_command
from moe_sweeps.paths import GIVEN, INSTALL_AGAIN, INSTALLED, PACKAGE, REPOSITORY, missing_folders

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
    """Run all checks. A check that raises is reported as a finding."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("Python", python),
        ("packages", packages),
        ("install", lambda: install(Path.cwd())),
        ("devices", devices),
        ("kernels", kernels),
        ("SLURM", slurm),
        ("disk", lambda: disk({"runs": runs, "data": data})),
        ("data", lambda: prepared_data(data)),
        ("Hub", hub),
        ("trackers", trackers),
        ("components", components),
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
    problems = "1 problem" if wrong == 1 else f"{wrong or 'no'} problems"
    console.print(f"{problems} to fix" if wrong else problems, highlight=False)
    return 1 if wrong else 0


def python() -> Iterator[Finding]:
    """The version of Python, against what the project needs."""
    needed = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    least = tuple(int(n) for n in re.findall(r"\d+", needed)[:2])
    found = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info[:2] < least:
        yield Finding("Python", Mark.wrong, found, f"Python {needed} is needed. Create a new environment with it.")
    else:
        yield Finding("Python", Mark.fine, found)


def packages() -> Iterator[Finding]:
    """The installed packages, against every requirement of the project."""
    requirements = [Requirement(r) for r in importlib.metadata.requires(DISTRIBUTION) or []]
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    problems = [p for p in map(_problem, needed) if p]
    torch = importlib.metadata.version("torch")
    if problems:
        yield Finding("packages", Mark.wrong, "; ".join(problems), f"In a clone, run: {pip_command('-e', '.')}")
    else:
        yield Finding("packages", Mark.fine, f"torch {torch}, and all {len(needed)} requirements are met")


def install(here: Path) -> Iterator[Finding]:
    """Where this package is, whether it has the folders that commands read, and where relative paths start."""
    if missing := missing_folders():
        names = ", ".join(f"{name}/" for name in missing)
        yield Finding("install", Mark.wrong, f"{GIVEN} lacks {names}: no command can work", INSTALL_AGAIN)
    elif not INSTALLED:
        yield Finding("install", Mark.fine, f"a clone, {REPOSITORY}: runs/, data/ and reports/ lie there")
    else:
        where = f"{PACKAGE}, with conf/, sweeps/ and tables/; runs/, data/ and reports/ lie in the working directory"
        yield Finding("install", Mark.fine, where)
        if (here / "src" / DISTRIBUTION / "paths.py").is_file():
            text = f"{here} is a clone, and moe-sweeps runs the code and the options of {PACKAGE}"
            yield Finding("install", Mark.absent, text, f"To work on the clone: {pip_command('-e', '.')}")


def devices() -> Iterator[Finding]:
    """Cores and GPUs, and a driver whose GPUs torch does not see."""
    import torch

    from moe_sweeps.host.hardware import available_cores

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
    """Whether training on CPU can use compiled kernels, and whether those already compiled are intact."""
    from moe_sweeps.kernels import build  # brings torch
    from moe_sweeps.kernels.arithmetic import preferred

    obstacle, command = preferred().obstacle(), build.compiler()
    if obstacle:
        yield Finding("kernels", Mark.absent, f"{obstacle}: training on CPU uses torch's operations alone")
        return
    problem = _problem_with_kernels()
    if problem:
        yield Finding("kernels", Mark.wrong, problem.text, problem.fix)
    if command:
        yield Finding("kernels", Mark.fine, f"{command} compiles them for training on CPU ({preferred()})")
    else:
        fix = "For faster training on CPU: install g++ or clang++, or set CXX to a compiler."
        yield Finding("kernels", Mark.absent, "there is no C++ compiler: runs use torch's operations alone", fix)


class _Problem(NamedTuple):
    text: str
    fix: str


def _problem_with_kernels() -> _Problem | None:
    from moe_sweeps.kernels import build, cache
    from moe_sweeps.kernels.arithmetic import preferred

    try:
        folder = cache.cache_folder()
        wrong_place = cache.problem_with_folder(folder)
        if wrong_place:
            return _Problem(
                wrong_place, "Correct its owner and mode; until then runs compile kernels in folders of their own."
            )
        damaged = cache.problem_with(folder / build.library_name(preferred()))
        return (
            _Problem(damaged, "Nothing to do: the next run compiles it again, if there is a compiler.")
            if damaged
            else None
        )
    except FileNotFoundError:
        return None  # nothing was compiled yet
    except (OSError, RuntimeError) as error:
        return _Problem(f"the user's cache cannot be used: {error}", "Set XDG_CACHE_HOME to a folder of your own.")


def slurm() -> Iterator[Finding]:
    """Whether jobs can be submitted from here: sbatch exists, and the controller answers."""
    if not shutil.which("sbatch"):
        yield Finding("SLURM", Mark.absent, "no sbatch here: sweeps run on this machine")
        return
    try:
        done = subprocess.run(["sinfo", "-h", "-o", "%P %a %D"], capture_output=True, text=True, timeout=SECONDS * 3)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(
            "SLURM", Mark.wrong, f"sbatch is here, but sinfo fails: {error}", "Ask the administrators of the cluster."
        )
        return
    if done.returncode:
        text = f"sbatch is here, but sinfo fails: {' '.join(done.stderr.split())[:120]}"
        yield Finding(
            "SLURM", Mark.wrong, text, "SLURM's controller does not answer. Ask the administrators of the cluster."
        )
    else:
        yield Finding("SLURM", Mark.fine, "partitions: " + "; ".join(done.stdout.strip().splitlines()))


def disk(roots: dict[str, Path]) -> Iterator[Finding]:
    """Free space and the right to write, where runs and data go."""
    for name, root in roots.items():
        there = next(p for p in (root, *root.parents) if p.exists())
        free, variable = shutil.disk_usage(there).free / 1e9, f"MOE_SWEEPS_{name.upper()}"
        text = f"{name} in {root}: {free:.0f} GB free"
        problem = _cannot_make_and_lock(there)
        if problem:
            yield Finding("disk", Mark.wrong, f"{text}; {problem}", f"Set {variable} to a folder that you can write.")
        elif free < LOW_DISK_GB:
            yield Finding("disk", Mark.wrong, text, f"Free some space, or set {variable} to a folder on a larger disk.")
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
            fix = "Run the same moe-sweeps data prepare again to resume it, or delete the folder."
            yield Finding("data", Mark.wrong, f"the preparation of {folder.name} was not finished", fix)
            continue
        try:
            found = TokenData.open(folder)
        except MoeSweepsError as error:
            yield Finding("data", Mark.wrong, str(error))
        else:
            count = f"{len(found.train):,} + {len(found.val):,} tokens"
            yield Finding("data", Mark.fine, f"{folder.name}: {count}, fingerprint {found.fingerprint[:12]}")


def hub() -> Iterator[Finding]:
    """Whether the Hugging Face Hub can be reached."""
    try:
        socket.create_connection(HUB, timeout=SECONDS).close()
    except OSError as error:
        fix = "Only data=fineweb_edu and data.hub need it; docs/data.md says how to work offline."
        yield Finding("Hub", Mark.absent, f"{HUB[0]} cannot be reached ({error})", fix)
    else:
        yield Finding("Hub", Mark.fine, f"{HUB[0]} answers")


def trackers() -> Iterator[Finding]:
    """Which trackers are installed, and whether wandb's server answers. API keys are not checked."""
    for package in TRACKERS:
        version = _version(package)
        if version is None:
            fix = f"To use it: {pip_command('-e', f'.[{package}]')}"
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
        fix = "tracking=wandb needs it, unless tracking.mode=offline (docs/tracking.md)."
        return Finding("trackers", Mark.absent, f"wandb's server {parts.hostname} cannot be reached ({error})", fix)
    return Finding("trackers", Mark.fine, f"wandb's server {parts.hostname} answers")


def components() -> Iterator[Finding]:
    """Components of packages outside the repository; nothing where there are none."""
    import moe_sweeps.experiment.schema  # noqa: F401  (loads them)
    from moe_sweeps.config.outside import outside

    for found in outside():
        names = ", ".join(f"{group}={name}" for group, name in sorted(found.options))
        fix = "Repair or uninstall it; runs that do not use it are not affected." if found.problem else ""
        text = f"{found}: {found.problem or names or 'no option'}"
        yield Finding("components", Mark.wrong if found.problem else Mark.fine, text, fix)


def _guarded(subject: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # a check that fails must not hide the others
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


def _cannot_make_and_lock(folder: Path) -> str | None:
    """Create a file in `folder`, lock it and remove it, as every run does. Permissions alone do not tell whether it
    works.

    Returns what is wrong, or None.
    """
    trial = folder / f".doctor.{uuid.uuid4().hex[:8]}.lock"
    try:
        with locked(trial):
            return None
    except (OSError, MoeSweepsError) as error:
        return f"no file can be created and locked in it (owner: {owner(folder)}): {error}"
    finally:
        with suppress(OSError):
            trial.unlink()
