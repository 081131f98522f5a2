"""One new component of each kind, as somebody would add it: a class and a YAML file. Tests put them where they like."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from moe_sweeps.paths import REPOSITORY


class Newcomer(NamedTuple):
    """One component: its config group, its kind, the package of the repository it would go to, and its two files."""

    group: str
    kind: str
    package: str
    source: str
    yaml: str


def example(language: str) -> str:
    """The first block of that language in CONTRIBUTING.md."""
    found = re.search(rf"```{language}\n(.*?)```", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert found
    return textwrap.dedent("   " + found.group(1).lstrip())


def yaml_of(group: str, kind: str) -> str:
    return f"# Use to try {kind}.\ndefaults:\n  - /schema/{group}/{kind}@_here_\n  - _self_\n"


_GATE = '''
"""A gate that weighs experts by softplus of their logits. Axes: T tokens, E experts, K picks."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from moe_sweeps.config.registry import component
from moe_sweeps.model.router import RouterConfig


@component("router", "softplus")
@dataclass(slots=True)
class SoftplusConfig(RouterConfig):
    """Weights s_i / sum of the picked s, with s = softplus(z)."""

    kind: str = "softplus"

    def scores_TE(self, logits_TE: Tensor) -> Tensor:
        return F.softplus(logits_TE)

    def probs_TE(self, scores_TE: Tensor) -> Tensor:
        return scores_TE / scores_TE.sum(-1, keepdim=True)

    def weights_TK(self, logits_TE: Tensor, scores_TE: Tensor, ids_TK: Tensor) -> Tensor:
        picked_TK = scores_TE.gather(-1, ids_TK)
        return picked_TK / picked_TK.sum(-1, keepdim=True).clamp(min=1e-30)
'''
_OPTIMIZER = '''
"""Plain gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from moe_sweeps.config.registry import component
from moe_sweeps.optim.build import OptimizerConfig
from moe_sweeps.optim.groups import ParamGroup
from moe_sweeps.distributed.ranks import ALONE, Ranks


@component("optimizer", "descent")
@dataclass(slots=True)
class DescentConfig(OptimizerConfig):
    """p - lr (g + decay p)."""

    ELEMENTWISE: ClassVar[bool] = True

    kind: str = "descent"

    def build(self, groups: Sequence[ParamGroup], ranks: Ranks = ALONE) -> torch.optim.Optimizer:
        return torch.optim.SGD([group.as_torch(self.base_lr, self.weight_decay) for group in groups], lr=self.base_lr)
'''
_SCHEDULE = '''
"""The schedule of the first transformers."""

from __future__ import annotations

from dataclasses import dataclass

from moe_sweeps.config.registry import component
from moe_sweeps.optim.schedule import ScheduleConfig


@component("schedule", "inverse_root")
@dataclass(slots=True)
class InverseRootConfig(ScheduleConfig):
    """Linear warm-up, then sqrt(warmup_steps / (step + 1))."""

    kind: str = "inverse_root"

    def factor(self, step: int, total_steps: int) -> float:
        done = (step + 1) / self.warmup_steps
        return min(done, done**-0.5)
'''
_SPLIT = '''
"""A split with one knob."""

from __future__ import annotations

from dataclasses import dataclass

from moe_sweeps.config.registry import component, knob
from moe_sweeps.optim.lr_split import LrSplitConfig, Role


@component("lr_split", "slow_router")
@dataclass(slots=True)
class SlowRouterConfig(LrSplitConfig):
    """The router learns at a share of everything else's rate."""

    kind: str = "slow_router"
    share: float = knob(0.5, gt=0, doc="multiple of optimizer.base_lr for the router")

    def multiplier(self, role: Role) -> float:
        return self.share if role is Role.router else 1.0
'''

NEWCOMERS = (
    Newcomer("balancer", "sqrt", "balancing", example("python"), example("yaml")),
    Newcomer("router", "softplus", "model", _GATE.lstrip(), yaml_of("router", "softplus")),
    Newcomer("optimizer", "descent", "optim", _OPTIMIZER.lstrip(), yaml_of("optimizer", "descent")),
    Newcomer("schedule", "inverse_root", "optim", _SCHEDULE.lstrip(), yaml_of("schedule", "inverse_root")),
    Newcomer("lr_split", "slow_router", "optim/lr_split", _SPLIT.lstrip(), yaml_of("lr_split", "slow_router")),
)
CHOSEN = tuple(f"{new.group}={new.kind}" for new in NEWCOMERS)


def install(site: Path, name: str = "outsiders", *, source: str = "", options: dict[str, str] | None = None) -> Path:
    """A package as pip would leave it on a machine: its folder, its options, and what it says of itself."""
    package, about = site / name, site / f"{name}-1.5.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.5\n")
    (about / "entry_points.txt").write_text(f"[moe_sweeps.components]\n{name} = {name}\n")
    for new in () if source else NEWCOMERS:
        (package / f"{new.kind}.py").write_text(new.source)
    (package / "__init__.py").write_text(source or "".join(f"from {name} import {n.kind}\n" for n in NEWCOMERS))
    texts = {f"{new.group}/{new.kind}.yaml": new.yaml for new in NEWCOMERS} if options is None else options
    for path, text in texts.items():
        (package / "conf" / path).parent.mkdir(parents=True, exist_ok=True)
        (package / "conf" / path).write_text(text)
    return site
