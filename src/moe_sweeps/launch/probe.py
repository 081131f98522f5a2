"""A probe: how long a step of a run takes here, measured on a few real steps."""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_sweeps.data.batches import window_count
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.data.prepare import folder_name
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.paths import resolve
from moe_sweeps.training.rehearsal import rehearse
from moe_sweeps.training.trainer import Trainer

WARM_UP_STEPS = 2
PROBE_STEPS = 7
# A forward pass without gradient, as a share of a training step over as many tokens.
EVALUATION_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe measured."""

    seconds_per_step: float

    def seconds_of(self, run: RunConfig) -> float:
        """Seconds of the whole run: its steps, and its evaluations if the validation set is prepared."""
        evaluated = _evaluated_tokens(run) / run.trainer.tokens_per_step
        return self.seconds_per_step * (run.last_step - run.first_step + EVALUATION_SHARE * evaluated)


def probe(run: RunConfig, threads: int) -> Probe:
    """Train PROBE_STEPS steps on random tokens, which cost what real ones do; the median of the later ones."""
    stamps: list[float] = []

    def note(trainer: Trainer) -> None:
        stamps.append(time.perf_counter())

    # A run that would end within the probe is made longer, so that there are enough steps and no final evaluation.
    longer = dataclasses.replace(run.trainer, steps=max(run.trainer.steps, PROBE_STEPS + 1))
    # Compiling takes a minute or two, longer than any probe; what it saves is a part of a step.
    run = dataclasses.replace(run, trainer=longer, engine=dataclasses.replace(run.engine, compile=False))
    rehearse(run, random_tokens(run), PROBE_STEPS, threads=threads, saves=False, after_step=note)
    steps = np.diff(stamps)[WARM_UP_STEPS - 1 :]
    return Probe(statistics.median(steps.tolist()))


def random_tokens(run: RunConfig) -> TokenData:
    """Tokens for two batches, in memory."""
    count = 2 * run.trainer.tokens_per_step + 1
    ids = np.random.default_rng(0).integers(0, run.data.vocab_size, count).astype(np.uint32)
    spans = {"domains": [{"name": "random", "start": 0, "end": count}]}
    meta = {"vocab_size": run.data.vocab_size, "fingerprint": "random", "domains": ["random"]}
    return TokenData(Path(), {**meta, "splits": {"train": spans, "val": spans}}, train=ids, val=ids)


def _evaluated_tokens(run: RunConfig) -> int:
    """Validation tokens that the run reads in total; 0 while the data is not prepared."""
    try:
        val = TokenData.open(resolve(run.paths.data) / folder_name(run.data)).val
    except MoeSweepsError:
        return 0
    settings, windows = run.trainer, window_count(val, run.trainer.seq_len)
    during = (settings.steps - 1) // settings.eval_every * min(settings.eval_sequences, windows)
    return settings.seq_len * (during + min(settings.final_eval_sequences or windows, windows))
