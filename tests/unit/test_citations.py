"""What docs, comments, docstrings and messages point to is there: files, modules, make targets."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from moe_sweeps.paths import REPOSITORY

FOLDERS = ("src", "tests", "benchmarks", "docs", "conf", "sweeps", "tables", "reference", "analysis", ".ci")
EXAMPLES = {
    "sqrt.py",
    "sqrt.yaml",
    "test_sqrt.py",
    "mine.yaml",
    "NAME.yaml",
    "README.de.md",
    "dataset_card.md",
}  # of what a reader would write
# A name with an ending, of which neither side goes on: `model/fused.py`, but not `metrics.jsonl` or `*.yaml`.
CITED = re.compile(
    r"(?<![\w./$<{~*-])((?:[\w.-]+/)*[\w-][\w.-]*\.(?:py|md|ya?ml|toml|cpp|ipynb|csv|sh))(?![\w*/]|\.\w)"
)
MODULE = re.compile(r"(?<!\.)\bmoe_sweeps(?:\.[a-z_]+)+\b(?!\.py)")
ENTRY_POINTS = "moe_sweeps.components"  # no module: what installed packages call their components by
TARGET = re.compile(r"`make ([a-z][a-z-]*)")


def project_files() -> list[Path]:
    below = (p for folder in FOLDERS for p in (REPOSITORY / folder).rglob("*"))
    found = [
        p
        for p in [*below, *REPOSITORY.iterdir(), REPOSITORY / "results" / "README.md"]
        if p.is_file() and "__pycache__" not in p.parts
    ]
    return [p for p in found if "stored_runs" not in p.parts]


FILES = project_files()
NAMES = {f"/{p.relative_to(REPOSITORY).as_posix()}" for p in FILES}
READ = [p for p in FILES if p.suffix in (".py", ".md", ".yaml", ".toml", ".cpp") or p.name in ("Makefile", "run")]


def written_names() -> set[str]:
    """Files that commands write, which the sources therefore name in a string: runs.csv, overrides.yaml."""
    sources = [p for p in READ if p.suffix == ".py" and "src" in p.parts]
    strings = [n.value for p in sources for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.Constant)]
    return {s for s in strings if isinstance(s, str) and "/" not in s and CITED.fullmatch(s)}


def prose(path: Path) -> Iterator[str]:
    """What a file says to people: all of a document; of Python its comments, docstrings and, in src, its messages."""
    text = path.read_text()
    if path.suffix != ".py":
        yield text
        return
    yield from (t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "src" in path.parts:
            yield from re.findall(r"docs/\w+\.md", node.value)


WRITTEN = written_names()


def is_there(cited: str, where: Path) -> bool:
    """Whether a file ends in that path, as a reader of `optim/groups.py` finds it.

    A name without a folder is looked for among the neighbours of the file that says it: sources know no benchmark.
    """
    top = where.relative_to(REPOSITORY).parts[0]
    far = "/" in cited or where.suffix != ".py"
    found = [known for known in NAMES if known.endswith(f"/{cited}")]
    own = [known for known in found if known.count("/") == 1 or known.split("/")[1] in (top, "src")]
    return bool(found if far else own) or cited.rsplit("/", 1)[-1] in WRITTEN | EXAMPLES


@pytest.mark.parametrize("path", READ, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_every_file_and_module_that_is_cited_exists(path: Path) -> None:
    said = "\n".join(prose(path))
    assert [cited for cited in CITED.findall(said) if not is_there(cited, path)] == []
    assert [name for name in MODULE.findall(said) if not exists(name)] == []


def exists(name: str) -> bool:
    """A module, or something in one."""
    if name == ENTRY_POINTS:
        return True
    outer, _, last = name.rpartition(".")
    try:
        if find_spec(name) is not None:
            return True
    except ModuleNotFoundError:  # `outer` is no package
        pass
    source = find_spec(outer)
    return bool(source and source.origin and re.search(rf"\b{last}\b", Path(source.origin).read_text()))


@pytest.mark.parametrize("path", [p for p in READ if p.suffix == ".md"], ids=lambda p: p.name)
def test_every_make_target_that_is_cited_exists(path: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert [name for name in TARGET.findall(path.read_text()) if name not in targets] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("See render.py for it", ["render.py"]),
        ("`model/fused.py`, and docs/data.md.", ["model/fused.py", "docs/data.md"]),
        ("sweeps/*.yaml, <name>.yaml, metrics.jsonl, a.py.bak", []),
        ("(benchmarks/run.py)", ["benchmarks/run.py"]),
    ],
)
def test_what_counts_as_citing_a_file(text: str, found: list[str]) -> None:
    assert CITED.findall(text) == found


def test_what_is_not_there_is_noticed() -> None:
    source, test = (REPOSITORY / name for name in ("src/moe_sweeps/results/tables.py", "tests/unit/test_citations.py"))
    assert is_there("rows.py", source)
    assert is_there("reports/rows.py", test)
    assert is_there("runs.csv", source)  # a command writes it
    assert not is_there("render.py", source)  # it is a benchmark
    assert not is_there("model/rows.py", source)
    assert not exists("moe_sweeps.results.nothing")
    assert exists("moe_sweeps.__version__")
    assert not exists("moe_sweeps.nothing")
