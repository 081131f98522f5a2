"""How the processes of one run find each other, and what the user is told when some of them are missing.

A launcher starts all of them within seconds. Where there is no launcher (variables of an interactive SLURM shell, or
RANK and WORLD_SIZE left over from an earlier run), a process would wait for ever. So it says after seconds who is
missing, and gives up after minutes.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from torch._C._distributed_c10d import Store, TCPStore  # torch.distributed has both, but not for type checkers

from moe_sweeps.errors import MoeSweepsError

FIRST_REPORT_SECONDS = 5.0
GIVE_UP_SECONDS = 300.0
NEXT_REPORT_SECONDS = 60.0
LIMIT_VARIABLE = "MOE_SWEEPS_JOIN_SECONDS"
POLL_SECONDS = 0.05
# The first rank may prepare data while the others, already connected, wait for its next message.
STORE_TIMEOUT = timedelta(hours=24)
CONNECT_TIMEOUT = timedelta(seconds=30)
ALL_HERE = "all-here"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """One process that looks for the others."""

    rank: int
    size: int
    say: Say  # takes what the user should read while this process waits
    environ: Mapping[str, str]
    patience: float  # seconds to wait, unless LIMIT_VARIABLE says otherwise

    def store(self) -> Store:
        """The key-value store that all processes share, once all of them are there.

        Raises:
            MoeSweepsError: some are missing, or their address is unknown or in use.
        """
        host, port = self._address()
        wait = self._patiently()
        try:
            store = self._connect(host, port, wait)
            store.set(_key(self.rank), "here")
            if self.rank == 0:
                everybody = [_key(rank) for rank in range(self.size)]
                self._until(lambda: store.check(everybody), wait, store)
                store.set(ALL_HERE, "yes")
            self._until(lambda: store.check([ALL_HERE]), wait, store)
        except (RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise MoeSweepsError(
                f"rank {self.rank} of {self.size} cannot reach the others at {host}:{port}: {reason}. {self._fix()}"
            ) from error
        store.set_timeout(STORE_TIMEOUT)
        return store

    def _address(self) -> tuple[str, int]:
        try:
            host, port = self.environ["MASTER_ADDR"], int(self.environ["MASTER_PORT"])
            if not 0 < port < 2**16:
                raise ValueError(f"MASTER_PORT={port} is no port: those are 1 to 65535")
            return host, port
        except (KeyError, ValueError) as error:
            raise MoeSweepsError(
                f"this process is rank {self.rank} of {self.size}, and MASTER_ADDR and MASTER_PORT do not say where "
                f"rank 0 is: {error!r}. {self._fix()}"
            ) from error

    def _connect(self, host: str, port: int, wait: Iterator[float]) -> Store:
        """The first process serves the store, unless torchrun does, and the others connect to it."""
        serves = self.rank == 0 and self.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        if serves:
            socket.getaddrinfo(host, port)  # torch retries an unknown host name for minutes
        else:
            self._until(lambda: _is_open(host, port), wait, None)
        return TCPStore(
            host, port, self.size, is_master=serves, timeout=CONNECT_TIMEOUT, wait_for_workers=False, multi_tenant=True
        )

    def _until(self, is_done: Callable[[], bool], wait: Iterator[float], store: Store | None) -> None:
        while not is_done():
            waited = next(wait, None)
            if waited is None:
                raise MoeSweepsError(self._refusal(self._missing(store)))
            if waited:
                self.say(f"{self._who_is_missing(store)} (given up after {self._limit():g} s)")
            time.sleep(POLL_SECONDS)

    def _patiently(self) -> Iterator[float]:
        """At each poll 0, or the seconds waited when a report is due. It ends when it is time to give up."""
        started = time.monotonic()
        limit = self._limit()
        next_report = min(FIRST_REPORT_SECONDS, limit / 2)
        while (waited := time.monotonic() - started) < limit:
            yield waited if waited > next_report else 0.0
            if waited > next_report:
                next_report += NEXT_REPORT_SECONDS

    def _limit(self) -> float:
        text = self.environ.get(LIMIT_VARIABLE, "")
        try:
            seconds = float(text or self.patience)
            if not 0 < seconds < float("inf"):
                raise ValueError
        except ValueError:
            raise MoeSweepsError(f"{LIMIT_VARIABLE}={text}: give a number of seconds above 0, or unset it") from None
        return seconds

    def _missing(self, store: Store | None) -> list[int]:
        if store is None:
            return [0]
        return [rank for rank in range(self.size) if not store.check([_key(rank)])]

    def _who_is_missing(self, store: Store | None) -> str:
        who = f"rank {self.rank} of {self.size} waits"
        if store is None:
            return f"{who}: rank 0, to which the others connect, is not here"
        missing = self._missing(store)
        return f"{who}: {self.size - len(missing)} of {self.size} processes are here, not {_ranks(missing)}"

    def _refusal(self, missing: list[int]) -> str:
        missed = f"{_ranks(missing)} of {self.size} did not come within {self._limit():g} s"
        return f"{missed} ({LIMIT_VARIABLE} allows more). {self._fix()}"

    def _fix(self) -> str:
        """Which variables make this process one of several, and how to start one process or all of them."""
        names = variables(self.environ)
        found = " ".join(f"{name}={self.environ.get(name)}" for name in names)
        start = f"python -m torch.distributed.run --nproc-per-node {self.size} train.py ..."
        start = start if "RANK" in names else f"srun --ntasks {self.size} python train.py ..."
        return (
            f"{found} in the environment says that this is one of {self.size} processes. "
            f"To train in this one alone: unset {' '.join(names)}. To train with {self.size}: {start}"
        )


def variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The variables that make this process one of several. Without them it is alone."""
    several_tasks = environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    return ["RANK", "WORLD_SIZE"] * ("RANK" in environ) + ["SLURM_STEP_NUM_TASKS"] * several_tasks


def _ranks(ranks: list[int]) -> str:
    most = 8
    more = f" and {len(ranks) - most} more" if len(ranks) > most else ""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks[:most]))}{more}"


def _key(rank: int) -> str:
    return f"here-{rank}"


def _is_open(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def rendezvous(
    rank: int, size: int, say: Say, environ: Mapping[str, str] = os.environ, *, patience: float = GIVE_UP_SECONDS
) -> Store:
    """See Rendezvous.store."""
    return Rendezvous(rank, size, say, environ, patience).store()
