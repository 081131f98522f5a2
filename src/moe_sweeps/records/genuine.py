"""Whether a run folder's config is the one that its run id stands for.

The frozen config, the canonical form and the run id state the same settings. If they disagree, one of them was edited,
and the numbers are no evidence for the config. This module knows plain data only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

ID_LENGTH = 12
SEED_KEYS = ("seed", "data_seed")
# Settings that replicates of one arm differ in, by their dotted names.
REPLICATE_KEYS = (*SEED_KEYS, "fork.replicate")
RECORD = "config"  # the key of provenance.json under which `record` stands
# Knobs that the canonical form may spell in a plainer way (`canonical` of the components) without being null.
RESPELT = frozenset({"balancer.update_every"})


def hash_of(form: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of a canonical form: the run id, or without its seeds the arm."""
    text = json.dumps(form, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def arm_of(canonical: Mapping[str, Any], seed: int, data_seed: int) -> str:
    """The id of the experiment without its replicate."""
    arm = {k: v for k, v in canonical.items() if k not in SEED_KEYS}
    if isinstance(fork := arm.get("fork"), Mapping):
        arm["fork"] = {k: v for k, v in fork.items() if k != "replicate"}
    return hash_of(arm | ({"data_seed": data_seed} if data_seed != seed else {}))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config by Hydra's dotted names; the `kind` of a group stands under the group's own name."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix[:-1] if key == "kind" and prefix else f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = f"[{','.join(map(str, value))}]" if isinstance(value, list) else value
    return flat


def record(flat: Mapping[str, Any], infrastructure: Iterable[str], before: Any = None) -> dict[str, Any]:
    """What provenance.json keeps of a config, dotted names and values: a hash of everything but infrastructure.

    `before` is the record that it replaces: its hashes stay, because the config is written after it.
    """
    without = sorted(infrastructure)
    known = before["sha256"] if _is_record(before) and before["without"] == without else []
    return {"sha256": list(dict.fromkeys([*known, settings_hash(flat, without)])), "without": without}


def settings_hash(flat: Mapping[str, Any], without: Iterable[str]) -> str:
    """A hash of the settings in any order, leaving out the names in `without` and all below them."""
    left_out = set(without)
    kept = {k: v for k, v in flat.items() if k not in left_out and k.partition(".")[0] not in left_out}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def why_no_evidence(
    flat: Mapping[str, Any], identity: Mapping[str, Any], flat_canonical: Mapping[str, Any], kept: Any
) -> str | None:
    """What in a folder contradicts its run id, or None. `kept` is the config's record in provenance.json.

    Runs older than that record have none; for them every knob of the canonical form is compared.
    """
    canonical = identity.get("canonical")
    if not isinstance(canonical, Mapping):
        return "identity.json has no canonical form"
    if hash_of(canonical) != identity.get("run_id"):
        return "identity.json was edited: the run id is not that of its canonical form"
    seed, data_seed = canonical.get("seed"), canonical.get("data_seed", canonical.get("seed"))
    if arm_of(canonical, seed, data_seed) != identity.get("arm"):  # type: ignore[arg-type]
        return "identity.json was edited: the arm is not that of its canonical form"
    different = next((key for key, value in flat_canonical.items() if _differs(key, value, flat, flat_canonical)), None)
    if different is not None:
        found, planned = ("null" if d[different] is None else d[different] for d in (flat, flat_canonical))
        return f"config.yaml was edited: {different} is {found}, and the run was planned with {planned}"
    if _is_record(kept) and settings_hash(flat, kept["without"]) not in kept["sha256"]:
        return "config.yaml was edited after it was frozen"
    return None


def _differs(key: str, value: Any, flat: Mapping[str, Any], canonical: Mapping[str, Any]) -> bool:
    """Whether a knob says one thing in the config and another in the canonical form.

    Not compared: what only one of them has (renamed, or younger), what the canonical form spells as null or under
    RESPELT, a learning-rate split that means a plainer one, and an auxiliary loss times nothing.
    """
    group = key.partition(".")[0]
    if key not in flat or value is None or key in RESPELT:
        return False
    if group == "lr_split" and flat.get(group) != canonical.get(group):
        return False
    if group == "aux" and key != "aux.coef" and canonical.get("aux.coef") == 0:
        return False
    found = flat.get("seed") if key == "data_seed" and flat[key] is None else flat[key]
    return bool(found != value)


def _is_record(kept: Any) -> bool:
    names = ("sha256", "without")
    return isinstance(kept, Mapping) and all(
        isinstance(kept.get(name), list) and all(isinstance(one, str) for one in kept[name]) for name in names
    )
