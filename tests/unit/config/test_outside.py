"""Entry points of installed packages that are hostile in ways of their own."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from newcomers import yaml_of

from moe_sweeps.config import outside
from moe_sweeps.config.registry import source_of
from moe_sweeps.experiment.schema import REGISTRY
from moe_sweeps.paths import CONF, REPOSITORY

SOURCE = REPOSITORY / "src" / "moe_sweeps"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is imported from, in a process that has looked for no package yet."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(outside, "_found", [])
    before = {group: dict(kinds) for group, kinds in REGISTRY.items()}
    yield tmp_path
    REGISTRY.clear()
    REGISTRY.update(before)
    for name in [name for name in sys.modules if name.startswith("guest")]:
        del sys.modules[name]


def guest(site: Path, name: str, source: str, entry: str = "", metadata: str = "Name: guest\nVersion: 2\n") -> None:
    package, about = site / name, site / f"{name}-2.dist-info"
    (package / "conf" / "balancer").mkdir(parents=True)
    (package / "conf" / "balancer" / f"{name}.yaml").write_text(yaml_of("balancer", name))
    (package / "__init__.py").write_text(source)
    about.mkdir()
    (about / "entry_points.txt").write_text(f"[moe_sweeps.components]\n{entry or f'x = {name}'}\n")
    if metadata:
        (about / "METADATA").write_text(metadata)


def found() -> list[outside.Outside]:
    outside.load_components(CONF)
    return [one for one in outside.outside() if one.module.startswith(("guest", "moe_sweeps"))]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("raise SystemExit", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class Odd(BaseException): ...\nraise Odd('of its own')", "Odd: of its own"),
        ("1 +", "SyntaxError"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_one_that_ends_the_process_or_cannot_be_read_is_left_out(site: Path, source: str, problem: str) -> None:
    guest(site, "guest_a", source)
    guest(site, "guest_b", "x = 1")
    first, second = found()
    assert first.problem.startswith(problem)
    assert (first.conf, second.problem) == (None, "")
    assert outside.conf_folders()[-1] == site / "guest_b" / "conf"


def test_ctrl_c_while_a_package_is_imported_is_ctrl_c(site: Path) -> None:
    guest(site, "guest_a", "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        found()
    assert signal.getsignal(signal.SIGINT) is before


PRINTS = """
import logging, os, subprocess, sys
print("hello from guest")
print("hello from guest", file=sys.stderr)
print("hello from guest", file=sys.__stdout__)
os.write(1, b"hello from guest")
subprocess.run(["echo", "hello from guest"])
try:
    input("your name? ")
except EOFError:
    pass
logging.basicConfig()
"""
ASKED = """
import logging
print("before")
from moe_sweeps.config import outside
import moe_sweeps.experiment.schema
print([(one.module, one.problem) for one in outside.outside()])
logging.warning("said later")
"""


def test_what_a_package_prints_at_import_is_dropped_and_the_package_is_used(site: Path) -> None:
    """A process of its own: capturing here would take part of the output before it could be dropped."""
    guest(site, "guest_a", PRINTS)
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert done.stdout == "before\n[('guest_a', '')]\n"
    assert done.stderr == "WARNING:root:said later\n"  # logging kept the stream of the import, which speaks again


def test_what_it_registered_before_it_failed_is_forgotten(site: Path) -> None:
    lines = "from moe_sweeps.balancing import NoBalancerConfig\nfrom moe_sweeps.config.registry import REGISTRY\n"
    guest(site, "guest_a", lines + "REGISTRY['balancer']['half'] = NoBalancerConfig\n1/0")
    assert "ZeroDivisionError" in found()[0].problem
    assert "half" not in REGISTRY["balancer"]


def test_one_without_metadata_is_called_by_its_entry_point(site: Path) -> None:
    guest(site, "guest_a", "x = 1", entry="by_name = guest_a", metadata="")
    (one,) = found()
    assert one.problem == ""
    assert one.module == "guest_a"


def test_two_names_of_one_module_are_one(site: Path) -> None:
    guest(site, "guest_a", "x = 1", entry="one = guest_a\ntwo = guest_a:thing")
    assert [one.module for one in found()] == ["guest_a"]


def test_two_packages_with_one_option_keep_the_first(site: Path) -> None:
    for name in ("guest_a", "guest_b"):
        guest(site, name, "x = 1")
        (site / name / "conf" / "balancer" / "same.yaml").write_text(yaml_of("balancer", "same"))
    first, second = found()
    assert first.problem == ""
    assert "balancer=same exists already" in second.problem


def test_a_module_without_a_package_has_no_folder_of_options(site: Path) -> None:
    guest(site, "guest_a", "x = 1", entry="x = guest_file")
    (site / "guest_file.py").write_text("x = 1")
    assert "it is not part of a package" in found()[0].problem


def test_metadata_that_cannot_be_read_stops_nothing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: str) -> None:
        raise ValueError("a line of entry_points.txt is no line")

    monkeypatch.setattr(importlib.metadata, "entry_points", broken)
    (one,) = found()
    assert "a line of entry_points.txt" in one.problem
    assert "every package" in outside.problems()


def test_nobody_owns_what_is_ours(site: Path) -> None:
    guest(site, "guest_a", "x = 1", entry="x = moe_sweeps.balancing")
    found()
    assert [outside.owner("balancer", kind) for kind in ("aux", "lossfree")] == [None, None]


def test_the_file_of_a_component() -> None:
    assert source_of("balancer", "lossfree") == SOURCE / "balancing" / "lossfree.py"
    assert source_of("router", "sigmoid") == SOURCE / "model" / "router.py"
    assert source_of("lr_split", "batch_fraction") == SOURCE / "optim" / "lr_split" / "load_based.py"
    assert all(source_of(group, kind).is_file() for group, kinds in REGISTRY.items() for kind in kinds)
