"""Knobs are documented where they are declared, and documentation is no part of anything that is computed."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import dataclass

import pytest
from contracts import components
from helpers import make_run
from omegaconf import OmegaConf

from moe_sweeps.config.choice import Choice
from moe_sweeps.config.groups import PathsConfig, Precision, SlurmConfig
from moe_sweeps.config.outside import owner
from moe_sweeps.config.registry import REGISTRY, doc_of, knob
from moe_sweeps.experiment.identity import identity
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.optim import AdamWConfig

OWN = [(group, kind) for group, kinds in REGISTRY.items() for kind in kinds if owner(group, kind) is None]


@pytest.mark.parametrize(("group", "kind"), OWN)
def test_every_knob_of_a_component_is_documented(group: str, kind: str) -> None:
    components.every_knob_is_documented(group, kind)


@pytest.mark.parametrize("cls", [RunConfig, PathsConfig])
def test_every_other_key_is_documented(cls: type) -> None:
    assert [f.name for f in dataclasses.fields(cls) if not doc_of(cls, f.name).strip()] == []


def test_a_knob_without_documentation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(slots=True)
    class SilentConfig(AdamWConfig):
        kind: str = "silent"
        horizon: int = knob(7)

    monkeypatch.setitem(REGISTRY, "optimizer", REGISTRY["optimizer"] | {"silent": SilentConfig})
    with pytest.raises(AssertionError, match="horizon"):
        components.every_knob_is_documented("optimizer", "silent")


def test_a_field_that_is_declared_again_keeps_the_documentation_of_its_base() -> None:
    @dataclass(slots=True)
    class FasterConfig(AdamWConfig):
        base_lr: float = knob(1.0, gt=0)
        beta1: float = knob(0.5, doc="its own")

    assert doc_of(FasterConfig, "base_lr") == doc_of(AdamWConfig, "base_lr") != ""
    assert doc_of(FasterConfig, "beta1") == "its own"
    assert doc_of(FasterConfig, "no_such_field") == ""


def test_documentation_changes_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(slots=True)
    class OtherwordsConfig(AdamWConfig):
        beta1: float = knob(0.9, ge=0, lt=1, doc="said in other words")

    assert doc_of(OtherwordsConfig, "beta1") != doc_of(AdamWConfig, "beta1")
    here, there = (identity(make_run(optimizer=cls(beta1=0.8))) for cls in (AdamWConfig, OtherwordsConfig))
    assert here == there


def test_a_factory_makes_a_list_for_each_config() -> None:
    a, b = SlurmConfig(), SlurmConfig()
    a.sbatch.append("mail-type=END")
    assert b.sbatch == []


class Noise(Choice):
    """For the tests below."""

    none = "none"
    fixed = "fixed", "z + N(0, 1)"


def test_members_of_a_choice_carry_their_documentation_and_remain_plain_values() -> None:
    assert [(one.name, one.value, one.doc) for one in Noise] == [
        ("none", "none", ""),
        ("fixed", "fixed", "z + N(0, 1)"),
    ]
    assert Noise("fixed") is Noise["fixed"] is Noise.fixed
    assert pickle.loads(pickle.dumps(Precision.auto)) is Precision.auto
    assert copy.deepcopy(Precision.auto) is Precision.auto


def test_omegaconf_reads_a_choice_by_its_name() -> None:
    @dataclass
    class Holder:
        noise: Noise = Noise.none

    assert OmegaConf.merge(OmegaConf.structured(Holder), {"noise": "fixed"}).noise is Noise.fixed
