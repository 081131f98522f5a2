"""A package that was installed without -e: it carries what commands read, and works in any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import compose_run

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.experiment.code_version import code_version
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.records.rundir import RunDir, State

GIVEN = ("conf", "sweeps", "tables", "reference")
BUILT_FROM = ("src", *GIVEN, "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "train.py")
SHORT = (
    "scale=smoke", "trainer.steps=2", "schedule.warmup_steps=1", "trainer.eval_sequences=8",
    "trainer.final_eval_sequences=8", "launch.threads=1", "launch.workers=1",
)  # fmt: skip

pytestmark = [
    pytest.mark.xdist_group("install"),  # the wheel is built once
    pytest.mark.skipif(find_spec("setuptools") is None, reason="setuptools builds the wheel, and is not installed"),
]


@dataclass(frozen=True)
class Installed:
    """A clone's copy, and the package that was built and installed from it."""

    clone: Path
    site: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Without the folders of this session; `site` comes before the sources that are installed with -e."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MOE_SWEEPS_")}
        return kept | {"PYTHONPATH": str(self.site), "COLUMNS": "200"} | more

    def run(self, *words: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """`moe-sweeps ...` in the folder `cwd`."""
        line = [str(self.site / "bin" / "moe-sweeps"), *words]
        return subprocess.run(
            line, cwd=cwd, env=self.environment(**more), capture_output=True, text=True, timeout=240, check=False
        )

    def files(self) -> set[str]:
        found = (p.relative_to(self.site) for p in self.site.rglob("*") if p.is_file())
        return {p.as_posix() for p in found if "__pycache__" not in p.parts}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Paths with spaces; an earlier build left a module behind that is no longer there."""
    clone, wheels, site = (tmp_path_factory.mktemp(name) for name in ("a clone", "wheels", "site of its own"))
    for name in BUILT_FROM:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, clone / name)
    (clone / "build" / "lib" / "moe_sweeps").mkdir(parents=True)
    (clone / "build" / "lib" / "moe_sweeps" / "stale.py").write_text("")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    alone = ["--no-deps", "--no-index"]
    _call(*pip, "wheel", *alone, "--no-build-isolation", "--wheel-dir", str(wheels), ".", cwd=clone)
    (wheel,) = wheels.iterdir()
    _call(*pip, "install", *alone, "--target", str(site), str(wheel), cwd=wheels)
    return Installed(clone, site)


def _call(*line: str, cwd: Path) -> None:
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working directory far from any clone."""
    folder = tmp_path / "some where"
    folder.mkdir()
    return folder


def test_it_carries_every_file_that_commands_read(installed: Installed) -> None:
    given = {p.relative_to(REPOSITORY).as_posix(): p for name in GIVEN for p in (REPOSITORY / name).rglob("*.*")}
    assert len(given) > 60
    for name, path in given.items():
        assert (installed.site / "moe_sweeps" / "shipped" / name).read_bytes() == path.read_bytes()
    found = installed.files()
    assert "moe_sweeps/kernels/kernels.cpp" in found
    assert "moe_sweeps/stale.py" not in found


def test_a_source_distribution_has_what_the_wheel_is_built_from(installed: Installed, tmp_path: Path) -> None:
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    _call(sys.executable, "-c", code, cwd=installed.clone)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    given = {p.relative_to(REPOSITORY).as_posix() for folder in GIVEN for p in (REPOSITORY / folder).rglob("*.*")}
    assert given | {"setup.py", "src/moe_sweeps/kernels/kernels.cpp"} <= names


def test_commands_work_in_any_folder_and_plans_leave_nothing_there(installed: Installed, here: Path) -> None:
    plan = installed.run("plan", "sweep=aux_coef", "scale=smoke", cwd=here)
    assert plan.returncode == 0, plan.stderr
    assert "distinct runs" in plan.stdout
    shown = installed.run("train", "--help", cwd=here)
    assert "usage: moe-sweeps train" in shown.stdout, shown.stderr
    assert "python train.py" not in shown.stdout
    assert "lossfree" in shown.stdout
    assert "`moe-sweeps train --cfg` prints every key" in installed.run("plan", "qqqqq=1", cwd=here).stderr
    (line,) = [x for x in installed.run("doctor", cwd=here).stdout.splitlines() if x.split()[1:2] == ["install"]]
    assert line.startswith("ok ")
    assert str(installed.site) in line
    assert "lie in the working directory" in line
    assert list(here.iterdir()) == []


def test_runs_and_reports_lie_in_the_working_directory(installed: Installed, here: Path, real_data: TokenData) -> None:
    """Of two workers one imports a snapshot of the package, the other the package itself."""
    before, data = installed.files(), str(real_data.folder.parent)
    for line in (("seed=0", "launch.snapshot=true"), ("seed=0,1", "launch.snapshot=false")):
        done = installed.run("train", "-m", *SHORT, *line, cwd=here, MOE_SWEEPS_DATA=data)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "already done: 1 (" in done.stdout
    assert "to run: 1\n" in done.stdout
    assert installed.files() == before
    assert (here / "reports" / "runs.csv").is_file()
    folders = RunDir.all(here / "runs")
    assert [folder.status().state for folder in folders] == [State.done] * 2
    for provenance in (folder.provenance() for folder in folders):
        clones = code_version(compose_run(*SHORT)).version
        assert [a["source_hash"] for a in provenance["attempts"]] == [clones]
        assert provenance["git"] == {}
    assert sum(bool(folder.provenance()["snapshot"]) for folder in folders) == 1


def test_a_slurm_job_imports_it_and_starts_in_the_folder_of_its_submission(installed: Installed, here: Path) -> None:
    line = ("train", "-m", *SHORT[:-1], "launch=slurm", "launch.dry_run=true")
    shown = installed.run(*line, cwd=here, PATH="").stdout
    assert f"export PYTHONPATH='{installed.site}'" in shown
    assert f"export MOE_SWEEPS_HOME='{here}'" in shown


def test_folders_that_are_missing_are_one_sentence(installed: Installed, here: Path, tmp_path: Path) -> None:
    broken = Installed(installed.clone, tmp_path / "site")
    shutil.copytree(installed.site, broken.site)
    shutil.rmtree(broken.site / "moe_sweeps" / "shipped" / "conf")
    said = f"error: conf/ should be in {broken.site / 'moe_sweeps' / 'shipped'}, and cannot be found. Install again"
    for words in (
        ["plan", "seed=1"],
        ["status"],
        ["train", "seed=1"],
        ["train", "-m", "seed=1"],
        ["tables"],
        ["knobs"],
    ):
        done = broken.run(*words, cwd=here)
        assert done.returncode == 2, words
        assert done.stderr.startswith(said), words
        assert done.stderr.count("\n") == 1, words
    doctor = broken.run("doctor", cwd=here)
    assert "!!  install" in doctor.stdout
    assert "lacks conf/: no command can work" in doctor.stdout
    assert broken.run("train", "--help", cwd=here).returncode == 0


@pytest.mark.parametrize("other", ["package", "clone"])
def test_train_py_of_a_clone_runs_the_sources_of_the_clone(installed: Installed, here: Path, other: str) -> None:
    """Also where another copy, or another clone with -e, is installed: what its reader edits is what counts."""
    (installed.clone / "conf" / "balancer" / "edited.yaml").write_text("# Use never.\ndefaults: [none, _self_]\n")
    where = {} if other == "package" else {"PYTHONPATH": str(REPOSITORY / "src")}
    line = [sys.executable, str(installed.clone / "train.py"), "--help"]
    done = subprocess.run(
        line, cwd=here, env=installed.environment(**where), capture_output=True, text=True, timeout=120, check=False
    )
    assert "edited" in done.stdout, done.stderr
    assert "usage: python train.py" in done.stdout
