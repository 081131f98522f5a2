"""What CONTRIBUTING.md shows besides its balancer (tests/unit/balancing/test_new_balancer.py) is as it says."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from newcomers import NEWCOMERS, example

from moe_sweeps.config.registry import knob
from moe_sweeps.paths import REPOSITORY

PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text()
# group, folder, base class, what it defines, contract
KINDS = re.findall(r"^\| `(\w+)`[^|]* \| `([\w/]+)/` \| `([\w.]+)` \| (.+?) \| `([\w/.]+\.py)`", PAGE, re.MULTILINE)


def test_the_table_has_every_kind_that_is_added_so() -> None:
    assert {kind[0] for kind in KINDS} == {new.group for new in NEWCOMERS}


@pytest.mark.parametrize(("group", "folder", "base", "defines", "contract"), KINDS, ids=[kind[0] for kind in KINDS])
def test_the_table_of_kinds_is_true(group: str, folder: str, base: str, defines: str, contract: str) -> None:
    (new,) = (new for new in NEWCOMERS if new.group == group)
    assert new.package == folder
    module, _, name = base.rpartition(".")
    assert name in new.source
    cls = getattr(import_module(f"moe_sweeps.{module}"), name)
    named = [word.partition("(")[0] for word in re.findall(r"`([a-zA-Z_]+(?:\([^`]*\))?)`", defines)]
    inherited = [word for word in named if hasattr(cls, word)]
    assert named[0] in inherited, f"{base} has no {named[0]}"
    assert (REPOSITORY / "tests" / "contracts" / Path(contract).name).is_file()


def test_every_argument_of_knob_is_explained() -> None:
    explained = set(re.findall(r"(\w+)=", "".join(re.findall(r"^- `knob\(.*\)`", PAGE, re.MULTILINE))))
    assert explained == set(inspect.signature(knob).parameters) - {"default"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package outside the repository, with the files that the page lists, as pip would leave it."""
    (tree,) = re.findall(r"```\n(my_experts/\n.*?)```", PAGE, re.DOTALL)
    said = dict(re.findall(r"^  (\S+) {2,}(\S.*(?:\n {20,}\S.*)*)$", tree, re.MULTILINE))
    files = re.findall(r"^  (\S+\.\w+)", tree, re.MULTILINE)
    assert files[0] == "pyproject.toml"
    texts = {".py": example("python"), ".yaml": example("yaml")}
    for name in files[1:]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said[name] if path.name == "__init__.py" else texts[path.suffix])
    project = tomllib.loads(re.sub(r"\n +", "\n", said["pyproject.toml"]))
    (entries,) = project["project"]["entry-points"].items()
    about = tmp_path / "my_experts-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-experts\nVersion: 1.0\n")
    lines = [f"[{entries[0]}]", *(f"{name} = {module}" for name, module in entries[1].items())]
    (about / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


def test_the_package_outside_the_repository_is_found(package: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(package)}
    line = [sys.executable, "train.py", "--cfg", "balancer=sqrt"]
    done = subprocess.run(
        line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["balancer"] == {"kind": "sqrt", "rate": 0.001}
