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
import subprocess
import time
import uuid
from pathlib import Path

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.kernels.arithmetic import Arithmetic
from moe_sweeps.kernels.cache import folders, keep, problem_with

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILERS = ("g++", "c++", "clang++")
# Another compiler may round otherwise, as another build of torch may.
OPTIONS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-fvisibility=hidden")
THREADS = "-fopenmp"  # left out where a compiler lacks it: the kernels then run on one thread
COMPILE_SECONDS = 120


class KernelsUnavailable(MoeSweepsError):
    """The kernels cannot be had on this machine; the message says why."""


def library(arithmetic: Arithmetic) -> Path:
    """The library compiled for `arithmetic`, which is compiled now unless it was before.

    Raises:
        KernelsUnavailable: the processor is too old, there is no compiler, or it fails.
    """
    obstacle = arithmetic.obstacle()
    if obstacle:
        raise KernelsUnavailable(obstacle)
    for folder in folders():
        try:
            return _found_or_compiled(folder / library_name(arithmetic), arithmetic)
        except OSError as error:  # full, or read-only
            log.debug("no kernels in %s: %s", folder, error)
    raise KernelsUnavailable("no folder can be written to, neither the user's cache nor a temporary one")


def library_name(arithmetic: Arithmetic) -> str:
    """Follows from the sources, the options and the kind of machine."""
    return f"kernels-{arithmetic}-{_digest(arithmetic)}.so"


def sources() -> list[Path]:
    """The files that are compiled: one, and those that it includes."""
    return [SOURCE, *sorted(SOURCE.parent.glob("*.h"))]


def _found_or_compiled(path: Path, arithmetic: Arithmetic) -> Path:
    try:
        problem = problem_with(path)
        if problem is None:
            return path
        log.warning("%s; it is compiled again", problem)
    except FileNotFoundError:
        pass
    return _compile(path, arithmetic)


def compiler() -> str | None:
    """The C++ compiler: $CXX, or the first of the usual ones; None without any."""
    wanted = (os.environ.get("CXX"), *COMPILERS)
    return next((found for name in wanted if name and (found := shutil.which(name))), None)


def options(arithmetic: Arithmetic) -> tuple[str, ...]:
    """What the compiler is told."""
    return (*OPTIONS, *arithmetic.target.options, f"-DWIDTH={arithmetic.target.width}")


def _digest(arithmetic: Arithmetic) -> str:
    told = " ".join((platform.system(), platform.machine(), *options(arithmetic)))
    texts = (f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes() for path in sources())
    return hashlib.sha256(told.encode() + b"".join(texts)).hexdigest()[:16]


def _compile(path: Path, arithmetic: Arithmetic) -> Path:
    """Compile to `path`, which appears complete or not at all."""
    command = compiler()
    if command is None:
        raise KernelsUnavailable("there is no C++ compiler (g++ or clang++)")
    started = time.perf_counter()
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    told = [command, *options(arithmetic), str(SOURCE), "-o", str(draft)]
    try:
        problem = _run([*told, THREADS])
        if problem is not None and _run(told) is not None:
            raise KernelsUnavailable(f"{command} cannot compile them: {problem}")
        if path.is_dir() and not path.is_symlink():
            raise KernelsUnavailable(f"{path} is a folder, in the place of a library. Remove it.")
        keep(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    log.info("compiled the CPU kernels (%s) in %.1f s: %s", arithmetic, time.perf_counter() - started, path)
    return path


def _run(command: list[str]) -> str | None:
    """The last line of what the compiler complained of, or None where it succeeded."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
