"""Identity: which settings decide a run's result, and the id that follows from them.

The canonical form holds every result-relevant knob and nothing else: infrastructure is left out, knobs that the chosen
components do not read are left out, equivalent components are spelled one way, and fields younger than the identity
scheme are left out at their neutral value. The run id is a hash of it.
"""

from __future__ import annotations

import dataclasses
import functools
from enum import Enum
from typing import Any

from moe_sweeps.config.registry import Component, Unread
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.genuine import ID_LENGTH as ID_LENGTH
from moe_sweeps.records.genuine import SEED_KEYS as SEED_KEYS
from moe_sweeps.records.genuine import arm_of, hash_of

IDENTITY_VERSION = 1


def identity(run: RunConfig) -> dict[str, Any]:
    """The content of identity.json: version, run id, arm, canonical form.

    `arm` is the id of the experiment without its replicate: equal for runs that differ in their seed alone.
    """
    canonical = canonical_form(run)
    arm = arm_of(canonical, run.seed, run.effective_data_seed)
    return {"version": IDENTITY_VERSION, "run_id": hash_of(canonical), "arm": arm, "canonical": canonical}


def run_id(run: RunConfig) -> str:
    """12 hexadecimal digits: the hash of the canonical form."""
    return hash_of(canonical_form(run))


def canonical_form(run: RunConfig) -> dict[str, Any]:
    """Nested plain data with exactly the knobs that decide the result."""
    form: dict[str, Any] = {"seed": run.seed, "data_seed": run.effective_data_seed}
    for group, config in run.groups():
        knobs = {} if config.INFRA else _active_knobs(config, run)
        if knobs:
            form[group] = knobs
    return form


def unread_knobs(run: RunConfig) -> dict[str, Unread]:
    """Dotted key (a whole group's name, or group.knob) of what nothing reads -> why, and what would read it."""
    found = {}
    for group, config in run.groups():
        for knob, why in config.unread(run).items():
            found[f"{group}.{knob}" if knob else group] = why
    return found


def why_unread(key: str, unread: dict[str, Unread]) -> Unread | None:
    """Why nothing reads `key` of the command line, or None when the run reads it."""
    return unread.get(key) or unread.get(key.partition(".")[0])


def infrastructure(run: RunConfig) -> list[str]:
    """Dotted names of what cannot change a result: whole groups, and knobs of other groups."""
    groups = dict(run.groups())
    found = [f.name for f in dataclasses.fields(run) if f.metadata.get("infra") and f.name not in groups]
    found += [name for name, config in groups.items() if config.INFRA]
    for name, config in groups.items():
        found += [f"{name}.{f.name}" for f in dataclasses.fields(config) if f.metadata.get("infra")]
    return found


def _active_knobs(config: Component, run: RunConfig) -> dict[str, Any]:
    unread = config.unread(run)
    if "" in unread:
        return {}
    plain = config.canonical(run)
    knobs = {}
    for name, first_name, neutral in _relevant_fields(type(plain)):  # type: ignore[arg-type]
        value = getattr(plain, name)
        if name not in unread and value != neutral:
            knobs[first_name] = _plain(value)
    return knobs


@functools.cache
def _relevant_fields(cls: type) -> list[tuple[str, str, Any]]:
    """Name, name in the identity, neutral value. A renamed knob keeps the ids of old runs by its first name."""
    fields = [f for f in dataclasses.fields(cls) if not f.metadata.get("infra")]
    return [(f.name, f.metadata.get("was", f.name), f.metadata.get("neutral", dataclasses.MISSING)) for f in fields]


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    return value + 0.0 if isinstance(value, float) else value  # -0.0 means what 0.0 means
