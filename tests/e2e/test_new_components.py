"""A class and a YAML file add a balancer, gate, optimizer, schedule or learning-rate split; nothing else changes.

In a copy of the repository, as CONTRIBUTING.md says, and in packages outside it, which every process must find.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from newcomers import CHOSEN, NEWCOMERS, install, yaml_of

from moe_sweeps.paths import REPOSITORY

SHORT = (
    "scale=smoke", "model.width=16", "experts.ffn_hidden=16", "trainer.steps=4", "schedule.warmup_steps=2",
    "trainer.final_eval_sequences=8", "trainer.eval_sequences=8", "launch.threads=1",
)  # fmt: skip
KINDS = {new.group: new.kind for new in NEWCOMERS}
# What the working tree of a fresh clone has.
PARTS: tuple[str, ...] = (
    "src", "conf", "sweeps", "tables", "tests", "docs", "reference", "benchmarks", "pyproject.toml", "train.py",
    "CONTRIBUTING.md", "README.md", "LICENSE", "Makefile",
)  # fmt: skip
# Tests that walk over components, where somebody's new one must neither break anything nor be passed over.
WALKS = (
    "unit/experiment/test_compose.py", "unit/cli/test_knobs.py", "unit/model/test_gate_contract.py",
    "unit/optim/test_optimizers.py", "unit/optim/test_schedule.py", "unit/optim/lr_split/test_contract.py",
    "unit/optim/test_groups.py", "unit/optim/test_decay_all.py", "unit/balancing/test_contract.py",
    "unit/test_architecture.py",
)  # fmt: skip
# Of those, what concerns the new ones, and everything that reads lists.
NAMED = [*(new.kind for new in NEWCOMERS), "page", "mistakes", "registered", "differs", "layer", "point_down"]
MANAGE = "import sys; from moe_sweeps.cli.manage import main; sys.exit(main())"


def run(arguments: Sequence[str], cwd: Path, path: Path | None, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of this Python, with `path` before everything else that is imported."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"COLUMNS": "200"} | variables
    environment |= {"PYTHONPATH": str(path)} if path else {}
    line = [sys.executable, *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=900, check=False, cwd=cwd, env=environment)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


# --- in the repository ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with one more component of each kind, a module and a YAML file each."""
    folder = tmp_path_factory.mktemp("a clone")
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    for new in NEWCOMERS:
        (folder / "src" / "moe_sweeps" / new.package / f"{new.kind}.py").write_text(new.source)
        (folder / "conf" / new.group / f"{new.kind}.yaml").write_text(new.yaml)
    return folder


def test_one_of_each_kind_trains_in_the_repository(clone: Path, folders: Path) -> None:
    done = run(["train.py", *SHORT, *CHOSEN], clone, clone / "src")
    assert done.returncode == 0, said(done)
    (config,) = folders.glob("*/identity.json")
    canonical = json.loads(config.read_text())["canonical"]
    assert {n.group: canonical[n.group]["kind"] for n in NEWCOMERS} == KINDS
    assert "components" not in json.loads(config.with_name("provenance.json").read_text())


@pytest.mark.timeout(900)
def test_nothing_else_changes_and_the_contracts_enrol_them(clone: Path) -> None:
    tests = [f"tests/{walk}" for walk in WALKS]
    line = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", " or ".join(NAMED), "-rA"]
    done = run(line, clone, clone / "src")
    assert done.returncode == 0, said(done)
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    for kind, contract in (
        ("sqrt", "balancing/test_contract"), ("softplus", "test_gate_contract"), ("descent", "test_optimizers"),
        ("inverse_root", "test_schedule"), ("slow_router", "lr_split/test_contract"),
    ):  # fmt: skip
        enrolled = [line for line in passed if contract in line and kind in line]
        assert len(enrolled) >= 5, (kind, enrolled)


# --- outside it -------------------------------------------------------------------------------------------------------


def states(runs: Path) -> list[str]:
    return [json.loads(p.read_text())["state"] for p in sorted(runs.glob("*/status.json"))]


def read(runs: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted(runs.glob(f"*/{name}"))]


@pytest.mark.parametrize("how", ["launch.workers=2", pytest.param("launch.snapshot=true", marks=pytest.mark.slow)])
def test_every_process_of_a_sweep_finds_a_package(tmp_path: Path, folders: Path, how: str) -> None:
    """Workers that are forked from this process, and those of a server that imports a snapshot of the sources."""
    site = install(tmp_path / "a site")
    done = run(["train.py", "-m", *SHORT, *CHOSEN, "seed=0,1", how], REPOSITORY, site)
    assert done.returncode == 0, said(done)
    assert states(folders) == ["done", "done"]
    for identity, provenance in zip(read(folders, "identity.json"), read(folders, "provenance.json"), strict=True):
        assert {n.group: identity["canonical"][n.group]["kind"] for n in NEWCOMERS} == KINDS
        assert provenance["components"] == dict.fromkeys(CHOSEN, "outsiders 1.5 (outsiders)")
    again = run(["train.py", "-m", *SHORT, *CHOSEN, "seed=0,1", how], REPOSITORY, site)
    assert re.search(r"already done:? +2", said(again)), said(again)


