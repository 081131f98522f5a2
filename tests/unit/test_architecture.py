"""Imports point down: the layers of docs/architecture.md, and what each may import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from moe_sweeps.paths import REPOSITORY

PACKAGE = REPOSITORY / "src" / "moe_sweeps"
BOTTOM = ["errors", "files", "paths", "status", "rundir", "provenance", "snapshot", "keys", "mirroring"]
REGISTRY = ["config.registry", "config.groups", "config.search", "config.tracking"]
MEASURING = ["load", "metrics", "meters", "health", "routing_samples", "stopwatch"]
PARALLEL = ["checkpoint", "saving", "distributed", "sharding", "randomness"]
COMPONENTS = ["kernels", "model", "balancing", "optim", "data", "engines", *PARALLEL, *MEASURING]
CONFIG = ["config.schema", "config.compose", "config.frozen", "identity", "hardware"]
TRAINING = ["trainer", "gradients", "journal", "evaluate", "monitor", "run_report", "freeze"]
LAYERS = [BOTTOM, REGISTRY, COMPONENTS, CONFIG, TRAINING, ["worker"], ["sweep"], ["results"], ["tracking"], ["cli"]]


def layer_of(module: str) -> int:
    for level, members in enumerate(LAYERS):
        if any(module == m or module.startswith(f"{m}.") for m in members):
            return level
    raise AssertionError(f"moe_sweeps.{module} belongs to no layer; add it to docs/architecture.md and here")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> list[str]:
    """Modules of ours that a file imports at run time; imports for type checkers alone do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    return [name.removeprefix("moe_sweeps.") for name in found if name.startswith("moe_sweeps.")]


SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    own = layer_of(module_name(path))
    upward = [name for name in imports(path) if layer_of(name) > own]
    assert not upward, f"{module_name(path)} imports {upward} from above"


@pytest.mark.parametrize("path", sorted((PACKAGE / "results").glob("*.py")), ids=lambda p: p.stem)
def test_results_read_files_and_nothing_else(path: Path) -> None:
    allowed = ("results", *BOTTOM)
    assert all(name.split(".")[0] in allowed for name in imports(path))


@pytest.mark.parametrize("path", sorted((PACKAGE / "tracking").glob("*.py")), ids=lambda p: p.stem)
def test_a_mirror_starts_without_torch_and_config(path: Path) -> None:
    allowed = ("tracking", "results", *BOTTOM)
    assert all(name.split(".")[0] in allowed for name in imports(path))
