"""What a run asks of a cluster, and the sbatch script that says so; no SLURM is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import compose_run

from moe_sweeps.config.groups import SlurmConfig
from moe_sweeps.errors import ConfigError
from moe_sweeps.launch.slurm.resources import BASE_GB, Resources, resources, within_limit
from moe_sweeps.launch.slurm.script import ArrayScript
from moe_sweeps.launch.slurm.submit import Wanted, dry_run
from moe_sweeps.records.rundir import RunDir


def needs(*overrides: str, seconds: float = 60.0) -> Resources:
    return resources(compose_run("scale=smoke", *overrides), seconds)


@pytest.fixture(autouse=True)
def _no_slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts are written on laptops, where there is no srun."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("no programs")))


EIGHT = ("trainer.batch_size=8", "trainer.micro_batch_size=1")  # for the eight processes of a node


def test_one_gpu_for_each_run() -> None:
    found = needs("launch=slurm")
    assert (found.nodes, found.tasks_per_node, found.cpus_per_task, found.gpus_per_node) == (1, 1, 8, 1)
    assert found.mem_gb == BASE_GB + 1  # a tiny model: rounded up


def test_a_node_for_each_run_divides_its_time_and_multiplies_its_memory() -> None:
    one, node = needs("launch=slurm", seconds=48_000), needs("launch=slurm_node", *EIGHT, seconds=48_000)
    assert (node.ranks, node.gpus_per_node) == (8, 8)
    assert one.minutes == 1210  # 800 minutes by half more, and 10 to start
    assert node.minutes == 160  # 100 minutes by half more, and 10 to start
    assert 8 * BASE_GB < node.mem_gb <= 8 * one.mem_gb


def test_what_is_set_by_hand_wins() -> None:
    found = needs("launch=slurm_cpu", "launch.minutes=7", "launch.mem_gb=3", "launch.cpus_per_task=2")
    assert (found.minutes, found.mem_gb, found.cpus_per_task, found.gpus_per_node) == (7, 3, 2, 0)


def test_a_job_that_could_not_hold_its_run_is_refused() -> None:
    run = compose_run("scale=talk", "launch=slurm_cpu", "launch.mem_gb=14")
    with pytest.raises(ConfigError, match=r"launch\.mem_gb=14 is refused: talk-aux needs at least 15 GB a node"):
        resources(run, 60.0)
    assert resources(compose_run("scale=talk", "launch=slurm_cpu", "launch.mem_gb=15"), 60.0).mem_gb == 15
    assert resources(compose_run("scale=talk", "launch=slurm", "launch.mem_gb=4"), 60.0).mem_gb == 4  # on a GPU
    with pytest.raises(ConfigError, match=r"3 processes of talk-aux need at least 45 GB"):
        resources(compose_run("scale=talk", "launch=slurm_cpu", "launch.pack=3", "launch.mem_gb=44"), 60.0)


def test_what_cannot_fit_on_the_clusters_gpus_is_refused_where_their_memory_is_known() -> None:
    line = ("scale=talk_e128", "optimizer=shampoo", "launch=slurm")
    with pytest.raises(ConfigError, match=r"optimizer=shampoo is refused: .* launch\.gpu_mem_gb says .* 85\.9 GB"):
        resources(compose_run(*line, "launch.gpu_mem_gb=80"), 60.0)
    assert resources(compose_run(*line, "launch.gpu_mem_gb=140"), 60.0).gpus_per_node == 1
    assert resources(compose_run(*line), 60.0).gpus_per_node == 1  # not known: its job finds out


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_node_is_not_asked_for_a_whole_model_in_every_process(parallel: str) -> None:
    """Eight copies of 14.8 GB were asked for; now it is eight times a layer, and the largest tensor for saving."""
    line = ("scale=talk_e128", "launch=slurm_node", "trainer.micro_batch_size=5", f"engine.parallel={parallel}")
    found = resources(compose_run(*line), 60.0)
    assert 8 * BASE_GB < found.mem_gb < 8 * (BASE_GB + 3)
    assert found.mem_gb < 14.8 * 8 / 2


def test_several_ranks_cannot_be_packed() -> None:
    with pytest.raises(ConfigError, match=r"launch\.pack"):
        needs("launch=slurm_node", "launch.pack=2")


def test_a_batch_that_the_processes_cannot_share_is_refused_before_it_waits_in_the_queue() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.batch_size=8 .* 8 processes .*trainer\.micro_batch_size=1"):
        needs("launch=slurm_node", "trainer.batch_size=8", "trainer.micro_batch_size=8")


def test_a_partition_that_allows_less_time_is_enough_unless_more_was_asked_for_by_hand() -> None:
    def limited(most: int | None, *overrides: str) -> int:
        run = compose_run("scale=smoke", "launch=slurm", *overrides)
        assert isinstance(run.launch, SlurmConfig)
        return within_limit(resources(run, 48_000), run.launch, most).minutes

    assert [limited(None), limited(2000), limited(240)] == [1210, 1210, 240]
    assert limited(240, "launch.minutes=240") == 240
    with pytest.raises(
        ConfigError, match=r"launch\.minutes=241 .* longer than 240 minutes .*\(gpu\).*is requeued and resumes"
    ):
        limited(240, "launch.minutes=241", "launch.partition=gpu")


def test_a_short_job_is_not_warned_when_it_begins() -> None:
    assert "#SBATCH --signal=USR2@30" in script("launch=slurm", "launch.minutes=1")
    assert "#SBATCH --signal=USR2@600" in script("launch=slurm", "launch.minutes=60", "launch.signal_seconds=600")


def script(*overrides: str, jobs: int = 3) -> list[str]:
    run = compose_run("scale=smoke", *overrides)
    assert isinstance(run.launch, SlurmConfig)
    found = ArrayScript(Path("/r/slurm/moe-1.json"), resources(run, 60.0), run.launch, jobs, Path("/code of/day"))
    return found.text().splitlines()


def test_script_says_what_is_asked_for() -> None:
    where = ("launch.partition=gpu", "launch.account=me", "launch.exclude='n7,n9'")
    lines = script("launch=slurm", *where, "launch.sbatch=['mail-type=END',exclusive]")
    for option in (
        "--array=0-2%3", "--job-name=moe-1", "--partition=gpu", "--account=me", "--exclude=n7,n9",
        "--gpus-per-node=1", "--mem=5GB", "--time=20", "--requeue", "--signal=USR2@90",
        "--mail-type=END", "--exclusive",
    ):  # fmt: skip
        assert f"#SBATCH {option}" in lines, option
    assert not any("wckey" in line for line in lines)


def test_script_throttles_sets_up_and_judges() -> None:
    lines = script(
        "launch=slurm_node",
        *EIGHT,
        "launch.max_parallel=2",
        "launch.setup=['module load cuda']",
        "launch.srun=['--mpi=none']",
    )
    assert "#SBATCH --array=0-2%2" in lines
    (srun,) = [line for line in lines if line.startswith("srun")]
    assert "--kill-on-bad-exit=1" in srun
    assert "--mpi=none" in srun
    assert "slurm.job run /r/slurm/moe-1.json" in srun
    order = [lines.index("module load cuda"), lines.index(srun), lines.index("code=$?"), lines.index("exit $?")]
    assert order == sorted(order)
    assert "slurm.job judge /r/slurm/moe-1.json $code" in lines[lines.index("code=$?") + 1]
    assert any(line.startswith("export PYTHONPATH='/code of/day/src'") for line in lines)


def test_a_dry_run_gives_the_scripts_and_writes_nothing(tmp_path: Path) -> None:
    launch = compose_run("scale=smoke", "launch=slurm_cpu", "launch.pack=2").launch
    assert isinstance(launch, SlurmConfig)
    short, long = (needs("launch=slurm_cpu", f"launch.minutes={minutes}") for minutes in (5, 50))
    wanted = [Wanted(RunDir(tmp_path / f"run-{i}"), long if i == 4 else short, tmp_path) for i in range(5)]
    first, second = dry_run(wanted, launch, tmp_path, "sweep")
    assert "#SBATCH --array=0-1%2" in first  # four runs, two to a job
    assert "#SBATCH --time=5\n" in first
    assert "#SBATCH --array=0-0%1" in second
    assert "#SBATCH --time=50\n" in second
    assert list(tmp_path.iterdir()) == []
