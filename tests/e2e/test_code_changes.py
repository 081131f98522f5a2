"""A formula is edited, a comment is, a balancer is added, and the same line is typed again, as a person does it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from processes import manage, train

from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import RunDir

pytestmark = pytest.mark.usefixtures("real_data")
LINE = ("-m", "scale=smoke", "trainer.steps=8", "schedule.warmup_steps=2", "trainer.final_eval_sequences=8",
        "trainer.eval_sequences=8", "launch.workers=1", "launch.threads=1")  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository that may be edited; commands import from it."""
    root = tmp_path / "repository"
    for part in ("src", "conf", "sweeps", "tables"):
        shutil.copytree(REPOSITORY / part, root / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(REPOSITORY / "train.py", root)
    monkeypatch.setenv("PYTHONPATH", str(root / "src"))
    return root


def edit(copy: Path, file: str, old: str, new: str) -> None:
    path = copy / "src" / "moe_sweeps" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def add_the_balancer_of_contributing(copy: Path) -> None:
    for language, place in (("python", "src/moe_sweeps/balancing/sqrt.py"), ("yaml", "conf/balancer/sqrt.yaml")):
        found = re.search(rf"```{language}\n(.*?)```", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.DOTALL)
        assert found
        (copy / place).write_text(textwrap.dedent("   " + found.group(1).lstrip()))


@pytest.mark.slow
def test_the_plan_says_what_other_code_trained_and_retry_trains_it_again(folders: Path, copy: Path) -> None:
    line = [*LINE, "balancer=lossfree,aux"]
    first = train(*line, repository=copy)
    assert first.returncode == 0, first.stdout + first.stderr
    edit(copy, "balancing/lossfree.py", "from __future__", "# Only a comment.\nfrom __future__")
    add_the_balancer_of_contributing(copy)
    more = train(*[*LINE, "balancer=lossfree,aux,sqrt"], repository=copy)
    assert re.search(r"already done: 2 .*to run: 1\n", more.stdout)
    assert "other code" not in more.stdout
    assert "NOT FINAL" not in more.stdout  # yesterday's runs are compared with the new balancer
    assert more.returncode == 0, more.stdout + more.stderr

    edit(copy, "balancing/lossfree.py", "self.config.rate *", "2 * self.config.rate *")
    again = train(*line, repository=copy)
    assert re.search(r"already done: 2 .*to run: 0\n", again.stdout)
    assert "trained by other code: 1 (balancing/lossfree.py)" in again.stdout
    assert again.returncode == 3
    taken = train(*line, "--as-they-are", repository=copy)
    assert "trained by other code: 1" in taken.stdout
    assert taken.returncode == 0
    why = manage("why", *LINE[1:], "balancer=lossfree")
    assert "training code" in why.stdout
    assert "balancing/lossfree.py" in "".join(why.stdout.split()), why.stdout  # folded, and not cut, where it is narrow

    (told,) = re.findall(r"moe-sweeps (retry --done --other-code \w+)", again.stdout)
    old = {f.run_id: f.summary() for f in RunDir.all(folders)}
    retried = manage(*told.split())
    assert retried.returncode == 0, retried.stdout + retried.stderr
    new = {f.run_id: f.summary() for f in RunDir.all(folders)}
    (changed,) = (run_id for run_id in old if old[run_id] != new[run_id])
    folder = next(f for f in RunDir.all(folders) if f.run_id == changed)
    assert folder.path.name.startswith("smoke-lossfree")
    assert RunDir(folder.path / "superseded" / "1").summary() == old[changed]
    last = train(*line, repository=copy)
    assert "other code" not in last.stdout
    assert last.returncode == 0
    tables = subprocess.run(
        [sys.executable, "-c", "import sys; from moe_sweeps.cli.manage import main; sys.exit(main())", "tables"],
        capture_output=True, text=True, timeout=240, check=False, env=os.environ | {"COLUMNS": "160"},
    )  # fmt: skip
    assert "NOT FINAL" not in tables.stdout
    assert "superseded" not in tables.stdout
