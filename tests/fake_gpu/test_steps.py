"""Whole training steps by shapes alone, on a GPU that computes nothing: every option, and what each waits for.

A tensor that was left on the host, a shape or dtype that does not fit, and an operation that needs values end the step.
What remains are reads and copies that would synchronise a real GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.kernels.build import compiler
from moe_sweeps.paths import REPOSITORY

pytestmark = pytest.mark.timeout(600)  # all cases run in the fixture, for some 30 seconds of a quiet core
HERE = Path(__file__).parent
RARE = ("log_every=24", "eval_every=24", "checkpoint_every=24", "time_every=0")
COMMON = [*TINY, "model.layers=1", *(f"trainer.{setting}" for setting in RARE), "engine.compile=false"]

# What the step that is looked at may wait for, how often, and why.
QUANTILE = {"balancing/quantile.py:quantile_thresholds reads a number": 1}  # whether all layers are balanced
READ_ONCE = {"optim/findings.py:Findings.read copies to the host": 1}  # what was found out in all decompositions
SOON = {"shampoo": "optimizer.precondition_frequency=2", "soap": "optimizer.precondition_frequency=1"}
# A list of the experts' rows in each of 2 micro-batches; of a fake tensor it is read number by number.
LOOP = {"model/moe.py:Experts._multiply reads a number": 16}
WAITS: dict[str, dict[str, int]] = {
    "balancer=quantile": QUANTILE,
    "optimizer=shampoo": READ_ONCE | {"optim/roots.py:eigh _linalg_eigh": 8},  # torch reads its own error codes
    "optimizer=soap": READ_ONCE,
    "trainer.precision=float32": LOOP,
    "engine.expert_backend=loop": LOOP,
}
KINDS = {
    f"{group}={kind}": [f"{group}={kind}", *filter(None, [SOON.get(kind)])]
    for group in ("balancer", "router", "optimizer", "lr_split")
    for kind in REGISTRY[group]
}
SETTINGS = [
    "balancer=aux aux.scope=global",
    "balancer=aux aux.scope=sequence",
    "balancer=lossfree balancer.update_every=micro_step",
    "balancer=lossfree balancer.update=magnitude balancer.recenter=true",
    "lr_split=batch_fraction lr_split.control=shuffled lr_split.ema=0.9",
    "lr_split=batch_fraction lr_split.control=uniform lr_split.sqrt=true",
    "router.noise=learned router.input_jitter=0.1 router.input_dropout=0.1",
    "router.noise=fixed router.clip_norm=1 router.clip_value=1",
    "router=softmax_topk router.renormalize=true",
    "data.mask_documents=true",
    "model.qk_norm=true",
    "experts=dense",
    "experts.num_experts=128 experts.top_k=8",
    "trainer.micro_batch_size=4",
    "trainer.grad_clip=0",
    "trainer.monitor=false",
    "engine.expert_backend=grouped",
    "engine.expert_backend=loop",
    "trainer.precision=float32",
    "optimizer.decay_all=true",
]
CASES = KINDS | {setting: setting.split() for setting in SETTINGS}
COMPILED = [
    "balancer=aux",
    "balancer=expert_choice router=softmax_topk",
    "balancer=quantile router=softmax_topk data.mask_documents=true",
    "balancer=lossfree model.qk_norm=true trainer.micro_batch_size=4",
]
LOGGED = "a step that is logged"
EVALUATED = "a step with an evaluation"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> dict[str, dict[str, Any]]:
    """What `steps.py` says of every case."""
    if compiler() is None:
        pytest.skip("there is no C++ compiler, which the device that computes nothing needs")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: tests/gpu runs the steps on it")
    folder = tmp_path_factory.mktemp("fake_gpu")
    lines = {name: [*COMMON, *case] for name, case in CASES.items()}
    lines[LOGGED] = [*COMMON, "trainer.log_every=2"]
    lines |= {f"compiled {line}": [*COMMON, *line.split(), "engine.compile=true"] for line in COMPILED}
    lines[EVALUATED] = [*COMMON, "trainer.eval_every=2", "trainer.eval_batch_size=4"]
    lines[EVALUATED] += ["trainer.eval_sequences=12"]
    paths = os.pathsep.join(str(REPOSITORY / name) for name in ("tests", ""))
    environment = os.environ | {"PYTHONPATH": paths, "MOE_SWEEPS_RUNS": str(folder), "MOE_SWEEPS_DATA": str(data_root)}
    command = [sys.executable, str(HERE / "steps.py"), str(library(folder)), json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def library(folder: Path) -> Path:
    """device.cpp, compiled."""
    torch_folder, path = Path(torch.__file__).parent, folder / "device.so"
    told = [
        "-std=c++20",
        "-fPIC",
        "-shared",
        f"-I{torch_folder / 'include'}",
        str(HERE / "device.cpp"),
        "-o",
        str(path),
    ]
    subprocess.run([str(compiler()), *told, f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch_cpu"], check=True)
    return path


@pytest.mark.parametrize("case", CASES)
def test_a_step_runs_and_waits_only_where_it_is_allowed(case: str, seen: dict[str, dict[str, Any]]) -> None:
    found = seen[case]
    assert "error" not in found, found["trace"]
    assert found["waits"] == WAITS.get(case, {})
    assert found["operations"] > 150
    assert found["by_operation"]["_fused_adamw_" if "optimizer" not in case else "mul"][0] >= 1


@pytest.mark.parametrize("case", COMPILED)
def test_a_compiled_model_is_one_graph(case: str, seen: dict[str, dict[str, Any]]) -> None:
    """For two micro-batches and two steps, with the branches that a model takes on a GPU alone."""
    found = seen[f"compiled {case}"]
    assert "error" not in found, found["trace"]
    assert found["graphs"] == 1


def test_a_logged_step_is_seen_to_wait(seen: dict[str, dict[str, Any]]) -> None:
    """So the watch sees a read where there is one."""
    waits = seen[LOGGED]["waits"]
    assert waits["training/averages.py:RunningMean.value reads a number"] >= 5
    assert waits["training/trainer.py:Trainer._require_finite reads a number"] == 2


def test_an_evaluation_reads_its_results_and_copies_nothing_that_is_not_pinned(seen: dict[str, dict[str, Any]]) -> None:
    """Each of its 3 batches copied its domains for every layer; results are read once, after the last batch."""
    waits = seen[EVALUATED]["waits"]
    assert waits["training/evaluate.py:_Sums.evaluation reads a number"] == 4
    assert not [wait for wait in waits if "copies from the host" in wait]


def test_products_are_in_bfloat16(seen: dict[str, dict[str, Any]]) -> None:
    """torch's grouped product, which has shapes in bfloat16 alone: two forward and four backward a layer."""
    assert seen["trainer.micro_batch_size=4"]["by_operation"]["_grouped_mm"][0] == 2 + 4
