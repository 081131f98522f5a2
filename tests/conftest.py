"""Fixtures of the whole suite: folders of its own, and real data that is prepared once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from moe_sweeps.data.config import CorpusConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.data.prepare import prepared
from moe_sweeps.paths import INSTALLED

settings.register_profile("no clock", deadline=None)  # a busy machine is no counterexample
settings.load_profile("no clock")


HERE = Path(__file__).parent
# Modules whose fixtures take long: one process of pytest-xdist makes them once.
TOGETHER = (
    *("fake_gpu/test_steps.py", "unit/cli/test_widths.py", "unit/reports/test_hostile.py"),
    *("unit/reports/test_page.py", "unit/reports/explore/test_explorer.py", "unit/reports/test_figures.py"),
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Here, since pytest-xdist reads the groups before this file could sort the items."""
    module = item.path.relative_to(HERE).as_posix() if item.path.is_relative_to(HERE) else ""
    if module in TOGETHER:
        item.add_marker(pytest.mark.xdist_group(module))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """SLURM's tests wait most of their time, one after the other, so they begin."""
    items.sort(key=lambda item: item.path.parent != HERE / "slurm")


def pytest_collection_finish(session: pytest.Session) -> None:
    """A pytest whose node ids pytest-xdist cannot change ignores all groups, and says nothing."""
    grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if getattr(session.config.option, "loadgroup", False) and any("@" not in item.nodeid for item in grouped):
        pytest.exit("pytest-xdist ignores xdist_group with this pytest; pyproject.toml has one that works", 4)


def pytest_configure() -> None:
    """The tests are those of the sources beside them, and of no copy that is installed elsewhere."""
    if INSTALLED:
        pytest.exit("moe_sweeps is installed without -e here. Run `make setup`, then the tests.", returncode=4)
    _hear_signals()


def _hear_signals() -> None:
    """`nohup make test &` hands down ignored signals, which the processes under test would ignore, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """pytest-xdist already uses every core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data that all tests and all pytest-xdist workers share; MOE_SWEEPS_TEST_DATA: and all sessions."""
    if kept := os.environ.get("MOE_SWEEPS_TEST_DATA"):
        return Path(kept)
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "real"


@pytest.fixture(scope="session")
def real_data(data_root: Path) -> TokenData:
    """The real corpus with the default config, prepared once a session (about 20 s)."""
    return prepared(CorpusConfig(), data_root, progress=False)


@pytest.fixture
def folders(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs and reports of this test alone, in the environment that commands read; returns the runs folder."""
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MOE_SWEEPS_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("MOE_SWEEPS_DATA", str(data_root))
    return tmp_path / "runs"
