"""Limits and the kernel's counts, read from files as both versions of control groups have them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from moe_sweeps.host.machine_memory import OUT_OF_MEMORY, available_memory, memory_limit, oom_kills, out_of_memory
from moe_sweeps.records.status import State, Status

GB = 10**9
MEMINFO = "MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable: 3000000 kB\nSwapTotal: 1000000 kB\n"
V2 = "30 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = (
    "31 1 0:2 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "32 1 0:3 {} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(root: Path, files: dict[str, str]) -> Path:
    """This process is a step of a job; `files` below the mount."""
    at = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    return machine(root, {"proc/self/mountinfo": V2, "proc/self/cgroup": "0::/job/step\n", **at})


def test_without_control_groups_the_machine_and_its_swap_are_the_limit(tmp_path: Path) -> None:
    limit = memory_limit(machine(tmp_path, {}))
    assert limit is not None
    assert (limit.bytes, limit.where) == (9_000_000 * 1024, "this machine has")
    assert available_memory(tmp_path) == 3_000_000 * 1024


def test_on_another_system_nothing_is_known(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None
    assert available_memory(tmp_path) is None
    assert oom_kills(tmp_path) == {}


@pytest.mark.parametrize(("swap", "expected"), [("0\n", 2 * GB), ("max\n", 2 * GB + 1_000_000 * 1024)])
def test_the_tightest_group_counts_with_the_swap_that_it_allows(tmp_path: Path, swap: str, expected: int) -> None:
    files = {"job/step/memory.max": "max\n", "job/memory.max": f"{2 * GB}\n", "job/memory.swap.max": swap}
    limit = memory_limit(v2(tmp_path, files))
    assert limit is not None
    assert (limit.bytes, limit.where) == (expected, "the control group of this process allows")


@pytest.mark.parametrize(("mounted", "folder"), [("/", "docker/abc/"), ("/docker/abc", "")])
def test_version_1_is_read_from_inside_and_outside_a_container(tmp_path: Path, mounted: str, folder: str) -> None:
    files = {
        "proc/self/mountinfo": V1.format(mounted),
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/abc\n0::/\n",
        f"sys/fs/cgroup/memory/{folder}memory.limit_in_bytes": f"{GB}\n",
        f"sys/fs/cgroup/memory/{folder}memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
    }
    limit = memory_limit(machine(tmp_path, files))
    assert limit is not None
    assert limit.bytes == GB + 1_000_000 * 1024
    assert list(oom_kills(tmp_path).values()) == [7]


def test_an_unlimited_group_of_version_1_limits_nothing(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": V1.format("/"),
        "proc/self/cgroup": "4:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    limit = memory_limit(machine(tmp_path, files))
    assert limit is not None
    assert limit.where == "this machine has"


def began(root: Path) -> Status:
    return Status(State.running, host=socket.gethostname(), oom_kills=oom_kills(root))


def events(count: int) -> str:
    return f"low 0\nhigh 0\nmax 9\noom 9\noom_kill {count}\n"


def test_a_count_that_rose_in_the_innermost_group_is_the_kernel(tmp_path: Path) -> None:
    status = began(v2(tmp_path, {"job/step/memory.events": events(1), "job/memory.events": events(1)}))
    assert out_of_memory(status.host, status.oom_kills, tmp_path) is None
    v2(tmp_path, {"job/memory.events": events(2)})
    assert out_of_memory(status.host, status.oom_kills, tmp_path) is None  # of another step
    v2(tmp_path, {"job/step/memory.events": events(2)})
    said = out_of_memory(status.host, status.oom_kills, tmp_path)
    assert said is not None
    assert said.startswith(f"{OUT_OF_MEMORY}. Let fewer runs train at once")


def test_a_step_that_is_gone_is_told_by_its_job(tmp_path: Path) -> None:
    status = began(v2(tmp_path, {"job/step/memory.events": events(0), "job/memory.events": events(0)}))
    (tmp_path / "sys/fs/cgroup/job/step/memory.events").unlink()
    v2(tmp_path, {"job/memory.events": events(1)})
    assert str(out_of_memory(status.host, status.oom_kills, tmp_path)).startswith(f"{OUT_OF_MEMORY}. ")


def test_where_only_the_whole_machine_counts_it_is_likely_and_no_more(tmp_path: Path) -> None:
    status = began(machine(tmp_path, {"proc/vmstat": "pgfault 5\noom_kill 3\n"}))
    machine(tmp_path, {"proc/vmstat": "pgfault 5\noom_kill 4\n"})
    assert "most likely (it has killed 1 process of this machine" in str(
        out_of_memory(status.host, status.oom_kills, tmp_path)
    )


@pytest.mark.parametrize("change", ["another host", "nothing was noted", "the machine began anew"])
def test_what_is_not_known_is_not_claimed(tmp_path: Path, change: str) -> None:
    status = began(machine(tmp_path, {"proc/vmstat": "oom_kill 3\n"}))
    machine(tmp_path, {"proc/vmstat": "oom_kill 4\n"})
    if change == "another host":
        status.host = "elsewhere"
    elif change == "nothing was noted":
        status.oom_kills = {}
    else:
        machine(tmp_path, {"proc/vmstat": "oom_kill 0\n"})
    assert out_of_memory(status.host, status.oom_kills, tmp_path) is None


def test_a_file_that_a_status_names_is_never_opened(tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    hostile.write_text("oom_kill 5\n")
    status = Status(State.running, host=socket.gethostname(), oom_kills={str(hostile): 0})
    assert out_of_memory(status.host, status.oom_kills, machine(tmp_path, {})) is None
