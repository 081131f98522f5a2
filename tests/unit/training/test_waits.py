"""Nothing in a training step makes the host wait for a GPU: read in the sources, and traced in steps on a CPU.

tests/fake_gpu traces steps on a GPU that computes nothing; there, unlike here, copies between host and device show.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import CPU, TINY, Silent, compose_run
from watching import Watch, tokens, watched

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.training.trainer import Trainer

SOURCES = REPOSITORY / "src" / "moe_sweeps"
# All of these rooms, and of `training` what a step goes through.
ROOMS = ("model", "balancing", "optim", "kernels")
IN_TRAINING = ("averages", "collapse", "gradients", "journal", "monitor", "randomness", "step_timer", "stepper")
OTHERS = ("training/trainer.py", "distributed/ranks.py", "distributed/sharding.py")

# --- in the sources ---------------------------------------------------------------------------------------------------

READING = {"item", "tolist", "cpu", "numpy", "synchronize"}
SEARCHING = {"nonzero", "argwhere", "bincount", "unique", "unique_consecutive", "masked_select", "is_nonzero", "equal"}
CONVERTING = {"bool", "int", "float"}
# Methods whose result, as a condition, is read.
REDUCING = {"any", "all", "isfinite", "isnan", "sum", "max", "min", "mean", "norm"}
TENSOR = re.compile(r"^[a-z]\w*_[A-Z]+\d?$")  # a name with its axes, as x_TD

AT_LOGGING = "where a line is written, at most every trainer.log_every steps"
ON_HOST = "numbers of the host"
AT_START = "before the first step, or where a run is resumed"
ALLOWED = {
    "balancing/quantile.py:quantile_thresholds bool()": "a check of balance: of all layers, every 16 rounds on a GPU",
    "distributed/ranks.py:Ranks._from_slurm int()": ON_HOST,
    "distributed/ranks.py:Ranks._from_torchrun int()": ON_HOST,
    "distributed/ranks.py:Ranks.any_of_each .tolist": "a tensor of the host, which gloo sends",
    "distributed/ranks.py:Ranks.any_of_each bool()": ON_HOST,
    "distributed/ranks.py:Ranks.from_environment int()": ON_HOST,
    "distributed/ranks.py:Ranks.require_agreement .item": AT_START,
    "distributed/ranks.py:Ranks.require_agreement int()": AT_START,
    "distributed/ranks.py:lost_a_peer bool()": ON_HOST,
    "kernels/operators.py:Operator.differentiate.pull_back int()": ON_HOST,
    "model/compiling.py:draws_random_numbers bool()": ON_HOST,
    "model/dense.py:products_of int()": AT_START,
    "model/moe.py:Experts._multiply .tolist": "in a loop over experts, once a layer; float32 on a GPU is one, too",
    "model/transformer.py:weights_digest .cpu": AT_START,
    "model/transformer.py:weights_digest .numpy": AT_START,
    "optim/findings.py:Findings.add .tolist": "on a CPU alone",
    "optim/findings.py:Findings.add int()": ON_HOST,
    "optim/findings.py:Findings.read .cpu": "one copy a step in which matrices are decomposed",
    "optim/findings.py:Findings.read .tolist": ON_HOST,
    "optim/groups.py:parameter_groups bool()": AT_START,
    "optim/lr_split/base.py:RoleMultipliers.multiplier float()": ON_HOST,
    "optim/lr_split/load_based.py:BatchFractionConfig.per_pick float()": ON_HOST,
    "optim/lr_split/load_based.py:IdealNormalizedConfig.per_pick float()": ON_HOST,
    "optim/lr_split/ratios.py:LoadRatios.load_state_dict int()": AT_START,
    "optim/schedule.py:WarmupStableDecayConfig._decayed float()": ON_HOST,
    "training/averages.py:RunningMean.load_state_dict int()": AT_START,
    "training/averages.py:RunningMean.value .item": AT_LOGGING,
    "training/collapse.py:CollapseWatch.collapsed_at .item": AT_LOGGING,
    "training/collapse.py:CollapseWatch.collapsed_at int()": AT_LOGGING,
    "training/gradients.py:_changes_nothing bool()": "on a CPU alone",
    "training/journal.py:Journal.ensure_evaluation condition": ON_HOST,
    "training/journal.py:Journal.log_interval float()": ON_HOST,
    "training/monitor.py:RouterMonitor._loads .tolist": AT_LOGGING,
    "training/monitor.py:RouterMonitor._permutation .tolist": AT_LOGGING,
    "training/monitor.py:RouterMonitor.log_evaluation .tolist": "at an evaluation",
    "training/monitor.py:_mean float()": ON_HOST,
    "training/monitor.py:_plain float()": ON_HOST,
    "training/monitor.py:plain .tolist": AT_LOGGING,
    "training/randomness.py:restore_random_state .cpu": "states of generators, which lie on the host",
    "training/step_timer.py:StepTimer._sum_spans .synchronize": AT_LOGGING,
    "training/step_timer.py:StepTimer.begin_step bool()": ON_HOST,
    "training/step_timer.py:_Totals.means float()": ON_HOST,
    "training/step_timer.py:_seconds float()": ON_HOST,
    "training/trainer.py:Trainer._require_finite .item": "on a CPU, and on a GPU where something else synchronises",
}


def files() -> list[Path]:
    rooms = [path for room in ROOMS for path in (SOURCES / room).rglob("*.py")]
    return sorted([*rooms, *(SOURCES / "training" / f"{n}.py" for n in IN_TRAINING), *(SOURCES / n for n in OTHERS)])


def reads(tree: ast.AST, inside: str = "") -> Iterator[str]:
    """What may wait for a GPU, as `function what`."""
    for node in ast.iter_child_nodes(tree):
        yield from (f"{inside} {what}" for what in _reads_of(node))
        named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        yield from reads(node, f"{inside}.{node.name}".lstrip(".") if named else inside)  # type: ignore[attr-defined]


def _reads_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READING | SEARCHING:
        yield f".{node.func.attr}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CONVERTING:
        yield from () if all(isinstance(given, ast.Constant) for given in node.args) else [f"{node.func.id}()"]
    if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert) and _is_tensor(node.test):
        yield "condition"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and _is_tensor(node.operand):
        yield "condition"
    if isinstance(node, ast.Subscript):
        indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if any(isinstance(index, ast.Compare) or _is_tensor(index) for index in indices):
            yield "[tensor]"


def _is_tensor(node: ast.AST) -> bool:
    """Whether the expression is a tensor by its name, or by what is done to one."""
    if isinstance(node, ast.Name | ast.Attribute):
        return bool(TENSOR.match(node.id if isinstance(node, ast.Name) else node.attr))
    if isinstance(node, ast.Call):
        module = isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.value.id
        return isinstance(node.func, ast.Attribute) and node.func.attr in REDUCING and module not in ("math", "np")
    if isinstance(node, ast.Compare):
        by_value = not all(isinstance(op, ast.Is | ast.IsNot | ast.In | ast.NotIn) for op in node.ops)
        return by_value and any(_is_tensor(part) for part in (node.left, *node.comparators))
    parts = {ast.UnaryOp: ("operand",), ast.BinOp: ("left", "right"), ast.Subscript: ("value",)}.get(type(node), ())
    below = node.values if isinstance(node, ast.BoolOp) else [getattr(node, part) for part in parts]
    return any(_is_tensor(part) for part in below)


def test_the_sources_of_a_step_wait_only_where_it_is_allowed() -> None:
    found = {f"{path.relative_to(SOURCES)}:{read}" for path in files() for read in reads(ast.parse(path.read_text()))}
    assert found - ALLOWED.keys() == set(), "on a GPU this waits for the device; see ALLOWED"
    assert ALLOWED.keys() - found == set(), "this is no longer there"


@pytest.mark.parametrize(
    "line",
    [
        "loss.item()",
        "counts_E.tolist()",
        "x_TD.cpu()",
        "torch.nonzero(x_TD)",
        "bool(balanced)",
        "if x_T.any(): pass",
        "if bad_N: pass",
        "while not good_N.all(): pass",
        "y = 1 if (x_T > 0).sum() else 2",
        "assert norm_L >= 0",
        "if self.load_LE.max() > 3: pass",
        "root_NDD[good_N] = new_NDD[good_N]",
        "x_TD[x_TD > 0]",
        "x_TD[~bad_N]",
        "x_TD[:, kept_D]",
    ],
)
def test_what_the_reading_finds(line: str) -> None:
    assert list(reads(ast.parse(f"def f():\n    {line}"))), line


@pytest.mark.parametrize(
    "line",
    ["x_TD.sum()", "x_TD[0]", "x_TD[:, :3]", "x_E[self.layer]", "if x_TD is None: pass", "if math.isfinite(3): pass"],
)
def test_what_the_reading_lets_pass(line: str) -> None:
    assert not list(reads(ast.parse(f"def f():\n    {line}"))), line


# --- in a step --------------------------------------------------------------------------------------------------------

# On a CPU the host never waits, and a step may look at its numbers. These are all the places where it does.
ON_CPU = {
    "training/gradients.py:_changes_nothing reads a number",
    "training/trainer.py:Trainer._require_finite reads a number",
    "balancing/quantile.py:quantile_thresholds reads a number",
    "optim/roots.py:eigh _linalg_eigh",
}
SOON = {
    "optimizer=shampoo": "optimizer.precondition_frequency=2",
    "optimizer=soap": "optimizer.precondition_frequency=1",
}
KINDS = [f"{group}={kind}" for group in ("balancer", "router", "optimizer", "lr_split") for kind in REGISTRY[group]]
MORE = ["data.mask_documents=true", "model.qk_norm=true", "trainer.micro_batch_size=4", "experts=dense"]


@pytest.mark.parametrize("setting", [*KINDS, *MORE])
def test_a_step_on_a_cpu_reads_numbers_only_where_it_is_allowed(setting: str, tmp_path: Path) -> None:
    rare = ["trainer.log_every=24", "trainer.eval_every=24", "trainer.checkpoint_every=24", "engine.kernels=torch"]
    run = compose_run(*TINY, "model.layers=1", *rare, setting, *filter(None, [SOON.get(setting)]))
    trainer = Trainer(run, RunDir(tmp_path), tokens(run), CPU, Silent())
    trainer._after_step(trainer._timed_step())
    with Watch("cpu") as seen:  # of the second step, in which matrices are decomposed
        trainer._after_step(trainer._timed_step())
    assert set(seen.waits) <= ON_CPU
    assert seen.waits["training/trainer.py:Trainer._require_finite reads a number"] == 2
    assert seen.operations.total() > 150


@pytest.mark.parametrize(
    ("work", "what"),
    [
        (lambda x: x.sum().item(), "reads a number"),
        (lambda x: bool((x > 0).any()), "reads a number"),
        (lambda x: 1 if (x > 0).all() else 2, "reads a number"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.index_put((x > 0,), torch.ones(3)), "index_put"),
        (lambda x: x.long().bincount(), "bincount"),
        (lambda x: torch.linalg.eigh(x.outer(x)), "_linalg_eigh"),
    ],
)
def test_what_the_watch_sees(work: object, what: str) -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    seen = watched("cpu", lambda: work(x))  # type: ignore[operator]
    assert what in " ".join(seen.waits)


def test_what_the_watch_counts() -> None:
    """Two products of (2, 3) by (3, 4): 24 + 48 bytes read and 32 written each; views are free, expanded ones small."""
    x, y = torch.ones(2, 3), torch.ones(4, 3)
    seen = watched("cpu", lambda: [x @ y.T, x @ y.T, torch.ones(1, 5).expand(1000, 5).neg()])
    assert seen.operations["mm"] == 2
    assert seen.bytes["mm"] == 2 * (24 + 48 + 32)
    assert seen.bytes["neg"] == 20 + 20_000
    assert not seen.waits
