"""Router monitoring: the loads and the routing of every layer, in routing.jsonl of the run folder.

Loads and their measures are taken in every step and averaged over the logging interval. Entropies, probabilities,
logits and norms are taken only in the steps that are logged. Everything stays on the device, and the host synchronises
with it only where a line is written. Nothing here changes a result.

Axes: L MoE layers, E experts, T tokens, K picks per token, D domains of the corpus, M load measures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moe_sweeps.balancing import metrics
from moe_sweeps.balancing.load import stack_counts
from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.distributed.ranks import ALONE, Ranks
from moe_sweeps.distributed.sharding import total_norm
from moe_sweeps.model.router import Routing
from moe_sweeps.optim.groups import role_of
from moe_sweeps.records.rundir import MetricsLog, RunDir
from moe_sweeps.training.averages import RunningRange
from moe_sweeps.training.evaluate import Evaluation
from moe_sweeps.training.routing_samples import RoutingSamples
from moe_sweeps.training.stepper import AppliedRates

# Measures of one step's global batch; their means over the logging interval are logged.
LOAD_MEASURES = {
    "maxvio_batch_L": metrics.maxvio_L,
    "cv_L": metrics.cv_L,
    "gini_L": metrics.gini_L,
    "n_eff_L": metrics.effective_experts_L,
    "dead_L": metrics.dead_experts_L,
}
DIGITS = 6  # significant digits of what is logged


class RouterMonitor:
    """Monitors one run. The trainer calls it throughout a step; with `trainer.monitor=false` it does nothing."""

    def __init__(
        self,
        settings: TrainerConfig,
        folder: RunDir,
        model: nn.Module,
        balancer: nn.Module,
        ranks: Ranks = ALONE,
    ) -> None:
        self.settings, self.balancer, self.ranks = settings, balancer, ranks
        self.params_by_role: dict[str, list[nn.Parameter]] = {}
        for name, param in model.named_parameters():
            self.params_by_role.setdefault(role_of(name).value, []).append(param)
        self.log_file = MetricsLog(folder.path / "routing.jsonl", writes=ranks.is_first)
        self.samples = RoutingSamples(folder.path / "routing_samples")
        self.enabled = settings.monitor
        self._sampling = False
        # Of this step, if it will be logged.
        self._grad_norms: dict[str, Tensor] = {}
        self._micro: list[dict[str, Tensor]] = []
        # Summed over this step's micro-batches in this process.
        self._maxvio_micro_L: Tensor | None = None
        self._bias_before_LE = self._bias_LE()
        # Learning rates of the last step; those of single experts since the last line.
        self._lr_by_role: dict[str, float] = {}
        self._expert_lr_LE = RunningRange()
        self._permutation_LE: Tensor | None = None
        self._reset()

    def _reset(self) -> None:
        """Start a logging interval."""
        self._sums: dict[str, Tensor] = {}
        self._counts = {"steps": 0, "micro_batches": 0}

    # --- called by the trainer ------------------------------------------------------------------------------------

    def begin_step(self, step: int) -> None:
        """Step number `step`, counted from 1, starts. It is sampled if it will be logged."""
        last = step == self.settings.steps
        self._sampling = self.enabled and (step % self.settings.log_every == 0 or last)
        self._grad_norms, self._micro = {}, []

    @torch.no_grad()
    def add_micro_batch(self, routings: Sequence[Routing]) -> None:
        """One micro-batch was routed."""
        if not self.enabled or not routings:
            return
        counts_LE = stack_counts(routings)
        maxvio_L = metrics.maxvio_L(counts_LE)
        self._maxvio_micro_L = maxvio_L if self._maxvio_micro_L is None else self._maxvio_micro_L + maxvio_L
        self._counts["micro_batches"] += self.ranks.size
        if self._sampling:
            self._micro.append(_distribution(routings))

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Gradients are complete and not yet clipped."""
        if self._sampling:
            grads = {k: [p.grad for p in params if p.grad is not None] for k, params in self.params_by_role.items()}
            self._grad_norms = {role: total_norm(found) for role, found in grads.items()}

    @torch.no_grad()
    def add_step(self, load_LE: Tensor) -> None:
        """A step is over; `load_LE` are the picks of its global batch, int64 (L, E)."""
        if self.enabled and self._maxvio_micro_L is not None:
            summed = self.ranks.all_reduce({"maxvio_micro_L": self._maxvio_micro_L})
            self._maxvio_micro_L = None
            self._add("maxvio_micro_L", summed["maxvio_micro_L"])
            self._add("load_LE", load_LE)
            self._add("measures_ML", torch.stack([measure(load_LE) for measure in LOAD_MEASURES.values()]))
            self._counts["steps"] += 1

    def add_rates(self, rates: AppliedRates) -> None:
        """The learning rates with which the step's update was made."""
        if self.enabled:
            self._lr_by_role, self._permutation_LE = rates.by_role, rates.permutation_LE
            if rates.expert_lr_LE is not None:
                self._expert_lr_LE.add(rates.expert_lr_LE)

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    # --- lines ----------------------------------------------------------------------------------------------------

    def log(self, step: int) -> dict[str, float]:
        """Write the line of this logging interval. Returns the means over layers by name, for metrics.jsonl."""
        if not self.enabled:
            return {}
        record = self._loads() | self._distributions() | self._bias() | self._norms() | self._learning_rates()
        self._reset()
        self.log_file.append({"step": step, "split": "train"} | record)
        means = {name[:-2]: _mean(values) for name, values in record.items() if name.endswith("_L")}
        means.pop("maxvio_batch", None)  # the trainer logs it itself
        return {name: mean for name, mean in means.items() if mean is not None}

    def _loads(self) -> dict[str, Any]:
        if "load_LE" not in self._sums:
            return {}
        micro_L = self._sums["maxvio_micro_L"] / self._counts["micro_batches"]
        measures_ML = self._sums["measures_ML"] / self._counts["steps"]
        record = {"load_LE": self._sums["load_LE"].tolist(), "maxvio_micro_L": plain(micro_L)}
        return record | dict(zip(LOAD_MEASURES, plain(measures_ML), strict=True))

    def _distributions(self) -> dict[str, Any]:
        """Of the logged step. Its micro-batches are of one size, so the means over them are the step's."""
        if not self._micro:
            return {}
        own = {name: torch.stack([m[name] for m in self._micro]).mean(dim=0) for name in self._micro[0]}
        mean = self.ranks.mean(own)
        found = {
            "token_entropy_L": mean["token_entropy_L"],
            "batch_entropy_L": metrics.batch_entropy_L(mean["prob_LE"]),
            "mutual_information_L": metrics.mutual_information_L(mean["prob_LE"], mean["token_entropy_L"]),
            "mean_prob_max_L": metrics.mean_prob_max_L(mean["prob_LE"]),
            "max_prob_L": mean["max_prob_L"],
            "logit_scale_L": mean["logit_square_L"].sqrt(),
        }
        return {name: plain(value) for name, value in found.items()}

    def _bias(self) -> dict[str, Any]:
        bias_LE, before_LE = self._bias_LE(), self._bias_before_LE
        if bias_LE is None or before_LE is None:
            return {}
        self._bias_before_LE = bias_LE
        range_L = bias_LE.amax(dim=-1) - bias_LE.amin(dim=-1)
        swing_L = (bias_LE - before_LE).abs().mean(dim=-1)
        return {"bias_LE": plain(bias_LE), "bias_range_L": plain(range_L), "bias_swing_L": plain(swing_L)}

    def _bias_LE(self) -> Tensor | None:
        bias_LE = dict(self.balancer.named_buffers()).get("bias_LE")
        return None if bias_LE is None else bias_LE.clone()

    @torch.no_grad()
    def _norms(self) -> dict[str, Any]:
        param_norms = {role: total_norm(params) for role, params in self.params_by_role.items()}
        norms = {"grad_norm": self._grad_norms, "param_norm": param_norms}
        return {name: {role: plain(norm) for role, norm in by_role.items()} for name, by_role in norms.items()}

    def _learning_rates(self) -> dict[str, Any]:
        """By role in the logged step; of single experts over the interval, where they follow the load."""
        record: dict[str, Any] = {"lr": {role: _plain(lr) for role, lr in self._lr_by_role.items()}}
        record |= {f"expert_lr_{k}_LE": plain(v) for k, v in self._expert_lr_LE.read_and_reset().items()}
        return record | self._permutation()

    def _permutation(self) -> dict[str, Any]:
        return {} if self._permutation_LE is None else {"lr_permutation_LE": self._permutation_LE.tolist()}

    # --- evaluation -----------------------------------------------------------------------------------------------

    def log_evaluation(self, step: int, found: Evaluation, sample_LTK: Tensor, domains: Sequence[str]) -> None:
        """Write the line of an evaluation, and store the picks of the sampled tokens, int64 (L, T, K)."""
        assert found.load_LE is not None
        assert found.domain_load_DLE is not None
        record: dict[str, Any] = {"step": step, "split": "val", "load_LE": found.load_LE.tolist()}
        record["maxvio_L"] = plain(metrics.maxvio_L(found.load_LE))
        record["domain_load"] = dict(zip(domains, found.domain_load_DLE.tolist(), strict=True))
        last_LE = self._expert_lr_LE.last()
        record |= {} if last_LE is None else {"expert_lr_LE": plain(last_LE)} | self._permutation()
        self.log_file.append(record)
        self.samples.write(step, sample_LTK)

    def forget_ending(self, step: int) -> None:
        """Delete the final records of `step`, left by an attempt that died before its summary."""
        if self.enabled:
            self.log_file.drop(step, "val")
            self.log_file.drop(None, "saturation")

    def log_saturation(self, step: int) -> None:
        """Write for each evaluation which share of its picks equals that of `step`, the last one."""
        if not self.log_file.writes or step not in self.samples.steps():  # a model without a router has none
            return
        final_LTK = self.samples.read(step)
        for earlier in self.samples.steps():
            saturation_L = metrics.saturation_L(self.samples.read(earlier), final_LTK)
            self.log_file.append({"step": earlier, "split": "saturation", "saturation_L": plain(saturation_L)})

    # --- state ----------------------------------------------------------------------------------------------------

    def truncate_after(self, step: int) -> None:
        """Delete what was written after `step`, where the run resumes."""
        if self.enabled:
            self.log_file.truncate_after(step)
            self.log_file.drop(None, "saturation")
            if self.log_file.writes:
                self.samples.truncate_after(step)

    def state_dict(self) -> dict[str, Any]:
        """The open interval; empty when monitoring is off."""
        if not self.enabled:
            return {}
        rates = {"expert_lr_LE": self._expert_lr_LE.state_dict(), "permutation_LE": self._permutation_LE}
        return {"sums": self._sums, "counts": self._counts, "bias_before_LE": self._bias_before_LE} | rates

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the open interval. An empty state, of an attempt that did not monitor, starts a new one."""
        if state:
            self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
            self._bias_before_LE = state["bias_before_LE"]
            self._expert_lr_LE.load_state_dict(state["expert_lr_LE"])
            self._permutation_LE = state["permutation_LE"]


def plain(values: Tensor) -> Any:
    """A tensor as nested lists of numbers with `DIGITS` digits. NaN and infinity, which JSON lacks, become None."""
    return _plain(values.tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _mean(values: list[float | None]) -> float | None:
    found = [v for v in values if v is not None]
    return float(f"{sum(found) / len(found):.{DIGITS}g}") if len(found) == len(values) else None


def _distribution(routings: Sequence[Routing]) -> dict[str, Tensor]:
    """Means over one micro-batch's tokens."""
    probs_LTE = torch.stack([r.probs_TE for r in routings])
    logits_LTE = torch.stack([r.logits_TE for r in routings])
    return {
        "prob_LE": probs_LTE.mean(dim=-2),
        "token_entropy_L": metrics.token_entropy_L(probs_LTE),
        "max_prob_L": metrics.max_prob_L(probs_LTE),
        "logit_square_L": metrics.logit_scale_L(logits_LTE).square(),
    }
