"""Of which runs the code's version changes when a module is edited, over all options and all modules.

And that nothing is left out: what a run executes while it trains is part of its version.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from helpers import TINY, compose_run, make_run

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment import code_version as versions
from moe_sweeps.experiment import freeze as freezing
from moe_sweeps.experiment.code_version import AROUND, code_version
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.experiment.sources import Sources
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.code_record import CodeRecord
from moe_sweeps.records.rundir import State
from moe_sweeps.training.worker import run_worker

SRC = REPOSITORY / "src"
OPTIONS = {f"{group}={kind}": (group, cls) for group, kinds in REGISTRY.items() for kind, cls in kinds.items()}
# Files that some runs execute and others do not -> the options whose runs execute them, everything else as in make_run.
BLOCKED = {"optimizer=muon", "optimizer=shampoo", "optimizer=soap"}
ALL_SCHEDULES = {name for name in OPTIONS if name.startswith("schedule=")}
SOME = {
    "balancing/lossfree.py": {"balancer=lossfree", "balancer=aux_lossfree", "engine=megatron"},
    "balancing/quantile.py": {"balancer=quantile"},
    "balancing/expert_choice.py": {"balancer=expert_choice"},
    "optim/lr_split/load_based.py": {"lr_split=batch_fraction", "lr_split=ideal_normalized"},
    "optim/blocked.py": BLOCKED,
    "optim/findings.py": BLOCKED,
    "optim/blocks.py": BLOCKED,
    "optim/moments.py": BLOCKED,
    "optim/roots.py": {"optimizer=shampoo", "optimizer=soap"},
    "optim/muon.py": {"optimizer=muon"},
    "optim/shampoo.py": {"optimizer=shampoo"},
    "optim/soap.py": {"optimizer=soap"},
    "data/localfiles.py": {"data=text"},
    "data/finding.py": {"data=text"},
} | {f"kernels/{name}": set(OPTIONS) - {"engine=megatron"} for name in
     ("kernels.cpp", "attention.h", "cross_entropy.h", "experts.h", "norm.h", "picks.h", "swiglu.h", "vector.h")
} | {f"data/{name}.py": {"data=fineweb_edu", "data=text"} for name in
     ("arrange", "bulk", "columns", "duplicates", "encoders", "encoding", "sources", "streamed", "tokenlog", "unicode")
} | {f"engines/megatron/{name}.py": {"engine=megatron"} for name in
     ("config", "model", "router", "settings", "shim", "skeleton", "weights")}  # fmt: skip
# Modules that read and write configs, names and folders, and never run below a worker.
NONE = {f"experiment/{name}.py" for name in ("identity", "freeze", "snapshot", "compose")}
NONE |= {"config/search.py", "config/tracking.py"}
ALL = {f"training/{name}.py" for name in ("trainer", "worker", "gradients", "evaluate", "checkpoint", "stepper")}
ALL |= {"model/router.py", "model/moe.py", "optim/build.py", "optim/schedule.py", "balancing/base.py",
        "balancing/auxiliary.py", "balancing/load.py", "experiment/schema.py", "data/batches.py"}  # fmt: skip


def run_of(option: str) -> RunConfig:
    group, cls = OPTIONS[option]
    changed: Any = {group: cls(files=["README.md"]) if option == "data=text" else cls()}  # type: ignore[call-arg]
    return make_run(**changed)


@functools.cache
def base() -> dict[str, CodeRecord]:
    return {option: code_version(run_of(option)) for option in OPTIONS}


def with_edit(file: str, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """The sources with one more statement at the end of `file`."""
    edited = Sources(SRC)
    for module, (name, content) in edited._texts.items():
        if name == file:
            edited._texts[module] = (name, content + b"\nedited = 1\n")
            break
    else:
        edited._kernels[file] += b"\nint edited;\n"
    monkeypatch.setattr(versions, "own_sources", lambda: edited)
    return edited


def files_of_training() -> list[str]:
    found = Sources(SRC)
    return sorted([*(name for name, _ in found._texts.values()), *found.kernels()])


@pytest.mark.parametrize("file", files_of_training())
def test_an_edit_changes_the_version_of_the_runs_that_execute_it(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = base()  # once a process, and of sources that nobody has edited yet
    with_edit(file, monkeypatch)
    changed = {option for option in OPTIONS if code_version(run_of(option)).version != before[option].version}
    if file in SOME:
        assert changed == SOME[file]
    elif file in NONE:
        assert changed == set()
    elif file in ALL:
        assert changed == set(OPTIONS)
    elif changed not in (set(), set(OPTIONS)):  # a new option, in a module of its own
        owners = {option for option, (_, cls) in OPTIONS.items() if cls.__module__.endswith(_module(file))}
        assert owners
        assert changed >= owners


def _module(file: str) -> str:
    return "." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_the_lists_above_name_files_that_exist() -> None:
    assert {*SOME, *NONE, *ALL} <= set(files_of_training())


def test_most_files_belong_to_all_runs_or_none() -> None:
    """What a package passes on, lists of options and discovery belong to none, or every new option would change all."""
    in_all = set.intersection(*(set(record.files or {}) for record in base().values()))
    assert "balancing/__init__.py" not in in_all
    assert "optim/__init__.py" not in in_all
    assert in_all >= ALL


@pytest.mark.parametrize("option", [o for o in OPTIONS if OPTIONS[o][0] not in AROUND])
def test_a_version_says_where_its_options_lie(option: str) -> None:
    files = base()[option].files or {}
    assert files[option] in files
    assert all(re.fullmatch("[0-9a-f]{8}", digest) for file, digest in files.items() if "=" not in file)


def test_a_new_option_in_a_package_changes_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = base()
    edited = Sources(SRC)
    passes_on = edited._texts["moe_sweeps.balancing"]
    more = b"\nfrom moe_sweeps.balancing.sqrt import Sqrt\n__all__ += ['Sqrt']\n"
    edited._texts["moe_sweeps.balancing"] = (passes_on[0], passes_on[1] + more)
    edited._texts["moe_sweeps.balancing.sqrt"] = ("balancing/sqrt.py", b"class Sqrt: ...")
    monkeypatch.setattr(versions, "own_sources", lambda: edited)
    assert {option: code_version(run_of(option)) for option in OPTIONS} == before


KERNELS = {
    (): True,
    ("engine.kernels=compiled",): True,
    ("engine.kernels=torch",): False,
    ("engine.device=cuda",): False,
    ("engine.device=cpu",): True,
    ("trainer.precision=bfloat16",): False,
    ("trainer.precision=float32",): True,
}


@pytest.mark.parametrize("settings", KERNELS)
def test_kernels_count_where_they_may_be_used(settings: tuple[str, ...]) -> None:
    assert ("kernels/kernels.cpp" in (code_version(compose_run(*settings)).files or {})) == KERNELS[settings]


def test_of_a_snapshot_its_own_sources_count(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edited after this process had read the sources, and before the snapshot was taken."""
    snapshot = tmp_path / "runs" / "snapshots" / "0123"
    for path in sorted((SRC / "moe_sweeps").rglob("*.py")):
        copy = snapshot / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text() + ("\nedited = 1\n" if path.name == "lossfree.py" else ""))
    monkeypatch.setattr(freezing, "_snapshot", lambda root: snapshot)
    for balancer, changes in (("lossfree", True), ("aux", False)):
        run = compose_run(*TINY, f"balancer={balancer}", "launch.snapshot=true", "engine.kernels=torch")
        content = freeze(run, [], command="test").provenance()
        now = code_version(run)
        assert (content["source_hash"] != now.version) == changes
        assert {f for f in now.files or {} if content["sources"].get(f) != (now.files or {})[f]} == (
            {"balancing/lossfree.py"} if changes else set()
        )


