"""What SLURM's variables say about the tasks of a step: how many there are on each node, and where they find rank 0."""

from __future__ import annotations

import re
from collections.abc import Mapping


def expand_counts(text: str) -> list[int]:
    """SLURM's counts by node: "2(x3),1" is [2, 2, 2, 1]."""
    found: list[int] = []
    for part in text.split(","):
        count, _, times = part.rstrip(")").partition("(x")
        found += [int(count)] * int(times or 1)
    return found


def first_host(nodelist: str) -> str:
    """The first host of a SLURM node list: "gpu[07-09,12],login" is gpu07."""
    first = re.split(r",(?![^\[]*\])", nodelist)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def master_address(environ: Mapping[str, str]) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT for the tasks of a step: its first node, and a port that follows from the step's id.

    Empty outside a SLURM step, and under torchrun, which sets both itself.
    """
    if "RANK" in environ or "SLURM_STEP_NODELIST" not in environ:
        return {}
    place = int(environ.get("SLURM_JOB_ID", "0")) * 31 + int(environ.get("SLURM_STEP_ID", "0"))
    return {"MASTER_ADDR": first_host(environ["SLURM_STEP_NODELIST"]), "MASTER_PORT": str(20000 + place % 12000)}
