"""The journal of a run in training: metrics.jsonl, the monitor's lines, evaluations, and the last good numbers.

Whoever follows the run (a progress bar, the status file) hears of it from here. A number that is not finite ends the
run as diverged: of several processes all at once, because they have the same numbers. The first alone writes.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from torch import Tensor

from moe_sweeps.distributed import ALONE, Ranks
from moe_sweeps.errors import Diverged
from moe_sweeps.evaluate import Evaluation, Validation
from moe_sweeps.meters import Mean, Means
from moe_sweeps.model.precision import Compute
from moe_sweeps.monitor import RouterMonitor
from moe_sweeps.rundir import MetricsLog, RunDir

# `train_maxvio_batch` is the mean over this last share of the steps.
TAIL_SHARE = 0.1


class Observer(Protocol):
    """Who follows a run: a progress bar, the status file. It is told at logging intervals only."""

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None: ...
    def alive(self, step: int) -> None: ...


class Journal:
    """Keeps the books of one run."""

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
        self.interval = Means(compute.device)
        self.tail_maxvio = Mean(compute.device)
        self.last_good: dict[str, float] = {}

    def add_step(self, step: int, steps: int, values: dict[str, Tensor]) -> None:
        """Step number `step` of `steps` is over. Waits for nothing."""
        self.interval.add(values)
        if "maxvio_batch" in values and step > steps * (1 - TAIL_SHARE):
            self.tail_maxvio.add(values["maxvio_batch"])
        self.observer.alive(step)

    def log_interval(self, step: int, tokens_per_second: float, seconds: dict[str, float], collapsed: bool) -> None:
        """Write the means over the steps since the last call; `seconds` are those of a step's parts."""
        values = self.interval.read_and_reset()
        if not all(math.isfinite(v) for v in values.values()):
            raise Diverged(f"a mean over the steps up to {step} is NaN or infinite")
        routing = self.monitor.log(step) | {"tokens_per_second": round(tokens_per_second, 1)} | seconds
        self.metrics.append({"step": step, "split": "train"} | values | routing)
        self.last_good = {f"train_{k}": v for k, v in values.items()} | self._last_validation()
        self.observer.logged(step, values | {"collapsed": float(collapsed)}, tokens_per_second)

    def _last_validation(self) -> dict[str, float]:
        return {k: v for k, v in self.last_good.items() if k.startswith("val_")}

    def log_evaluation(self, step: int, max_sequences: int | None, train_seconds: float) -> dict[str, float]:
        """Evaluate on `max_sequences` windows (None: all), write what was found, and return it.

        `train_seconds`: what the training steps up to here took.
        """
        result = self._evaluate(step, max_sequences)
        self._write_evaluation(step, result, train_seconds)
        self.last_good |= {f"val_{k}": v for k, v in result.metrics().items()}
        return result.metrics()

    def ensure_evaluation(self, step: int, max_sequences: int | None, train_seconds: float) -> None:
        """Evaluate now unless the log has an evaluation of `step`. All processes follow what the first one finds."""
        seen = self.ranks.is_first and any(r["split"] == "val" and r["step"] == step for r in self.metrics.records())
        if not self.ranks.any(seen):
            self.log_evaluation(step, max_sequences, train_seconds)

    def log_final_evaluation(self, step: int, max_sequences: int | None, train_seconds: float) -> dict[str, float]:
        """The same at the end, in place of what an attempt wrote that died between here and its summary."""
        result = self._evaluate(step, max_sequences)
        self.metrics.drop(step, "val")
        self.monitor.forget_ending(step)
        self._write_evaluation(step, result, train_seconds)
        self.monitor.log_saturation(step)
        return result.metrics()

    def _evaluate(self, step: int, max_sequences: int | None) -> Evaluation:
        result = self.validation.evaluate(max_sequences, alive=lambda: self.observer.alive(step))
        if not math.isfinite(result.loss):
            raise Diverged(f"the validation loss after step {step} is NaN or infinite")
        return result

    def _write_evaluation(self, step: int, result: Evaluation, train_seconds: float) -> None:
        record = {"step": step, "split": "val", "tokens": result.tokens, "train_seconds": round(train_seconds, 3)}
        self.metrics.append(record | result.metrics())
        if self.monitor.enabled and result.load_LE is not None:
            sample_LTK = self.validation.sample_LTK()  # by all processes: they may share the model
            if self.ranks.is_first:
                self.monitor.log_evaluation(step, result, sample_LTK, self.validation.data.domains)

    def truncate_after(self, step: int) -> None:
        """Forget what was written after `step`, from which the run goes on."""
        self.metrics.truncate_after(step)
        self.monitor.truncate_after(step)

    def sync(self) -> None:
        """Wait until what was written is on disk."""
        self.metrics.sync()
        self.monitor.log_file.sync()

    def state_dict(self) -> dict[str, Any]:
        """The open interval; its names stand beside those of the rest of a checkpoint."""
        return {
            "interval": self.interval.state_dict(),
            "tail_maxvio": self.tail_maxvio.state_dict(),
            "monitor": self.monitor.state_dict(),
            "last_good": self.last_good,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.interval.load_state_dict(state["interval"])
        self.tail_maxvio.load_state_dict(state["tail_maxvio"])
        self.monitor.load_state_dict(state["monitor"])
        self.last_good = state["last_good"]
