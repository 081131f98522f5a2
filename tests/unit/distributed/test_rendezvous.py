"""Processes that come, and those that do not: here each is a thread with an environment of its own."""

from __future__ import annotations

import threading
import time

import pytest
from dist.processes import free_port

from moe_sweeps.distributed.rendezvous import LIMIT_VARIABLE, rendezvous, variables
from moe_sweeps.errors import MoeSweepsError

SLURM = {"SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "0"}


def environment(**changed: str) -> dict[str, str]:
    place = {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return place | {LIMIT_VARIABLE: "1"} | changed


def come(environ: dict[str, str], ranks: list[int], size: int = 3) -> dict[int, str]:
    """What each rank heard or why it gave up."""
    found: dict[int, str] = {}
    stores = []  # one that is let go is gone for all

    def body(rank: int) -> None:
        said: list[str] = []
        try:
            store = rendezvous(rank, size, said.append, environ)
            stores.append(store)
            store.set(f"by-{rank}", str(rank))
            found[rank] = "".join(store.get(f"by-{other}").decode() for other in range(size))
        except MoeSweepsError as error:
            found[rank] = "\n".join([*said, str(error)])

    threads = [threading.Thread(target=body, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_they_meet_in_whatever_order_they_come(order: list[int]) -> None:
    assert come(environment(**{LIMIT_VARIABLE: "30"}), order) == {0: "012", 1: "012", 2: "012"}


def test_who_is_missing_is_said_and_then_refused() -> None:
    found = come(environment(**{LIMIT_VARIABLE: "6"}), [0, 2])
    said, refused = found[0].split("\n")
    assert said == "rank 0 of 3 waits: 2 of 3 processes are here, not rank 1 (given up after 6 s)"
    assert refused == (
        "rank 1 of 3 did not come within 6 s (MOE_SWEEPS_JOIN_SECONDS allows more). RANK=0 WORLD_SIZE=3 in the "
        "environment says that this is one of 3 processes. To train in this one alone: unset RANK WORLD_SIZE. "
        "To train with 3: python -m torch.distributed.run --nproc-per-node 3 train.py ..."
    )


def test_the_first_one_is_missing() -> None:
    said, refused = come(environment(**{LIMIT_VARIABLE: "6"}), [2])[2].split("\n")
    assert said == "rank 2 of 3 waits: rank 0, to which the others connect, is not here (given up after 6 s)"
    assert refused.startswith("rank 0 of 3 did not come within 6 s")


def test_an_interactive_slurm_shell_is_told_what_to_unset() -> None:
    environ = environment() | SLURM
    del environ["RANK"], environ["WORLD_SIZE"]
    refused = come(environ, [0])[0]
    assert "SLURM_STEP_NUM_TASKS=3 in the environment" in refused
    assert "unset SLURM_STEP_NUM_TASKS. To train with 3: srun --ntasks 3 python train.py" in refused


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MASTER_PORT": "x"}, "do not say where rank 0 is"),
        ({"MASTER_PORT": "77777"}, "MASTER_PORT=77777 is no port"),
        ({"MASTER_ADDR": "no.such.host.invalid"}, "cannot reach the others at no.such.host.invalid:"),
        ({LIMIT_VARIABLE: "soon"}, "MOE_SWEEPS_JOIN_SECONDS=soon: give a number of seconds above 0"),
        ({LIMIT_VARIABLE: "0"}, "MOE_SWEEPS_JOIN_SECONDS=0: give"),
        ({LIMIT_VARIABLE: "nan"}, "MOE_SWEEPS_JOIN_SECONDS=nan: give"),
    ],
)
def test_a_place_that_is_none(changed: dict[str, str], message: str) -> None:
    assert message in come(environment(**changed), [0])[0]


def test_no_place_at_all() -> None:
    with pytest.raises(MoeSweepsError, match=r"KeyError\('MASTER_ADDR'\).*unset RANK WORLD_SIZE"):
        rendezvous(0, 3, print, {"RANK": "0", "WORLD_SIZE": "3"})


def test_the_variables_that_make_one_of_several() -> None:
    assert variables({}) == []
    assert variables({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == []
    assert variables(environment() | SLURM) == ["RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"]
