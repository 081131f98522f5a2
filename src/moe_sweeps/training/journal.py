"""What a run in training writes down: metrics.jsonl, the monitor's lines, evaluations, and the last good numbers.

Observers of the run (a progress bar, the status file) are told here. A number that is not finite ends the run as
diverged, in all processes at once because they have the same numbers. The first process alone writes.
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor

from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.errors import Diverged
from moe_sweeps.model.precision import Compute
from moe_sweeps.records.rundir import MetricsLog, RunDir
from moe_sweeps.training.averages import RunningMean, RunningMeans
from moe_sweeps.training.evaluate import Evaluation, Validation
from moe_sweeps.training.monitor import RouterMonitor
from moe_sweeps.training.state import Stateful

# `train_maxvio_batch` is the mean over this last share of the steps.
TAIL_SHARE = 0.1


class Observer(Protocol):
    """Follows a run in training: a progress bar, the status file."""

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        """A logging interval ended after `step` updates; `values` are its means."""

    def alive(self, step: int) -> None:
        """`step` updates are done. Called after every one."""


class LastGood:
    """The last numbers that were finite, by their names: what is left of a run that diverges later."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def logged(self, means: dict[str, float]) -> None:
        """Replace the numbers of training and keep those of the last evaluation."""
        evaluated = {name: value for name, value in self.values.items() if name.startswith("val_")}
        self.values = {f"train_{name}": value for name, value in means.items()} | evaluated

    def evaluated(self, found: dict[str, float]) -> None:
        """Replace the numbers of the last evaluation."""
        self.values |= {f"val_{name}": value for name, value in found.items()}

    def state_dict(self) -> dict[str, float]:
        return self.values

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.values = state


class Journal:
    """Writes the logs of one run, and keeps what they need between two lines."""

    def __init__(
        self,
        folder: RunDir,
        validation: Validation,
        monitor: RouterMonitor,
        observer: Observer,
        compute: Compute,
        ranks: Ranks = ALONE,
    ) -> None:
        self.validation, self.monitor, self.observer, self.ranks = validation, monitor, observer, ranks
        self.metrics = MetricsLog(folder.path / "metrics.jsonl", writes=ranks.is_first)
        self.interval = RunningMeans(compute.device)
        self.tail_maxvio = RunningMean(compute.device)
        self.last_good = LastGood()

    def parts(self) -> dict[str, Stateful]:
        """The parts of a checkpoint that belong to the logs, by name."""
        return {
            "interval": self.interval,
            "tail_maxvio": self.tail_maxvio,
            "monitor": self.monitor,
            "last_good": self.last_good,
        }

    def add_step(self, step: int, steps: int, values: dict[str, Tensor]) -> None:
        """Step number `step` of `steps` is over. Does not synchronise with the device."""
        self.interval.add(values)
        if "maxvio_batch" in values and step > steps * (1 - TAIL_SHARE):
            self.tail_maxvio.add(values["maxvio_batch"])
        self.observer.alive(step)

    def log_interval(self, step: int, tokens_per_second: float, seconds: dict[str, float], collapsed: bool) -> None:
        """Write the means over the steps since the last call. `seconds`: what the parts of a step took.

        Raises:
            Diverged: a mean is NaN or infinite.
        """
        values = self.interval.read_and_reset()
        if not all(math.isfinite(v) for v in values.values()):
            raise Diverged(f"a mean over the steps up to {step} is NaN or infinite")
        routing = self.monitor.log(step) | {"tokens_per_second": round(tokens_per_second, 1)} | seconds
        self.metrics.append({"step": step, "split": "train"} | values | routing)
        self.last_good.logged(values)
        self.observer.logged(step, values | {"collapsed": float(collapsed)}, tokens_per_second)

    def log_evaluation(self, step: int, max_sequences: int | None, train_seconds: float) -> dict[str, float]:
        """Evaluate on `max_sequences` windows (None: all), write the results, and return them by name.

        `train_seconds`: the time of all training steps up to here.

        Raises:
            Diverged: the validation loss is NaN or infinite.
        """
        result = self._evaluate(step, max_sequences)
        self._write_evaluation(step, result, train_seconds)
        self.last_good.evaluated(result.metrics())
        return result.metrics()

    def ensure_evaluation(self, step: int, max_sequences: int | None, train_seconds: float) -> None:
        """Evaluate now unless the log has an evaluation of `step`. The first process decides for all."""
        seen = self.ranks.is_first and any(r["split"] == "val" and r["step"] == step for r in self.metrics.records())
        if not self.ranks.any(seen):
            self.log_evaluation(step, max_sequences, train_seconds)

    def log_final_evaluation(self, step: int, max_sequences: int | None, train_seconds: float) -> dict[str, float]:
        """The same at the end of the run. It replaces what an attempt wrote that died before its summary."""
        result = self._evaluate(step, max_sequences)
        self.metrics.drop(step, "val")
        self.monitor.forget_ending(step)
        self._write_evaluation(step, result, train_seconds)
        self.monitor.log_saturation(step)
        return result.metrics()

    def _evaluate(self, step: int, max_sequences: int | None) -> Evaluation:
        result = self.validation.evaluate(max_sequences)
        if not math.isfinite(result.loss):
            raise Diverged(f"the validation loss after step {step} is NaN or infinite")
        return result

    def _write_evaluation(self, step: int, result: Evaluation, train_seconds: float) -> None:
        record = {"step": step, "split": "val", "tokens": result.tokens, "train_seconds": round(train_seconds, 3)}
        self.metrics.append(record | result.metrics())
        if self.monitor.enabled and result.load_LE is not None:
            sample_LTK = self.validation.sample_LTK()  # in all processes: the model may be sharded
            if self.ranks.is_first:
                self.monitor.log_evaluation(step, result, sample_LTK, self.validation.data.domains)

    def truncate_after(self, step: int) -> None:
        """Delete what was written after `step`, where the run resumes."""
        self.metrics.truncate_after(step)
        self.monitor.truncate_after(step)

    def sync(self) -> None:
        """Wait until the logs are on disk."""
        self.metrics.sync()
        self.monitor.log_file.sync()
