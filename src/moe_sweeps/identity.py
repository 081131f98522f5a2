"""Identity: which settings decide a run's result, and the id that follows from them.

The canonical form holds every result-relevant knob and nothing else: infrastructure is left out, knobs that the chosen
components do not read are left out, equivalent components are spelled one way, and fields younger than the identity
scheme are left out at their neutral value. The run id is a hash of it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from enum import Enum
from typing import Any

from moe_sweeps.config.registry import Component, Unread
from moe_sweeps.config.schema import RunConfig

IDENTITY_VERSION = 1
ID_LENGTH = 12
SEED_KEYS = ("seed", "data_seed")


def identity(run: RunConfig) -> dict[str, Any]:
    """The content of identity.json: version, run id, arm, canonical form.

    `arm` is the id of the experiment without its replicate: equal for runs that differ in their seed alone.
    """
    canonical = canonical_form(run)
    arm = {k: v for k, v in canonical.items() if k not in SEED_KEYS}
    if run.effective_data_seed != run.seed:
        arm["data_seed"] = run.effective_data_seed
    return {"version": IDENTITY_VERSION, "run_id": _hash(canonical), "arm": _hash(arm), "canonical": canonical}


def run_id(run: RunConfig) -> str:
    """12 hexadecimal digits that name this run wherever it is computed."""
    return _hash(canonical_form(run))


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


def _hash(form: dict[str, Any]) -> str:
    text = json.dumps(form, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]
