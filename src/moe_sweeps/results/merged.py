"""Combinations of settings that are one arm, and why."""

from __future__ import annotations

from collections.abc import Mapping

from moe_sweeps.records.genuine import REPLICATE_KEYS
from moe_sweeps.records.manifest import Manifest, RequestRecord, spell_settings
from moe_sweeps.results.labels import unread_knobs, varying_keys


def collapsed(manifest: Manifest, labels: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence for each arm that answers more than one combination of settings, seeds apart."""
    combinations: dict[str, dict[str, RequestRecord]] = {}
    for request in manifest.requested:
        if request.run_id in manifest.runs:
            settings = {k: v for k, v in request.overrides.items() if k not in REPLICATE_KEYS}
            combinations.setdefault(manifest.runs[request.run_id].arm, {})[spell_settings(settings)] = request
    unread = unread_knobs(manifest)
    merged = {arm: list(found.values()) for arm, found in combinations.items() if len(found) > 1}
    return tuple(_collapse(labels[arm], requests, unread[arm]) for arm, requests in merged.items())


def _collapse(label: str, requests: list[RequestRecord], unread: dict[str, str]) -> str:
    """Which combinations are the arm `label`, and why."""
    varying = [k for k in varying_keys([r.overrides for r in requests]) if k not in REPLICATE_KEYS]
    if not set(varying) <= set(unread):
        which = "; ".join(
            spell_settings({k: r.overrides[k] for k in varying if k in r.overrides}) or "defaults" for r in requests
        )
        return f"{label}: {len(requests)} combinations have the same meaning and are one arm ({which})"
    values = {k: dict.fromkeys(r.overrides[k] for r in requests if k in r.overrides) for k in varying}
    asked = " and ".join(f"{k}={','.join(found)}" for k, found in values.items())
    reason = "; ".join(f"{k} is read by {unread[k]}" for k in varying)
    return f"{label}: {len(requests)} combinations ({asked}) are one arm, because {reason}"
