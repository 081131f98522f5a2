"""The place of a process among its fellows, from torchrun's or SLURM's environment; tests/dist has what they share."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from moe_sweeps.distributed.ranks import ALONE, Ranks, share_work
from moe_sweeps.distributed.slurm import expand_counts, first_host, master_address
from moe_sweeps.errors import ConfigError, MoeSweepsError

# The third of three tasks on two nodes.
SLURM = {
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_STEP_NODELIST": "gpu[07-09]",
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


def test_the_environment_gives_the_place() -> None:
    assert Ranks.from_environment({}) == ALONE
    assert Ranks.from_environment(TORCHRUN) == Ranks(1, 4, 1, 2)
    assert Ranks.from_environment(SLURM) == Ranks(2, 3, 0, 1)
    assert Ranks.from_environment(SLURM | TORCHRUN) == Ranks(1, 4, 1, 2)
    assert master_address(SLURM | TORCHRUN) == {}
    assert master_address(SLURM) == {"MASTER_ADDR": "gpu07", "MASTER_PORT": str(20000 + 4711 * 31 % 12000)}


def test_a_batch_script_is_one_process_however_many_tasks_it_asks_for() -> None:
    assert Ranks.from_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}) == ALONE


@pytest.mark.parametrize("broken", [{"RANK": "0"}, {"RANK": "x", "WORLD_SIZE": "2"}, SLURM | {"SLURM_PROCID": ""}])
def test_half_a_place_is_refused(broken: dict[str, str]) -> None:
    with pytest.raises(MoeSweepsError, match=r"does not say which rank this process is.*torch\.distributed\.run"):
        Ranks.from_environment(broken)


def test_slurm_s_shorthands() -> None:
    assert expand_counts("2(x3),1") == [2, 2, 2, 1]
    names = ["gpu[07-09,12],login", "gpu[3,5]", "a,b", "rack[0-1]n[4-5]", "node1"]
    assert [first_host(name) for name in names] == ["gpu07", "gpu3", "a", "rack0n4", "node1"]


@pytest.mark.parametrize("count", [0, 1, 7, 9])
def test_shares_cover_everything_once(count: int) -> None:
    parts = [list(range(count))[Ranks(rank, 3).share_of(count)] for rank in range(3)]
    assert [*parts[0], *parts[1], *parts[2]] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_an_uneven_batch_is_refused_with_the_way_out() -> None:
    two = Ranks(0, 2)
    two.require_even_split(16, 8)
    with pytest.raises(ConfigError, match=r"trainer\.batch_size=8 .* multiple of 16 .*or trainer\.micro_batch_size=4"):
        two.require_even_split(8, 8)
    with pytest.raises(ConfigError, match=r"multiple of 2 sequences\. Use such a multiple\.$"):
        two.require_even_split(7, 1)


def test_one_process_needs_no_group() -> None:
    values = {"n": torch.tensor([1, 2]), "x": torch.tensor(0.1)}
    with ALONE.joined() as ranks:
        assert ranks is ALONE
        assert all(ranks.all_reduce(values)[name] is values[name] for name in values)
        assert all(ranks.mean(values)[name] is values[name] for name in values)
        assert ranks.gather(values["n"])[0] is values["n"]
        assert ranks.broadcast(values["n"]) is values["n"]
        assert (ranks.any(True), ranks.any(False), ranks.broadcast_text("a", "text")) == (True, False, "text")
        model = torch.nn.Linear(1, 1)
        assert ranks.replicated(model) is model
        assert ranks.first_failure() is None


@dataclass(frozen=True)
class Rank(Ranks):
    """One rank of several. It records what it sends, and receives what was prepared for it."""

    sent: list[Tensor] = field(default_factory=list)
    answers: list[list[Tensor]] = field(default_factory=list)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        self.sent.append(tensor)
        return self.answers.pop(0) if self.answers else [tensor] * self.size


@pytest.mark.parametrize(("num", "size", "first"), [(5, 2, 0), (5, 2, 1), (1, 3, 2), (4, 3, 7), (6, 3, 1)])
def test_ranks_share_the_work_and_each_gets_all_of_it(num: int, size: int, first: int) -> None:
    matrix = torch.randn(num, 4, 4, generator=torch.Generator().manual_seed(0))
    done: list[int] = []

    def work(part: Tensor) -> tuple[Tensor, Tensor]:
        done.append(len(part))
        return 2 * part, part[:, 0, 0] != matrix[-1, 0, 0]  # the last one fails

    senders = [Rank(r, size) for r in range(size)]
    for rank in senders:
        share_work(rank, matrix, work, first)
    assert sum(done) == num
    assert max(done) == -(-num // size)
    for r in range(size):
        answers = [[rank.sent[message] for rank in senders] for message in range(2)]
        found, good = share_work(Rank(r, size, answers=answers), matrix, work, first)
        assert good.tolist() == [True] * (num - 1) + [False]
        assert torch.equal(found, 2 * matrix)
