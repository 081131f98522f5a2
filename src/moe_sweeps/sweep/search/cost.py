"""What a search can cost: at most every trial to its end; about so much if each rung passes on its share."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from moe_sweeps.errors import ConfigError
from moe_sweeps.model.sizes import Sizes, sizes
from moe_sweeps.sweep.budget import OverBudget, parse_duration
from moe_sweeps.sweep.cost import size_text
from moe_sweeps.sweep.estimate import Estimate, Estimator, tokens_of
from moe_sweeps.sweep.follow import duration
from moe_sweeps.sweep.search.plan import SearchPlan


@dataclass(frozen=True, slots=True)
class SearchCost:
    """The dearest run of the space, so that bounds are bounds. `trained`: steps that the search has behind it."""

    plan: SearchPlan
    size: Sizes
    estimate: Estimate
    flops_of_run: int
    workers: int
    free_disk: int
    trained: int = 0

    def seconds(self, steps: int) -> float:
        """Time for the rest of `steps` training steps in all, at the least that of one run."""
        on_one_worker = self.estimate.seconds * max(0, steps - self.trained) / self.plan.steps
        return max(on_one_worker / self.workers, min(self.estimate.seconds, on_one_worker))

    @property
    def disk(self) -> int:
        """Bytes of all checkpoints: of pruned runs, too, which can be promoted when the search is made longer."""
        runs = self.plan.most_trained * len(self.plan.space.seeds)
        return runs * self.estimate.checkpoint_bytes * self.plan.base.trainer.keep_checkpoints

    def require_disk(self) -> None:
        """Refuse a search whose measured checkpoints do not fit."""
        if self.estimate.measured and self.disk > self.free_disk:
            rule = f"checkpoints would take {size_text(self.disk)}, and {size_text(self.free_disk)} are free"
            fix = "Keep fewer (trainer.keep_checkpoints=1), make room, or ask for fewer trials."
            raise ConfigError("paths.runs", self.plan.base.paths.runs, rule, fix)

    def require_budget(self, budget: str) -> None:
        """Refuse a search that can take longer than `budget`, and say how many trials cannot.

        Raises:
            OverBudget: it can.
        """
        limit, most = parse_duration(budget), self.seconds(self.plan.most_steps)
        if most <= limit:
            return
        trials = int(self.plan.search.trials * limit / most)
        fits = f"search.trials={trials}" if trials else "nothing smaller of this kind"
        raise OverBudget(
            f"--budget {budget} is refused: the search can take {duration(most)} with {self.workers} workers\n"
            f"  would fit: {fits}"
        )


def search_cost(plan: SearchPlan, estimator: Estimator, workers: int, trained: int = 0) -> SearchCost:
    """The cost of the dearest corner of the space, for all."""
    estimates = {id(run): estimator.estimate(run) for _, run in plan.corners}
    dearest = max((run for _, run in plan.corners), key=lambda run: estimates[id(run)].seconds)
    size = sizes(dearest, dearest.data.vocab_size)
    existing = next(p for p in (plan.runs_root, *plan.runs_root.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    flops = size.flops_per_token * tokens_of(dearest)
    return SearchCost(plan, size, estimates[id(dearest)], flops, workers, free, trained)
