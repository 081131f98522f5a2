"""Compiles kernels.cpp once for a machine, and finds it again.

The library lies in the user's cache under a name that follows from the sources and the options, so that it is compiled
once, a changed source is compiled anew, and a cluster's compute nodes find what its login node compiled.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from moe_sweeps.errors import MoeSweepsError

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILERS = ("g++", "c++", "clang++")
# One instruction set for all x86 machines, so that what else they could do changes no bit. Another compiler may round
# otherwise, as another build of torch may.
X86 = ("-march=x86-64-v3",)
OPTIONS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-fvisibility=hidden")
THREADS = "-fopenmp"  # left out where a compiler lacks it: the kernels then run on one thread
COMPILE_SECONDS = 120


class KernelsUnavailable(MoeSweepsError):
    """The kernels cannot be had on this machine; the message says why."""


def library() -> Path:
    """The compiled library, which is compiled now unless it was before.

    Raises:
        KernelsUnavailable: the processor is too old, there is no compiler, or it fails.
    """
    obstacle = processor_obstacle()
    if obstacle:
        raise KernelsUnavailable(obstacle)
    name = f"kernels-{_digest()}.so"
    try:
        return _found_or_compiled(cache_folder() / name)
    except (OSError, RuntimeError):  # a home that cannot be read or written, or none
        return _found_or_compiled(_temporary_folder() / name)


def cache_folder() -> Path:
    """Where compiled libraries are kept.

    Raises:
        RuntimeError: the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moe_sweeps"


def _found_or_compiled(path: Path) -> Path:
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    return _compile(path)


def _temporary_folder() -> Path:
    """One for all workers of this user, unless somebody else could put a library there."""
    folder = Path(tempfile.gettempdir()) / f"moe_sweeps-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if private else Path(tempfile.mkdtemp(prefix="moe_sweeps-"))


def processor_obstacle() -> str | None:
    """Why this processor cannot run them, or None."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    try:
        flags = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return None
    return None if {"avx2", "fma"} <= set(flags.split()) else "the processor has no AVX2"


def compiler() -> str | None:
    """The C++ compiler: $CXX, or the first of the usual ones; None without any."""
    wanted = (os.environ.get("CXX"), *COMPILERS)
    return next((found for name in wanted if name and (found := shutil.which(name))), None)


def options() -> tuple[str, ...]:
    """What the compiler is told on this kind of machine."""
    return (*OPTIONS, *(X86 if platform.machine() in ("x86_64", "AMD64") else ()))


def _digest() -> str:
    told = " ".join((platform.system(), platform.machine(), *options()))
    return hashlib.sha256(told.encode() + SOURCE.read_bytes()).hexdigest()[:16]


def _compile(path: Path) -> Path:
    """Compile to `path`, which appears complete or not at all."""
    command = compiler()
    if command is None:
        raise KernelsUnavailable("there is no C++ compiler (g++ or clang++)")
    started = time.perf_counter()
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        problem = _run([command, *options(), THREADS, str(SOURCE), "-o", str(draft)])
        if problem is not None and _run([command, *options(), str(SOURCE), "-o", str(draft)]) is not None:
            raise KernelsUnavailable(f"{command} cannot compile them: {problem}")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    log.info("compiled the CPU kernels in %.1f s: %s", time.perf_counter() - started, path)
    return path


def _run(command: list[str]) -> str | None:
    """The last line of what the compiler complained of, or None where it succeeded."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
