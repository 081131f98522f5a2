"""A program that runs its own ablation through --json alone, on runs that were trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY
from processes import manage, train

pytestmark = pytest.mark.usefixtures("real_data")
LINE = ["balancer=aux,lossfree", "seed=0,1", *TINY]


def answer(*words: str, code: int = 0) -> dict[str, Any]:
    done = manage(*words, "--json")
    assert done.returncode == code, done.stderr
    content: dict[str, Any] = json.loads(done.stdout, parse_constant=pytest.fail)
    return content


@pytest.mark.slow
def test_plan_train_look_and_judge(folders: Path) -> None:
    planned = answer("plan", *LINE)
    assert planned["cost"]["runs"] == 4
    trained = train("-m", *LINE)
    assert trained.returncode == 0, trained.stderr
    ids = sorted(run["run_id"] for run in planned["runs"])
    status = answer("status")
    assert sorted(run["run_id"] for run in status["runs"]) == ids
    assert status["states"] == {"done": 4}
    assert answer("plan", *LINE)["cost"]["runs"] == 0

    [table] = answer("tables")["tables"]
    assert sorted(run["run_id"] for arm in table["arms"] for run in arm["runs"]) == ids
    summaries = [json.loads(path.read_text()) for path in folders.glob("*/summary.json")]
    means = [arm["metrics"]["val_loss"]["mean"] for arm in table["arms"]]
    assert sum(means) / 2 == pytest.approx(sum(s["val_loss"] for s in summaries) / 4)

    verdicts = {"better": 0, "worse": 10, "equivalent": 11, "undecided": 12}
    judged = manage("judge", "balancer=aux", "balancer=lossfree", "--json")
    found = json.loads(judged.stdout)
    assert judged.returncode == verdicts[found["verdict"]]
    assert sorted(found["runs"]["a"] + found["runs"]["b"]) == ids

    first = planned["runs"][0]
    same = answer("why", first["run_id"], *first["overrides"])
    assert same["same"]
    assert not any(difference["counts"] for difference in same["differences"])
    explained = answer("explain", first["run_id"])
    assert explained["run_id"] == first["run_id"]
    cell = answer("explain", f"{table['name']}:1,val_loss")
    assert cell["estimate"]["mean"] == means[0]
