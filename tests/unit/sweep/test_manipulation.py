"""The manipulation check: traces of real steps, and the arms, spellings and knobs that it must catch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY, compose_run

from moe_sweeps.balancing.auxiliary import AuxBalancer
from moe_sweeps.config.groups import AuxConfig
from moe_sweeps.config.registry import Unread
from moe_sweeps.launch.probe import random_tokens
from moe_sweeps.sweep.manipulation import Checked, _problem, check, count_traces
from moe_sweeps.sweep.plan import make_plan
from moe_sweeps.sweep.trace import Trace, trace

STEPS = 4


def traced(*line: str) -> Trace:
    run = compose_run(*TINY, *line)
    return trace(run, random_tokens(run), STEPS)


def checked(*line: str) -> Checked:
    ticks: list[str] = []
    plan = make_plan([*TINY, *line])
    found = check(plan, lambda p: random_tokens(p.run), STEPS, threads=1, tick=ticks.append)
    assert len(ticks) == count_traces(plan)
    return found


def test_a_trace_is_reproducible_and_leaves_nothing_behind(folders: Path) -> None:
    first, second = traced(), traced()
    assert first.differences(second) == {}
    assert sorted(first.channels["loss"]) == [1, 2, 3, 4]
    assert sorted(first.channels["weights expert"]) == [0, 1, 2, 3, 4]
    assert len(set(first.channels["weights expert"].values())) == 5  # each step moves the weights
    assert not folders.exists()


def test_each_channel_shows_what_it_should() -> None:
    base = traced()
    seed = base.differences(traced("seed=1"))
    assert seed["weights router"] == 0
    assert seed["loss"] == 1
    slower = base.differences(traced("lr_split=static", "lr_split.expert=0.5"))
    assert slower["weights expert"] == 1
    assert slower["weights dense"] == 2  # only through the experts
    assert base.differences(traced("balancer=lossfree"))["balancer state"] == 0
    assert traced("balancer=none").channels.keys() == base.channels.keys() - {"aux_loss"}


def test_reads_are_recorded_key_by_key() -> None:
    read = traced().read
    assert {"aux.coef", "router.z_loss", "optimizer.base_lr", "trainer.batch_size", "model.width"} <= read
    assert "launch.workers" not in read
    assert "trainer.final_eval_sequences" not in read


def test_arms_that_differ_where_they_claim_to_are_clean(folders: Path) -> None:
    found = checked("balancer=aux,lossfree", "aux.coef=0.1,0.2", "seed=0,1")
    assert found.clean
    assert [(f.claimed, f.problem) for f in found.arms] == [(("aux.coef",), None), (("balancer.kind",), None)]
    assert all(f.seen for f in found.arms)
    assert [(f.seen, f.problem) for f in found.equivalents] == [({}, None)]  # lossfree with another aux.coef
    assert found.unread == {}


def test_a_clip_that_never_acts_is_a_no_op(folders: Path) -> None:
    found = checked("router.clip_norm=0,1e6")
    assert [f.problem for f in found.arms] == ["no effect: router.clip_norm made no difference in any number or weight"]
    assert not found.clean


def test_a_coefficient_that_nobody_uses_is_caught(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of the kind that the check is for: the loss forgets its coefficient."""

    def forgetful(self: AuxBalancer, routings: Sequence[object], **rest: object) -> object:
        self.aux = type(self.aux)()
        return original(self, routings, **rest)

    original: Any = AuxBalancer.loss
    monkeypatch.setattr(AuxBalancer, "loss", forgetful)
    found = checked("aux.coef=0.1,0.2")
    assert [f.problem for f in found.arms] == ["no effect: aux.coef made no difference in any number or weight"]


def test_runs_wrongly_declared_the_same_are_caught(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A knob that its component calls unread, although the training reads it."""
    unread = {"coef": Unread("balancer=aux", "nothing")}
    monkeypatch.setattr(AuxConfig, "unread", lambda self, run: unread)
    found = checked("aux.coef=0.1,0.2")
    assert [f.problem for f in found.equivalents] == ["declared the same run, but the traces differ"]


def test_a_knob_that_no_code_reads_is_listed(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_sweeps.training.gradients.z_loss", lambda routings: routings[0].logits_TE.sum() * 0)
    monkeypatch.setattr("moe_sweeps.model.router.Router._logits", _logits_without_temperature)
    found = checked("router.temperature=1,2")
    assert not found.clean
    assert found.unread == {"router.temperature": ["router.temperature=2"]}  # 1 is neutral, and not in the identity


def _logits_without_temperature(self: object, x_TD: object) -> object:
    import torch.nn.functional as F

    return F.linear(x_TD.float(), self.weight_ED)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("claimed", "seen", "problem"),
    [
        (("lr_split.expert",), {"weights expert": 1, "weights dense": 2}, None),
        (("lr_split.expert",), {"weights dense": 2}, "lr_split.expert claims to change weights expert, and did not"),
        (
            ("lr_split.expert",),
            {"weights expert": 1, "weights dense": 1},
            "lr_split.expert also changed weights dense in the first step",
        ),
        (("router.z_loss",), {"loss": 2}, "router.z_loss claims to change z_loss, and did not"),
        (("trainer.steps",), {}, None),
        (
            ("trainer.steps", "aux.coef"),
            {},
            "no effect: trainer.steps, aux.coef made no difference in any number or weight",
        ),
        (("router.kind",), {"loss": 1}, None),
    ],
)
def test_verdicts(claimed: tuple[str, ...], seen: dict[str, int], problem: str | None) -> None:
    assert _problem(claimed, seen) == problem
