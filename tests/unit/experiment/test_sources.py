"""Which sources a module can execute, and what of a source counts: on a small package made for each test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moe_sweeps.experiment.sources import Sources

OPTION = """
from dataclasses import dataclass
from moe_sweeps.registry import component

@dataclass
class BaseConfig: ...

@component("balancer", "own")
@dataclass
class OwnConfig(BaseConfig): ...

def formula(x):
    return 2 * x
"""
FILES = {"__init__.py": "", "worker.py": "", "registry.py": "def component(*a): ...", "option.py": OPTION,
         "other.py": "x = 1", "third.py": "y = 1", "group/__init__.py": "", "group/one.py": "class One: ...",
         "group/two.py": "class Two: ..."}  # fmt: skip


def sources(root: Path, worker: str = "", group: str = "") -> Sources:
    files = FILES | {"worker.py": worker, "group/__init__.py": group}
    for name, text in files.items():
        path = root / "moe_sweeps" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sources(root)


def executed(root: Path, worker: str, *chosen: str, group: str = "") -> set[str]:
    return set(sources(root, worker, group).executed(["moe_sweeps.worker"], frozenset(chosen))) - {"worker.py"}


def digest(root: Path, text: str) -> str:
    return sources(root, text).executed(["moe_sweeps.worker"])["worker.py"]


FORMULA = 'def f(x):\n    """Twice."""\n    return 2 * x  # twice\n'
SAME = {
    "comment": FORMULA.replace("# twice", "# two times"),
    "docstring": FORMULA.replace("Twice.", "Two times x."),
    "no docstring": FORMULA.replace('    """Twice."""\n', ""),
    "module docstring": '"""Doubles."""\n\n' + FORMULA,
    "layout": "def f(x):\n    return (\n        2\n        * x\n    )\n",
    "type-only import": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import os\n" + FORMULA,
}
OTHER = {
    "number": FORMULA.replace("2 *", "3 *"),
    "float": FORMULA.replace("2 *", "2.0 *"),
    "operator": FORMULA.replace("*", "+"),
    "name": FORMULA.replace("f(x)", "g(x)"),
    "default": FORMULA.replace("(x)", "(x=None)"),
    "text that is used": FORMULA.replace("2 *", "'2' *"),
    "order": FORMULA.replace("2 * x", "x * 2"),
    "async": "async " + FORMULA,
}


@pytest.mark.parametrize("kind", SAME)
def test_what_a_reader_alone_sees_does_not_count(tmp_path: Path, kind: str) -> None:
    text = SAME[kind]
    plain = "from typing import TYPE_CHECKING\n" + FORMULA if "TYPE_CHECKING" in text else FORMULA
    assert digest(tmp_path / "a", text) == digest(tmp_path / "b", plain)


CONFIG = """
from enum import Enum
class Noise(Choice):
    none = "none"
    fixed = "fixed", "z + N(0, 1)"
class Config:
    rate: float = knob(0.1, gt=0, doc="size of a step")
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        (', doc="size of a step"', "", False),
        ("size of a step", "how far it goes", False),
        ('"fixed", "z + N(0, 1)"', '"fixed"', False),
        ("z + N(0, 1)", "with noise", False),
        ("knob(0.1", "knob(0.2", True),
        ("gt=0", "ge=0", True),
        ('"fixed", "z', '"other", "z', True),
        ("knob(", "field(", True),
        ("(Choice)", "(Enum)", True),
    ],
)
def test_documentation_of_knobs_does_not_count(tmp_path: Path, old: str, new: str, counts: bool) -> None:
    assert CONFIG.count(old) == 1
    assert (digest(tmp_path / "a", CONFIG.replace(old, new)) != digest(tmp_path / "b", CONFIG)) == counts


@pytest.mark.parametrize("kind", OTHER)
def test_what_is_executed_counts(tmp_path: Path, kind: str) -> None:
    assert digest(tmp_path / "a", OTHER[kind]) != digest(tmp_path / "b", FORMULA)


def test_a_hash_is_the_same_in_every_version_of_python(tmp_path: Path) -> None:
    """The number is that of Python 3.11; ast.dump differs between versions, the text that is hashed must not."""
    assert digest(tmp_path, FORMULA) == "5eb1bafc"


FOLLOWED = {
    "import moe_sweeps.other": {"other.py"},
    "from moe_sweeps.other import x": {"other.py"},
    "from moe_sweeps.other import *": {"other.py"},
    "from moe_sweeps import other": {"other.py"},
    "from . import other": {"other.py"},
    "from .other import x as y": {"other.py"},
    "def f():\n    from moe_sweeps.other import x": {"other.py"},
    "try:\n    import moe_sweeps.other\nexcept ImportError:\n    import moe_sweeps.third": {"other.py", "third.py"},
    "match 1:\n    case 1:\n        import moe_sweeps.other": {"other.py"},
    "with open('x'):\n    import moe_sweeps.other": {"other.py"},
    "import importlib\nimportlib.import_module('moe_sweeps.other')": {"other.py"},
    "if TYPE_CHECKING:\n    import moe_sweeps.other\nelse:\n    import moe_sweeps.third": {"third.py"},
    "import typing\nif typing.TYPE_CHECKING:\n    import moe_sweeps.other": set(),
    "import torch, numpy.random": set(),
    "import moe_sweeps.no_such_module": set(),
}


@pytest.mark.parametrize("text", FOLLOWED)
def test_imports_are_followed_wherever_they_can_be_executed(tmp_path: Path, text: str) -> None:
    assert executed(tmp_path, text) == FOLLOWED[text]


