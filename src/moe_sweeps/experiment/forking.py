"""What a fork may change: a run that continues from a trunk's checkpoint differs from it in what acts after the fork.

The question of a fork is "from step N on". So settings that made the weights or the data before, and those that do
nothing after step N, are refused: docs/forks.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

import torch

from moe_sweeps.config.groups import RouterNoise
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.identity import SEED_KEYS, canonical_form
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.model.transformer import Transformer
from moe_sweeps.optim.lr_split import Role
from moe_sweeps.records.genuine import flatten

DATA = "the trunk's place in the data is a number of its own batches"
INITIAL = "it makes the weights that training begins with, and the fork begins with the trunk's"
# Keys of the identity -> why a fork cannot change them. The first pattern that fits decides.
REFUSED: dict[str, str] = {
    "data": DATA,
    "data.*": DATA,
    "trainer.batch_size": DATA,
    "trainer.seq_len": DATA,
    "trainer.precision": "a run computes in the arithmetic that it began with",
    "model.init_*": INITIAL,
    "router.init": INITIAL,
    "model": "the weights are the trunk's, and so is their shape",
    "model.*": "the weights are the trunk's, and so is their shape",
    "experts": "the weights are the trunk's, and so is their shape",
    "experts.num_experts": "the weights are the trunk's, and so is the number of experts",
    "experts.ffn_hidden": "the weights are the trunk's, and so is their shape",
    "experts.active_experts": "the weights are the trunk's, and so is their shape",
    "optimizer": "the optimizer's state is the trunk's, and another optimizer has another state",
    "optimizer.max_preconditioner_dim": "the optimizer's state is the trunk's, and so are its blocks",
}
UNFORKED = "Take it out of the sweep, or ask this question without fork.step."


def refusals(run: RunConfig, trunk: RunConfig) -> Iterator[ConfigError]:
    """An error for each setting of the fork `run` that its `trunk` has otherwise and that a fork cannot change."""
    own, shared = (flatten(canonical_form(one)) for one in (run, trunk))
    keys = [k for k in dict.fromkeys([*own, *shared]) if own.get(k) != shared.get(k) and not k.startswith("fork")]
    refused = False
    for key in keys:
        rule = _seeds_rule(key) or _rule(key) or _early(key, run, trunk)
        if rule:
            refused = True
            yield _error(key, own, shared, rule)
    if not refused and any(key.partition(".")[0] in ("router", "experts", "model") for key in keys):
        yield from _other_weights(run, trunk, keys, own)


def _seeds_rule(key: str) -> str | None:
    return "a fork has the seeds of its trunk" if key in SEED_KEYS else None


def _rule(key: str) -> str | None:
    return next((rule for pattern, rule in REFUSED.items() if fnmatch(key, pattern)), None)


def _early(key: str, run: RunConfig, trunk: RunConfig) -> str | None:
    """Why a setting does nothing after the fork, or None where it does something."""
    step = run.fork.step or 0
    if key == "schedule.warmup_steps":
        longest = max(one.schedule.warmup_steps for one in (run, trunk))
        return f"both warm-ups are over before step {step}" if longest <= step else None
    if key == "schedule.start_fraction":
        return f"it acts in the warm-up, which is over before step {step}" if _warm(run, trunk) <= step else None
    if key.startswith("schedule") and _rates(run) == _rates(trunk):
        return f"the learning rates after step {step} are the trunk's"
    if key == "optimizer.start_step" and max(_first_roots(run), _first_roots(trunk)) <= step:
        return f"the first roots are computed before step {step}"
    return None


def _warm(*runs: RunConfig) -> int:
    return max(run.schedule.warmup_steps for run in runs)


def _rates(run: RunConfig) -> list[list[float]]:
    """Factors of the peak learning rate after the fork, by role."""
    first, total = run.fork.step or 0, run.trainer.steps
    return [[run.schedule.of(role).factor(step, total) for step in range(first, total)] for role in Role]


def _first_roots(run: RunConfig) -> int:
    return int(getattr(run.optimizer, "first_roots", 0))


def _error(key: str, own: Mapping[str, Any], shared: Mapping[str, Any], rule: str) -> ConfigError:
    value = own.get(key, "absent")
    return ConfigError(key, value, f"{rule} (the trunk has {shared.get(key, 'none')})", UNFORKED)


def _other_weights(run: RunConfig, trunk: RunConfig, keys: list[str], own: Mapping[str, Any]) -> Iterator[ConfigError]:
    """An error where the two have other parameters, for reasons that no rule above knows."""
    if _weights(run) != _weights(trunk):
        key = "router.noise" if RouterNoise.learned in (run.router.noise, trunk.router.noise) else keys[0]
        rule = f"the weights are the trunk's, and with {', '.join(keys)} a run has others"
        yield ConfigError(key, own.get(key, "absent"), rule, UNFORKED)


def _weights(run: RunConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = Transformer(run, run.data.vocab_size)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
