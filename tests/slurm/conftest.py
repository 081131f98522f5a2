"""A real SLURM for the tests of this folder, and how they submit to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from slurm.cluster import Cluster, missing, start_cluster

MAX_ARRAY_SIZE = 5
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these tests in one process of pytest-xdist: they share a cluster, and take its nodes away."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("slurm"))


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four virtual nodes, brought up once for each process of pytest."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with FileLock("/tmp/moe-sweeps-munge.lock"):  # munge is one for the machine
        cluster = start_cluster(tmp_path_factory.mktemp("slurm"), max_array_size=MAX_ARRAY_SIZE)
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(running_cluster: Cluster, folders: Path, real_data: object, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, empty; SLURM's commands and `python train.py` of this test talk to it."""
    monkeypatch.setenv("SLURM_CONF", str(running_cluster.conf))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    running_cluster.call("scancel", "--user=root")
    running_cluster.wait_idle()
    return running_cluster
