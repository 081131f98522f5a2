"""Fixtures of the whole suite: folders of its own, and real data that is prepared once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from moe_sweeps.data.config import CorpusConfig
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.data.prepare import prepared


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """pytest-xdist already uses every core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data that all tests and all pytest-xdist workers share."""
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
