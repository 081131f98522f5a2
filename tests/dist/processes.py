"""Run a function in several processes that are the ranks of one run, over gloo on the CPU.

    def total(ranks: Ranks, start: int) -> int:  # at the top level of any test file
        return int(ranks.all_reduce({"n": torch.tensor(start + ranks.rank)})["n"])

    assert run_on_ranks(total, 2, 10) == [21, 21]

Each process has joined its fellows when the function begins, computes with one thread, and returns anything that
pickle knows; the results come in order of rank. When a process raises, the others are ended and `RankError` has its
rank and traceback. `expect_failures=True` waits for all and returns the tracebacks in place of results.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from moe_sweeps.distributed.ranks import Ranks

TIMEOUT = 240.0  # against a hang; a busy machine takes a minute
# What data parallelism and sharding import takes seconds: the server that forks the processes has it.
PRELOAD = [
    "moe_sweeps.training.worker",
    "moe_sweeps.experiment.compose",
    "moe_sweeps.experiment.freeze",
    "torch._dynamo",
    "torch.distributed.fsdp",
]


class RankError(AssertionError):
    """A process raised, or ended without a word."""


def run_on_ranks(
    function: Callable[..., Any], size: int, *args: Any, expect_failures: bool = False, timeout: float = TIMEOUT
) -> list[Any]:
    """[function(ranks, *args) of rank 0, of rank 1, ...]."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    work = pickle.dumps((function.__code__.co_filename, function.__qualname__, args))
    port, processes, pipes = free_port(), [], []
    for rank in range(size):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_body, args=(rank, size, port, work, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
    try:
        return _collect(pipes, expect_failures, timeout)
    finally:
        for process in processes:
            process.kill()
            process.join()


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun would set."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    return {name: str(n) for name, n in place.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _collect(pipes: list[Connection], expect_failures: bool, timeout: float) -> list[Any]:
    results: dict[int, Any] = {}
    deadline = time.monotonic() + timeout
    while len(results) < len(pipes):
        waiting = {pipe: rank for rank, pipe in enumerate(pipes) if rank not in results}
        ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            raise RankError(f"ranks {sorted(waiting.values())} did not end within {timeout} s")
        failures = []
        for pipe in ready:
            assert isinstance(pipe, Connection)
            rank = waiting[pipe]
            try:
                failed, results[rank] = pickle.loads(pipe.recv_bytes())
            except EOFError:
                failed, results[rank] = True, "the process ended without a word"
            failures += [rank] if failed else []
        if failures and not expect_failures:
            # One that only lost its peer says less than the peer.
            first = min(failures, key=lambda rank: bool(re.search(r"by peer|Broken pipe|gloo", results[rank])))
            raise RankError(f"rank {first}: {results[first]}")
    return [results[rank] for rank in range(len(pipes))]


def _body(rank: int, size: int, port: int, work: bytes, pipe: Connection) -> None:
    os.environ |= environment(rank, size, port)
    torch.set_num_threads(1)
    try:
        file, name, args = pickle.loads(work)
        with Ranks.from_environment().joined() as ranks:
            result = _function(Path(file), name)(ranks, *args)
        pipe.send_bytes(pickle.dumps((False, result)))
    except BaseException:
        pipe.send_bytes(pickle.dumps((True, traceback.format_exc())))
        raise


def _function(file: Path, name: str) -> Callable[..., Any]:
    """By file, because pytest gives test modules names that no other process can import."""
    spec = importlib.util.spec_from_file_location(f"{file.stem}_on_a_rank", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found: Callable[..., Any] = getattr(module, name)
    return found