@pytest.mark.slow
def test_a_run_whose_package_is_gone_says_which(tmp_path: Path, folders: Path) -> None:
    """One sentence in its status, in `explain`, in `why`; other runs are not concerned."""
    site = install(tmp_path / "site")
    line = f"""
from pathlib import Path
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.sweep.grid import single
print(freeze(compose(single({[*SHORT, *CHOSEN]!r})), [], command="test").path)
"""
    folder = Path(run(["-c", line], REPOSITORY, site).stdout.strip())
    expected = "the run needs router=softplus of outsiders 1.5 (outsiders), balancer=sqrt of outsiders 1.5 (outsiders)"
    gone = run(["-m", "moe_sweeps.launch.work", str(folder)], REPOSITORY, None)
    assert gone.returncode == 1
    failure = json.loads((folder / "status.json").read_text())["failure"]
    assert failure["message"].startswith(expected), failure
    assert "which this Python does not have. Install it for " in failure["message"]
    for command in ("explain", "why"):
        found = run(["-c", MANAGE, command, folder.name, *(["seed=1"] if command == "why" else [])], REPOSITORY, None)
        assert found.returncode == 2, said(found)
        assert expected in said(found)
        assert "Traceback" not in said(found)
    refused = run(["train.py", *SHORT, "balancer=sqrt"], REPOSITORY, None)
    assert refused.returncode != 0
    assert "balancer=sqrt is refused: the options are aux" in said(refused)
    assert "Traceback" not in said(refused)
    back = run(["-m", "moe_sweeps.launch.work", str(folder)], REPOSITORY, site)
    assert back.returncode == 0, said(back)
    assert states(folders) == ["done"]


ANOTHER_AUX = """
from dataclasses import dataclass
from moe_sweeps.balancing import BalancerConfig
from moe_sweeps.config.registry import component

@component("balancer", "aux")
@dataclass(slots=True)
class AuxBalancerConfig(BalancerConfig):
    kind: str = "aux"
"""
OPTION = {"balancer/mine.yaml": yaml_of("balancer", "mine")}
BROKEN = {
    "that cannot be imported": ("import a_module_that_is_not_there", OPTION, "No module named"),
    "that raises": ("raise RuntimeError('by hand\\nand more')", OPTION, "RuntimeError: by hand"),
    "that takes a kind of ours": (ANOTHER_AUX, OPTION, "balancer=aux is registered twice"),
    "that takes an option of ours": ("x = 1", {"balancer/aux.yaml": "# Use\n"}, "balancer=aux exists already"),
    "without options": ("x = 1", {}, "there is no folder"),
    "of a group that is none": ("x = 1", {"balanser/mine.yaml": "# Use\n"}, "there is no config group balanser"),
}

IN_THE_GATE = ("that cannot be imported", "that raises", "without options")


@pytest.mark.parametrize(
    "fault", [fault if fault in IN_THE_GATE else pytest.param(fault, marks=pytest.mark.slow) for fault in BROKEN]
)
def test_a_package_that_cannot_be_used_stops_nothing_else(tmp_path: Path, folders: Path, fault: str) -> None:
    source, options, problem = BROKEN[fault]
    site = install(tmp_path, "broken_ones", source=source, options=options)
    look = "from moe_sweeps.experiment.schema import REGISTRY as r; print(sorted(r['balancer']), r['balancer']['aux'])"
    with_it, without = (run(["-c", look], REPOSITORY, path).stdout for path in (site, None))
    assert with_it == without != ""
    plain = run(["train.py", "--cfg", "balancer=aux"], REPOSITORY, site)
    assert plain.returncode == 0, said(plain)
    wanted = run(["train.py", "--cfg", "balancer=mine"], REPOSITORY, site)
    assert "balancer=mine is refused: the options are aux" in said(wanted)
    assert "broken-ones 1.5 (broken_ones) is left out: " in said(wanted)
    assert problem in said(wanted)
    assert "Traceback" not in said(wanted)


def test_doctor_and_help_show_what_packages_bring(tmp_path: Path, folders: Path) -> None:
    site = install(install(tmp_path), "broken_ones", source="1/0", options=OPTION)
    report = run(["-c", MANAGE, "doctor"], REPOSITORY, site)
    assert re.search(r"ok +components +outsiders 1\.5 \(outsiders\): balancer=sqrt, lr_split=slow_router", said(report))
    assert re.search(r"!! +components +broken-ones 1\.5 \(broken_ones\): ZeroDivisionError", said(report))
    assert re.search(r"^    softplus +Use to try softplus", run(["train.py", "--help"], REPOSITORY, site).stdout, re.M)
    found = run(["-c", MANAGE, "knobs", "lr_split.share"], REPOSITORY, site)
    assert "multiple of optimizer.base_lr for the router" in found.stdout
    page = run(["-c", MANAGE, "knobs", "--markdown"], REPOSITORY, site).stdout
    assert "lr_split.share" not in page  # docs/knobs.md is of the repository alone
    assert page == run(["-c", MANAGE, "knobs", "--markdown"], REPOSITORY, None).stdout