def test_an_option_outside_the_repository_counts_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = tmp_path / "lab_balancers.py"
    lab.write_text("from moe_sweeps.balancing.lossfree import LossFreeConfig\nclass MineConfig(LossFreeConfig): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import lab_balancers  # type: ignore[import-not-found]

    monkeypatch.setitem(REGISTRY["balancer"], "mine", lab_balancers.MineConfig)
    run = make_run(balancer=lab_balancers.MineConfig(kind="mine"))
    versions._version.cache_clear()
    files = code_version(run).files or {}
    assert {"lab_balancers.py", "balancing/lossfree.py", "training/trainer.py"} <= set(files)
    lab.write_text(lab.read_text().replace("...", "x = 1"))
    monkeypatch.setattr(versions, "own_sources", lambda: Sources(SRC))
    changed = code_version(run).files or {}
    assert {file for file in files if files[file] != changed[file]} == {"lab_balancers.py"}


LINES = [
    ("balancer=aux", "optimizer=adamw", "schedule=onecycle_cosine", "router=topk_softmax"),
    ("balancer=lossfree", "optimizer=muon", "schedule=cosine", "router=sigmoid", "lr_split=static"),
    ("balancer=aux_lossfree", "optimizer=adamw", "schedule=wsd", "router=softmax_topk", "lr_split=batch_fraction"),
    ("balancer=quantile", "optimizer=shampoo", "optimizer.precondition_frequency=2", "schedule=constant"),
    ("balancer=none", "optimizer=soap", "lr_split=matched"),
    ("balancer=expert_choice", "lr_split=ideal_normalized", "engine.kernels=torch"),
    ("experts=dense",),
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_whatever_a_run_executes_is_part_of_its_version(
    folders: Path, real_data: TokenData, line: tuple[str, ...]
) -> None:
    run = compose_run(*TINY, *line, "trainer.steps=6", "schedule.warmup_steps=2")
    folder = freeze(run, [], command="test")
    called: set[str] = set()
    state = _watched(lambda: run_worker(folder), called)
    assert state is State.done
    package = f"{SRC / 'moe_sweeps'}/"
    ours = {file.removeprefix(package) for file in called if file.startswith(package)}
    assert {"training/trainer.py", "model/transformer.py"} <= ours
    assert ours <= set(code_version(run).files or {})


def _watched(work: Callable[[], State], called: set[str]) -> State:
    """Note the files of all functions that are called meanwhile."""

    def note(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            called.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        return work()
    finally:
        sys.setprofile(None)


def test_a_plan_of_a_thousand_runs_asks_once_for_each_combination_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    real = Sources.executed

    def executed(self: Sources, *rest: Any) -> dict[str, str]:
        asked.append(rest)
        return real(self, *rest)

    monkeypatch.setattr(Sources, "executed", executed)
    versions._version.cache_clear()
    run = make_run()
    for seed in range(1000):
        code_version(dataclasses.replace(run, seed=seed))
    assert len(asked) == 1
