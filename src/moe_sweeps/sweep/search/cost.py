"""What a search costs: at most, if every trial is trained to its end; and as expected, if each rung promotes its
share."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from moe_sweeps.errors import ConfigError
from moe_sweeps.launch.follow import duration
from moe_sweeps.model.sizes import Sizes, sizes
from moe_sweeps.sweep.budget import OverBudget, parse_duration
from moe_sweeps.sweep.cost import size_text
from moe_sweeps.sweep.estimate import Estimator, RunEstimate, tokens_of
from moe_sweeps.sweep.search.plan import SearchPlan


@dataclass(frozen=True, slots=True)
class SearchCost:
    """The cost by the most expensive run of the space, so that the bounds hold. `trained`: steps trained already."""

    plan: SearchPlan
    size: Sizes
    estimate: RunEstimate
    flops_of_run: int
    workers: int
    free_disk: int
    trained: int = 0

    def seconds(self, steps: int) -> float:
        """Seconds for what is left of `steps` training steps in total; at least those of one run."""
        on_one_worker = self.estimate.seconds * max(0, steps - self.trained) / self.plan.steps
        return max(on_one_worker / self.workers, min(self.estimate.seconds, on_one_worker))

    @property
    def disk(self) -> int:
        """Bytes of all checkpoints, also of pruned runs, which may be promoted when the search is extended."""
        runs = self.plan.most_trained * len(self.plan.space.seeds)
        return runs * self.estimate.checkpoint_bytes * self.plan.base.trainer.keep_checkpoints

    def require_disk(self) -> None:
        """Refuse a search whose checkpoints do not fit.

        Raises:
            ConfigError: naming what is needed and what is free.
        """
        if self.disk > self.free_disk:
            rule = f"checkpoints would take {size_text(self.disk)}, and {size_text(self.free_disk)} are free"
            fix = "Keep fewer (trainer.keep_checkpoints=1), free some space, or use fewer trials (search.trials)."
            raise ConfigError("paths.runs", self.plan.base.paths.runs, rule, fix)

    def require_budget(self, budget: str) -> None:
        """Refuse a search that can take longer than `budget`.

        Raises:
            OverBudget: it can; the message says how many trials would fit.
        """
        limit, most = parse_duration(budget), self.seconds(self.plan.most_steps)
        if most <= limit:
            return
        trials = self._most_that_fit(limit)
        fits = f"search.trials={trials}" if trials else "nothing smaller of this kind"
        raise OverBudget(
            f"--budget {budget} is refused: the search can take {duration(most)} with {self.workers} workers\n"
            f"  would fit: {fits}"
        )

    def _most_that_fit(self, limit: float) -> int:
        """The most trials, fewer than there are, that take no longer than `limit` seconds; 0 if even one does."""
        steps = len(self.plan.space.seeds) * self.plan.steps
        fewer = range(self.plan.most_trained - 1, 0, -1)
        return next((count for count in fewer if self.seconds(count * steps) <= limit), 0)


def search_cost(plan: SearchPlan, estimator: Estimator, workers: int, trained: int = 0) -> SearchCost:
    """The cost of a search, as if every run cost as much as the most expensive corner of the space."""
    estimates = {id(run): estimator.estimate(run) for _, run in plan.corners}
    costliest = max((run for _, run in plan.corners), key=lambda run: estimates[id(run)].seconds)
    size = sizes(costliest, costliest.data.vocab_size)
    existing = next(p for p in (plan.runs_root, *plan.runs_root.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    flops = size.flops_per_token * tokens_of(costliest)
    return SearchCost(plan, size, estimates[id(costliest)], flops, workers, free, trained)
