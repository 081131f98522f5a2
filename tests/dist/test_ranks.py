"""What passes between processes arrives as it was sent."""

from __future__ import annotations

from typing import Any

import torch
from dist.processes import RankError, run_on_ranks

from moe_sweeps.distributed.ranks import Ranks
from moe_sweeps.errors import RunFolderError


def messages(ranks: Ranks) -> dict[str, Any]:
    own = torch.tensor([[2**40 + ranks.rank, ranks.rank]])
    told = (ranks.first_failure(), ranks.any(False), ranks.report_failure(f"by {ranks.rank}") if ranks.rank == 1 else None)
    ranks.barrier()
    return {
        "sum": ranks.all_reduce({"n": own, "x": torch.tensor(0.25 * ranks.rank)}),
        "mean": ranks.mean({"x": torch.tensor([1.0 * ranks.rank])})["x"],
        "first": ranks.broadcast(own),
        "all": ranks.gather(own),
        "any": (ranks.any(ranks.rank == 1), ranks.any(False), *ranks.any_of_each(ranks.rank == 0, False)),
        "word": ranks.broadcast_text("name", f"word of {ranks.rank}"),
        "told": (*told, ranks.first_failure(), ranks.report_failure("later")),
    }


def test_every_process_hears_the_same() -> None:
    for rank, found in enumerate(run_on_ranks(messages, 2)):
        assert found["sum"]["n"].tolist() == [[2**41 + 1, 1]]
        assert found["sum"]["n"].dtype == torch.int64
        assert (found["sum"]["x"].item(), found["sum"]["x"].dtype) == (0.25, torch.float32)
        assert found["mean"].tolist() == [0.5]
        assert found["first"].tolist() == [[2**40, 0]]
        assert [n.tolist() for n in found["all"]] == [[[2**40, 0]], [[2**40 + 1, 1]]]
        assert found["any"] == (True, False, True, False)
        assert found["word"] == "word of 0"
        assert found["told"] == (None, False, True if rank == 1 else None, "by 1", False)


def disagree(ranks: Ranks) -> None:
    ranks.require_agreement("the step", 7)
    ranks.require_agreement("the step", 7 + ranks.rank)


def test_processes_that_read_different_folders_are_stopped() -> None:
    found = run_on_ranks(disagree, 2, expect_failures=True)
    assert all(f"{RunFolderError.__name__}: the processes of this run disagree on the step: [7, 8]" in f for f in found)


def raises(ranks: Ranks) -> None:
    assert ranks.rank != 1, "the second one"


def test_the_helper_names_the_rank_that_raised() -> None:
    try:
        run_on_ranks(raises, 2)
    except RankError as error:
        assert "the second one" in str(error)
        assert "rank 1" in str(error)
    else:
        raise AssertionError("it was silent")
