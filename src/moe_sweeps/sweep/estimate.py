"""What a run will cost: from finished runs like it, else from a probe of a few steps, else from arithmetic.

A probe takes seconds, so there is a limit to what is probed; what is left is a guess, and is called one.
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

from moe_sweeps.config.schema import RunConfig
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.hardware import gemm_peak
from moe_sweeps.identity import canonical_form
from moe_sweeps.model.sizes import sizes
from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.probe import PROBE_STEPS, Probe, probe

# Share of the GEMM peak that training is assumed to reach while nothing on this machine says better.
ASSUMED_SHARE_OF_PEAK = 0.2
PROBING_SECONDS = 10.0  # for a whole plan
# Weights and AdamW's two moments in float32: what a checkpoint holds at the least.
CHECKPOINT_BYTES_PER_PARAM = 12


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of one run and bytes of one of its checkpoints, and where the numbers come from."""

    seconds: float
    source: str
    checkpoint_bytes: int
    measured: bool = True


def wall_time(seconds: Iterable[float], workers: int) -> float:
    """Seconds that `workers` need for runs of these lengths: no less than the mean share, nor than the longest run."""
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
    """Training tokens of the whole run."""
    return run.trainer.steps * run.trainer.tokens_per_step


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
        for folder in RunDir.all(root):
            self._note(folder)
        self._probes: dict[str, Probe] = {}
        self._probed_for = 0.0

    def estimate(self, run: RunConfig) -> Estimate:
        """Seconds that all of `run` takes, evaluations included where they are known."""
        key = cost_key(canonical_form(run))
        if key in self._finished:
            return _from_history(self._finished[key], tokens_of(run))
        if key not in self._probes and self._may_probe(run):
            self._probe(run, key)
        if key in self._probes:
            found = self._probes[key]
            seconds = found.seconds_of(run)
            return Estimate(seconds, f"from a probe of {PROBE_STEPS} steps", found.checkpoint_bytes)
        share = f"{ASSUMED_SHARE_OF_PEAK:.0%} of this machine's matrix-product peak"
        source = f"a guess: {share}; no run of this size is finished"
        size = sizes(run, run.data.vocab_size).params_total
        return Estimate(self._guess(run) * run.trainer.steps, source, size * CHECKPOINT_BYTES_PER_PARAM, measured=False)

    def _note(self, folder: RunDir) -> None:
        try:
            status, summary = folder.status(), folder.summary()
            if status.state is not State.done or not summary or not summary["tokens"]:
                return
            key = cost_key(folder.identity()["canonical"])
            checkpoint = max((p.stat().st_size for p in folder.checkpoints.glob("*.pt")), default=0)
            rate = summary["wall_seconds"] / summary["tokens"]
        except (OSError, ValueError, KeyError, TypeError, MoeSweepsError):
            return  # a damaged folder is the tables' business; it only must not stop a plan
        self._finished.setdefault(key, []).append(_Finished(rate, status.host, checkpoint))

    def _may_probe(self, run: RunConfig) -> bool:
        return self._probing and self._probed_for + self._guess(run) * PROBE_STEPS < PROBING_SECONDS

    def _probe(self, run: RunConfig, key: str) -> None:
        started = time.perf_counter()
        self._probes[key] = probe(run, self._threads)
        self._probed_for += time.perf_counter() - started

    def _guess(self, run: RunConfig) -> float:
        """Seconds of one step by arithmetic alone."""
        flops = sizes(run, run.data.vocab_size).flops_per_token * run.trainer.tokens_per_step
        return flops / (_peak(self._threads) * ASSUMED_SHARE_OF_PEAK)


def _from_history(like: list[_Finished], tokens: int) -> Estimate:
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
    return Estimate(seconds, f"from {len(here)} finished run{plural} of this size{where}", checkpoint)


@functools.cache
def _peak(threads: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return gemm_peak(repeats=3)
    finally:
        torch.set_num_threads(before)
