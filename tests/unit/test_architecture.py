"""The floors of the house: a module's layer is its folder, and imports point down.

The tables below are the diagram of docs/architecture.md. They are all that is written by hand: a new module belongs to
the folder it lies in, and a new folder needs one line in each of the two.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from imports import Package
from newcomers import NEWCOMERS

from moe_sweeps.paths import REPOSITORY

# From the top down. Rooms of one floor do not import each other, and neither do the two sides.
TOP = (("cli",), ("sweep",))
MAKING_RUNS = (
    ("launch",),
    ("training",),
    ("experiment",),
    ("engines",),
    ("optim",),
    ("balancing",),
    ("model",),
    ("data", "distributed", "kernels"),
    ("config",),
)
READING_RUNS = (("tracking",), ("reports",), ("results",))
GROUND = (("records",), ("host",), ("credentials", "paths"), ("errors",))
SIDES = ((*TOP, *MAKING_RUNS, *GROUND), (*TOP, *READING_RUNS, *GROUND))
LIGHT = ("records", "results", "reports", "tracking")  # they know run folders, not the config, and need no torch
MOST_LOOSE = 5
ENTRIES = ("", "__main__")  # the package itself, and `python -m moe_sweeps`: below all rooms, and above all

PACKAGE = Package(REPOSITORY / "src" / "moe_sweeps")
MODULES = sorted(PACKAGE.files)
DIAGRAM = REPOSITORY / "docs" / "architecture.md"


def room_of(module: str) -> str:
    """The folder below the package, or the name of a loose module."""
    return module.partition(".")[0]


def below(room: str) -> set[str]:
    """The rooms that `room` may import besides itself."""
    if room == "":
        return set()
    if room == "__main__":
        return {"cli", "host"}  # host.program hears Ctrl-C before anything of cli is imported
    standing = [(side, level) for side in SIDES for level, floor in enumerate(side) if room in floor]
    assert standing, f"moe_sweeps/{room} stands on no floor: add it to docs/architecture.md and to this test"
    return {name for side, level in standing for floor in side[level + 1 :] for name in floor}


def upward(package: Package) -> set[str]:
    """Every import that does not point down, as `importer -> imported`."""
    found = set()
    for module in package.files:
        allowed = below(room_of(module)) | {room_of(module), ""}
        found |= {f"{module} -> {name}" for name in package.imports(module) if room_of(name) not in allowed}
    return found


def test_imports_point_down() -> None:
    assert upward(PACKAGE) == set()


def test_the_examples_of_new_components_point_down(tmp_path: Path) -> None:
    """The balancer of CONTRIBUTING.md and one of every other kind, where they would go."""
    package = Package(Path(shutil.copytree(PACKAGE.root, tmp_path / "moe_sweeps")))
    for new in NEWCOMERS:
        (package.root / new.package / f"{new.kind}.py").write_text(new.source)
    assert upward(package) == set()
    assert package.imports("balancing.sqrt") >= {"balancing.base", "config.registry", "config.run"}


def test_few_modules_lie_loose() -> None:
    loose = [name for name, path in PACKAGE.files.items() if path.parent == PACKAGE.root and name not in ENTRIES]
    assert len(loose) <= MOST_LOOSE, f"give one of {loose} a room"


def test_every_room_stands_on_one_floor() -> None:
    floors = [room for floor in (*TOP, *MAKING_RUNS, *READING_RUNS, *GROUND) for room in floor]
    assert sorted(floors) == sorted({room_of(module) for module in MODULES} - set(ENTRIES))


def _drawn(lines: Sequence[str]) -> list[tuple[str, ...]]:
    """Floors of a part of the diagram: `data, distributed    text into tokens` names two rooms."""
    named = [re.match(r"(\w+(?:, \w+)*)(?: {2,}|$)", line.strip()) for line in lines]
    return [tuple(sorted(found[1].split(", "))) for found in named if found]


def test_the_page_shows_these_floors() -> None:
    block = re.search(r"```\n(.*?)```", DIAGRAM.read_text(), re.DOTALL)
    assert block
    above, middle, ground = (part.splitlines() for part in re.split(r"^ *-{20,}$", block[1], flags=re.MULTILINE))
    left, right = zip(*(line.partition("|")[::2] for line in middle if line.strip()), strict=True)
    assert _drawn(above) == list(TOP)
    assert (_drawn(left), _drawn(right)) == (list(MAKING_RUNS), list(READING_RUNS))
    assert _drawn(ground) == list(GROUND)


UP = {
    "a module by the package's name": ("records/status.py", "from moe_sweeps import training"),
    "a name in it": ("records/status.py", "from moe_sweeps.training.trainer import Trainer"),
    "the plain form in a nested folder": ("reports/drawing/lines.py", "import moe_sweeps.training.trainer"),
    "under another name": ("config/registry.py", "import moe_sweeps.training.trainer as t"),
    "an __init__": ("balancing/__init__.py", "from moe_sweeps.training import trainer"),
    "the package's own __init__": ("__init__.py", "from moe_sweeps.errors import MoeSweepsError"),
    "for type checkers": (
        "model/router.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from moe_sweeps.training.trainer import Trainer",
    ),
    "a relative one": ("host/files.py", "from ..training import trainer"),
    "a relative one without a module": ("host/files.py", "from .. import training"),
    "a relative one out of a nested __init__": (
        "reports/drawing/__init__.py",
        "from ...training.trainer import Trainer",
    ),
    "inside a function": ("results/frame.py", "def late():\n    from moe_sweeps.training import trainer"),
    "by a literal": ("optim/build.py", "import importlib\nimportlib.import_module('moe_sweeps.training.trainer')"),
    "by a relative literal": (
        "optim/build.py",
        "from importlib import import_module\nimport_module('..training.trainer', __package__)",
    ),
    "by a name out of a table": (
        "optim/build.py",
        "from importlib import import_module\nHOMES = {'t': 'moe_sweeps.training.trainer'}\nimport_module(HOMES['t'])",
    ),
    "by __import__": ("optim/build.py", "__import__('moe_sweeps.training.trainer')"),
    "through the package": ("errors.py", "import moe_sweeps\n\ndef f():\n    return moe_sweeps.training.trainer"),
    "from the other side": ("results/frame.py", "from moe_sweeps.config import registry"),
    "from the other side, downwards": ("training/trainer.py", "from moe_sweeps.results import frame"),
    "of what is not there": ("model/router.py", "from moe_sweeps.cli.attic import rubbish"),
    "from the same floor": ("data/batches.py", "from moe_sweeps.distributed import ranks"),
}
ROOMS = (
    *("records", "results", "reports", "reports/drawing", "config", "balancing"),
    *("model", "host", "optim", "training", "data", "distributed"),
)


@pytest.fixture
def house(tmp_path: Path) -> Package:
    """A small house with the rooms of the real one, in which every import points down."""
    package = Package(tmp_path / "moe_sweeps")
    for room in ("", *ROOMS):
        (package.root / room).mkdir()
        (package.root / room / "__init__.py").write_text("")
    (package.root / "errors.py").write_text("import os\n")
    for name in ("training/trainer.py", "config/registry.py", "results/frame.py", "distributed/ranks.py"):
        (package.root / name).write_text("from moe_sweeps.errors import MoeSweepsError\n")
    (package.root / "training/__init__.py").write_text("from . import trainer\nfrom ..config import registry\n")
    assert upward(package) == set()
    return Package(package.root)  # one that has not read the files yet


@pytest.mark.parametrize("spelling", UP)
def test_an_import_from_above_is_seen_in_every_spelling(house: Package, spelling: str) -> None:
    file, source = UP[spelling]
    (house.root / file).write_text(source)
    module = file.removesuffix(".py").replace("/", ".").removesuffix("__init__").removesuffix(".")
    assert {importer for importer, _, _ in (found.partition(" -> ") for found in upward(house))} == {module}


@pytest.mark.parametrize(
    "source",
    [
        "from moe_sweeps.training import *",
        "from ..training import *",
        "from importlib import import_module\nimport_module(f'moe_sweeps.{name}')",
        "import importlib\nimportlib.import_module('moe_sweeps.' + name)",
    ],
)
def test_an_import_that_cannot_be_read_is_refused(house: Package, source: str) -> None:
    (house.root / "records/status.py").write_text(source)
    with pytest.raises(AssertionError, match=r"moe_sweeps\.records\.status"):
        upward(house)


def test_a_room_on_no_floor_is_refused(house: Package) -> None:
    (house.root / "attic").mkdir()
    (house.root / "attic" / "old.py").write_text("")
    with pytest.raises(AssertionError, match="moe_sweeps/attic stands on no floor"):
        upward(house)


@pytest.mark.parametrize("room", LIGHT)
def test_what_reads_runs_knows_neither_torch_nor_the_config(room: str) -> None:
    """In the sources, so that an import inside a function or for types counts too."""
    closed = PACKAGE.closure({module for module in MODULES if room_of(module) == room})
    assert {room_of(module) for module in closed} & {name for floor in MAKING_RUNS for name in floor} == set()
    assert [module for module in sorted(closed) if "torch" in PACKAGE.foreign(module)] == []


def test_a_closure_follows_functions_and_packages(house: Package) -> None:
    (house.root / "reports/drawing/lines.py").write_text("def draw():\n    from moe_sweeps.results import frame")
    (house.root / "reports/__init__.py").write_text("import moe_sweeps.host.files")
    (house.root / "host/files.py").write_text("import torch.nn")
    closed = house.closure({"reports.drawing.lines"})
    assert closed >= {"", "reports", "reports.drawing", "results.frame", "errors", "host.files"}
    assert [module for module in closed if "torch" in house.foreign(module)] == ["host.files"]


@pytest.mark.parametrize("room", LIGHT)
def test_they_are_imported_without_torch(room: str) -> None:
    """As they are run, with whatever the libraries that they use import themselves."""
    names = [f"moe_sweeps.{m}" for m in MODULES if room_of(m) == room and not m.endswith("__main__")]
    heavy = "{'torch', 'hydra', 'omegaconf', 'moe_sweeps.config'}"
    source = f"import sys, importlib\nfor m in {names}: importlib.import_module(m)\nprint({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.returncode) == ("set()", 0), done.stderr


def test_tests_lie_in_the_rooms_of_what_they_test() -> None:
    unit = REPOSITORY / "tests" / "unit"
    tested = {path.parent.relative_to(unit).as_posix() for path in unit.rglob("test_*.py")} - {"."}
    assert [name for name in sorted(tested - {"benchmarks"}) if not (PACKAGE.root / name).is_dir()] == []


@pytest.mark.parametrize("module", [m for m in MODULES if m])
def test_a_module_with_a_main_runs_it(module: str) -> None:
    """`python -m` on a module that only defines its main says nothing and exits 0, as if it had worked."""
    tree = PACKAGE.tree(module)
    if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
        assert any(isinstance(n, ast.If) and ast.unparse(n.test) == "__name__ == '__main__'" for n in tree.body)
