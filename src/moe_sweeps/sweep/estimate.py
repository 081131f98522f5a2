"""What a run will cost: from finished runs like it, else from a probe of a few steps, else from arithmetic.

A probe takes seconds, so there is a time limit for all probes; beyond it a run gets a guess, which is called one. A
probe that dies costs no more than its estimate: the run gets a guess, and the plan says why.
"""

from __future__ import annotations

import functools
import json
import math
import socket
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moe_sweeps.config.groups import Precision
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.experiment.identity import canonical_form
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.device_peaks import device_peaks
from moe_sweeps.host.peak import gemm_peak
from moe_sweeps.launch.probe import PROBE_STEPS, Probe, probe
from moe_sweeps.launch.probe_process import ProbeFailed, probe_apart
from moe_sweeps.launch.process import has_server
from moe_sweeps.model.sizes import sizes
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.sweep.fitting import Machine
from moe_sweeps.training.checkpoint_size import checkpoint_bytes

# Share of the GEMM peak that training is assumed to reach while nothing was measured on this machine.
ASSUMED_SHARE_OF_PEAK = 0.2
PROBING_SECONDS = 10.0  # for a whole plan


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """Seconds of one run and bytes of one of its checkpoints, and where the numbers come from."""

    seconds: float
    source: str
    checkpoint_bytes: int
    measured: bool = True  # the seconds; the bytes are exact where no run is finished, too
    problem: str = ""  # why there is no probe, where one was tried


def wall_time(seconds: Iterable[float], workers: int) -> float:
    """Seconds that `workers` need for runs of these lengths: the mean share, or the longest run if that is longer."""
    lengths = list(seconds)
    return max(math.fsum(lengths) / workers, max(lengths, default=0.0))


def cost_key(canonical: Mapping[str, Any]) -> str:
    """Runs with equal keys take the same time for a token. `canonical` is the form that identity.json holds."""
    trainer = canonical.get("trainer", {})
    parts = [canonical.get("model"), canonical.get("experts"), canonical.get("data", {}).get("vocab_size")]
    parts += [trainer.get(k) for k in ("batch_size", "micro_batch_size", "seq_len", "precision")]
    parts += [canonical.get("optimizer", {}).get("kind"), canonical.get("aux", {}).get("scope") == "global"]
    return json.dumps(parts, sort_keys=True)


def tokens_of(run: RunConfig) -> int:
    """Training tokens of the run's own steps: without those of the trunk that it continues from."""
    return (run.last_step - run.first_step) * run.trainer.tokens_per_step


@dataclass(frozen=True, slots=True)
class _Finished:
    seconds_per_token: float
    host: str | None
    checkpoint_bytes: int


class Estimator:
    """Estimates for runs of `threads` threads. Finished runs below `root` come first; `probing` allows probes."""

    def __init__(self, root: Path, threads: int = 1, *, probing: bool = False) -> None:
        self._threads, self._probing = threads, probing
        self._finished: dict[str, list[_Finished]] = {}
        self.update(root)
        self._probes: dict[str, Probe] = {}
        self._problems: dict[str, str] = {}
        self._probed_for = 0.0

    def update(self, root: Path) -> None:
        """Read the finished runs below `root` again."""
        self._finished.clear()
        for folder in RunDir.all(root):
            self._note(folder)

    def estimate(self, run: RunConfig) -> RunEstimate:
        """Cost of all of `run`, with its evaluations where their number is known."""
        key = cost_key(canonical_form(run))
        if key in self._finished:
            return _from_history(self._finished[key], tokens_of(run))
        if key not in self._probes.keys() | self._problems.keys() and self._may_probe(run):
            self._probe(run, key)
        if key in self._probes:
            seconds, source = self._probes[key].seconds_of(run), f"from a probe of {PROBE_STEPS} steps"
            return RunEstimate(seconds, source, checkpoint_bytes(run))
        share = f"{ASSUMED_SHARE_OF_PEAK:.0%} of this machine's matrix-product peak"
        source = f"a guess: {share}; no run of this size is finished"
        seconds, problem = self._guess(run) * (run.last_step - run.first_step), self._problems.get(key, "")
        return RunEstimate(seconds, source, checkpoint_bytes(run), measured=False, problem=problem)

    def _note(self, folder: RunDir) -> None:
        try:
            status, summary = folder.status(), folder.summary()
            if status.state is not State.done or not summary or not summary["tokens"]:
                return
            key = cost_key(folder.identity()["canonical"])
            checkpoint = max((p.stat().st_size for p in folder.checkpoints.glob("*.pt")), default=0)
            rate = summary["wall_seconds"] / summary["tokens"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, MoeSweepsError):
            return  # tables report damaged folders; here one must not stop a plan
        self._finished.setdefault(key, []).append(_Finished(rate, status.host, checkpoint))

    def _may_probe(self, run: RunConfig) -> bool:
        if not self._probing or self._problems or not Machine.here(run.engine.device).holds(run):
            return False  # what ended one probe may end the next, minutes later
        return self._probed_for + self._guess(run) * PROBE_STEPS < PROBING_SECONDS

    def _probe(self, run: RunConfig, key: str) -> None:
        """In a process of its own on a GPU, whose memory the driver would keep, and wherever one is to be had at once.

        On a CPU without a server a new process would import torch for seconds, to give back what the driver may keep.
        """
        started = time.perf_counter()
        measure = probe_apart if has_server() or Machine.here(run.engine.device).has_gpu else probe
        try:
            self._probes[key] = measure(run, self._threads)
        except ProbeFailed as error:
            self._problems[key] = str(error)
        self._probed_for += time.perf_counter() - started

    def _guess(self, run: RunConfig) -> float:
        """Seconds of one step by arithmetic alone."""
        flops = sizes(run, run.data.vocab_size).flops_per_token * run.trainer.tokens_per_step
        return flops / (self._peak_for(run) * ASSUMED_SHARE_OF_PEAK)

    def _peak_for(self, run: RunConfig) -> float:
        """FLOP/s of what trains `run` here. On a GPU that no data sheet is known of, the processor's: measuring it here
        would leave its context in this process.
        """
        here = Machine.here(run.engine.device) if self._probing else None
        sheet = device_peaks(here.gpu_name) if here and here.has_gpu else None
        if sheet is None:
            return _peak(self._threads)
        return sheet.flops(torch.float32 if run.trainer.precision is Precision.float32 else torch.bfloat16)


def _from_history(like: list[_Finished], tokens: int) -> RunEstimate:
    """The median of finished runs of this size, those of this machine alone if there are any."""
    here = [f for f in like if f.host in (None, socket.gethostname())] or like
    where = (
        ""
        if here is not like or (len(here) == len(like) and here[0].host in (None, socket.gethostname()))
        else " elsewhere"
    )
    plural = "" if len(here) == 1 else "s"
    seconds = statistics.median(f.seconds_per_token for f in here) * tokens
    checkpoint = max(f.checkpoint_bytes for f in like)
    return RunEstimate(seconds, f"from {len(here)} finished run{plural} of this size{where}", checkpoint)


@functools.cache
def _peak(threads: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return gemm_peak(repeats=3).flops
    finally:
        torch.set_num_threads(before)
