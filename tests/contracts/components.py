"""What every option of every config group must keep, as functions of its group and name."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

from helpers import compose_run, make_run
from omegaconf import OmegaConf

from moe_sweeps.balancing import AuxBalancerConfig
from moe_sweeps.config.groups import TrainerConfig
from moe_sweeps.config.registry import REGISTRY, doc_of
from moe_sweeps.experiment.frozen import from_dict, to_dict
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.experiment.options import option_file, option_help

# What an option does not work without.
NEEDS = {("data", "text"): ["data.files=README.md"]}


def composes_and_survives_freezing(group: str, option: str) -> None:
    run = compose_run(f"{group}={option}", *NEEDS.get((group, option), []))
    frozen = to_dict(run)
    assert from_dict(frozen) == run
    assert repr(frozen) == repr(OmegaConf.to_container(OmegaConf.structured(run), enum_to_str=True))


def file_is_short_and_says_when_to_use_it(group: str, option: str) -> None:
    assert len(option_file(group, option).read_text().splitlines()) < 25
    assert option_help(group, option).startswith("Use ")


def every_knob_is_documented(group: str, kind: str) -> None:
    cls = REGISTRY[group][kind]
    silent = [f.name for f in dataclasses.fields(cls) if f.name != "kind" and not doc_of(cls, f.name).strip()]
    assert silent == [], f"knobs of {cls.__qualname__} without doc=...: {silent}"


def every_knob_is_active_infrastructure_or_unread(group: str, kind: str) -> None:
    """A knob that is neither infrastructure nor unread changes the id when it changes; the others do not."""
    component: Any = REGISTRY[group][kind]()
    # A loss that reads aux.*, and several micro-batches: without them a knob about micro-steps has nothing to say.
    beside = {"balancer": AuxBalancerConfig(), "trainer": TrainerConfig(micro_batch_size=4)}
    run = make_run(**beside | {group: component})
    unread = component.unread(run)
    for field in dataclasses.fields(component):
        other = neighbour(getattr(component, field.name))
        if field.name == "kind" or other is None:
            continue
        replaced: Any = {group: dataclasses.replace(component, **{field.name: other})}
        changed = dataclasses.replace(run, **replaced)
        counts = not (component.INFRA or field.metadata.get("infra") or field.name in unread or "" in unread)
        assert (run_id(changed) != run_id(run)) == counts, f"{group}.{field.name}"


def neighbour(value: Any) -> Any:
    """Another value of the same type that the knob's rules still allow."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, Enum):
        return next((member for member in type(value) if member is not value), None)
    if value is None or isinstance(value, str):
        return None
    if isinstance(value, list):
        return [*value, "another"]
    return value * 2 if value else 1