def test_a_name_that_a_package_passes_on_leads_to_its_module_alone(tmp_path: Path) -> None:
    passes_on = "from moe_sweeps.group.one import One as First\nfrom .two import Two\nHERE = 1\n"
    found = {
        "from moe_sweeps.group import First": {"group/one.py"},
        "from moe_sweeps.group import Two": {"group/two.py"},
        "from moe_sweeps.group import HERE": {"group/__init__.py", "group/one.py", "group/two.py"},
        "import moe_sweeps.group": {"group/__init__.py", "group/one.py", "group/two.py"},
    }
    for text, files in found.items():
        assert executed(tmp_path, text, group=passes_on) == files, text


OF_AN_OPTION = {
    "isinstance(x, OwnConfig)": set(),
    "TYPES = {'own': OwnConfig}": set(),
    "def f(c: BaseConfig) -> OwnConfig: ...": set(),
    "OwnConfig()": {"option.py", "registry.py"},
    "class Mine(OwnConfig): ...": {"option.py", "registry.py"},
    "OwnConfig.LIMIT": {"option.py", "registry.py"},
}


@pytest.mark.parametrize("use", OF_AN_OPTION)
def test_an_options_class_that_is_only_compared_with_executes_nothing(tmp_path: Path, use: str) -> None:
    assert executed(tmp_path, f"from moe_sweeps.option import BaseConfig, OwnConfig\n{use}") == OF_AN_OPTION[use]


def test_a_formula_of_an_option_counts_wherever_it_is_imported(tmp_path: Path) -> None:
    assert executed(tmp_path, "from moe_sweeps.option import formula") == {"option.py", "registry.py"}


GUARDED = [
    "if isinstance(c, AConfig):\n    import moe_sweeps.other",
    "if isinstance(c, (AConfig, BConfig)) and c.files:\n    import moe_sweeps.other",
    "if isinstance(c, AConfig | BConfig):\n    import moe_sweeps.other",
    "def f(c):\n    if not isinstance(c, AConfig):\n        return\n    import moe_sweeps.other",
    "def f(c):\n    if not isinstance(c, AConfig) or c.x:\n        raise ValueError\n    import moe_sweeps.other",
    "def f(c):\n    assert isinstance(c, AConfig)\n    import moe_sweeps.other",
]
NOT_GUARDED = [
    "if isinstance(c, AConfig) or c.x:\n    import moe_sweeps.other",
    "if isinstance(c, AConfig):\n    pass\nelse:\n    import moe_sweeps.other",
    "if not isinstance(c, AConfig):\n    import moe_sweeps.other",
    "if isinstance(c, Path):\n    import moe_sweeps.other",
    "def f(c):\n    if not isinstance(c, AConfig):\n        c = 1\n    import moe_sweeps.other",
    "def f(c):\n    if not isinstance(c, AConfig) and c.x:\n        return\n    import moe_sweeps.other",
    "def f(c):\n    import moe_sweeps.other\n    assert isinstance(c, AConfig)",
    "def f(c):\n    if not isinstance(c, AConfig):\n        return\ndef g(c):\n    import moe_sweeps.other",
]


@pytest.mark.parametrize("text", GUARDED)
def test_what_is_imported_for_an_option_counts_where_it_is_chosen(tmp_path: Path, text: str) -> None:
    assert executed(tmp_path, text, "BConfig" if "BConfig" in text else "AConfig") == {"other.py"}
    assert executed(tmp_path, text, "CConfig") == set()


@pytest.mark.parametrize("text", NOT_GUARDED)
def test_what_may_be_imported_without_it_counts_always(tmp_path: Path, text: str) -> None:
    assert executed(tmp_path, text, "CConfig") == {"other.py"}


def test_sources_are_those_of_when_they_were_read(tmp_path: Path) -> None:
    before = sources(tmp_path, FORMULA)
    (tmp_path / "moe_sweeps" / "worker.py").write_text("ruined(")
    now = Sources(tmp_path).executed(["moe_sweeps.worker"])
    assert before.executed(["moe_sweeps.worker"]) != now
    assert before.executed(["moe_sweeps.worker"])["worker.py"] == digest(tmp_path / "other", FORMULA)


def test_a_file_that_is_no_python_counts_by_its_bytes(tmp_path: Path) -> None:
    assert digest(tmp_path / "a", "def (") != digest(tmp_path / "b", "def  (")


def test_a_module_elsewhere_counts_with_what_lies_beside_it(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "mine.py").write_text("import helper, json\nfrom moe_sweeps.other import x\nfrom pkg.deep import z")
    (lab / "helper.py").write_text("h = 1")
    (lab / "pkg").mkdir()
    (lab / "pkg" / "deep.py").write_text("from . import deeper")
    (lab / "pkg" / "deeper.py").write_text("")
    found = sources(tmp_path / "src")
    found.add("mine", lab / "mine.py")
    assert set(found.executed(["mine"])) == {"mine.py", "helper.py", "other.py", "pkg/deep.py", "pkg/deeper.py"}


def test_of_installed_packages_only_the_options_own_counts(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    for package, text in (("lab", "from lab.inner import x\nimport vendor"), ("vendor", "")):
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").write_text(text)
    (site / "lab" / "inner.py").write_text("x = 1")
    found = sources(tmp_path / "src")
    found.add("lab", site / "lab" / "__init__.py")
    assert set(found.executed(["lab"])) == {"lab/__init__.py", "lab/inner.py"}


def test_a_module_without_a_file_is_unknown_and_stops_nothing(tmp_path: Path) -> None:
    found = sources(tmp_path)
    found.add("gone", tmp_path / "gone.py")
    assert found.executed(["gone"]) == {"gone": "unknown"}


if sys.version_info >= (3, 12):

    def test_new_syntax_is_read(tmp_path: Path) -> None:
        assert digest(tmp_path / "a", "type A = int") != digest(tmp_path / "b", "type A = str")
