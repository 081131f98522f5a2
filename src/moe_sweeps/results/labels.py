"""Short, unambiguous names for the arms of a table."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from moe_sweeps.results.manifest import Manifest

SEED_KEYS = frozenset({"seed", "data_seed"})
MAX_AXES = 3  # more varying settings than these share one column
_BETWEEN_SETTINGS = re.compile(r"\s+(?=[\w./@+~-]+=)")


@dataclass(frozen=True, slots=True)
class Labels:
    """How a table names its arms: by a column per varying setting (`axes`), or by the label alone if that is empty."""

    text: dict[str, str]
    settings: dict[str, dict[str, str]]
    axes: tuple[str, ...]

    def columns(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """The settings that have a column each: those that are `wanted`, if they tell all arms apart, else `axes`."""
        told_apart = {tuple(s.get(key) for key in wanted) for s in self.settings.values()}
        return wanted if wanted and len(told_apart) == len(self.settings) else self.axes


def label_arms(manifest: Manifest) -> Labels:
    """Name every arm of a sweep by the settings that it does not share with all the others."""
    full = {run.arm: run.label for run in reversed(manifest.runs.values())}
    unread = unread_knobs(manifest)
    settings = {
        arm: {k: v for k, v in _settings(full[arm]).items() if k not in unread.get(arm, {})}
        for arm in dict.fromkeys(run.arm for run in manifest.runs.values())
    }
    varying = varying_keys(list(settings.values()))
    short = {arm: {k: s[k] for k in varying if k in s} for arm, s in settings.items()}
    if len(settings) > 1 and all(settings.values()):
        text, axes = {arm: spell(s) or "defaults" for arm, s in short.items()}, tuple(varying)
    else:
        text, axes = {arm: spell(s) or full[arm] or "defaults" for arm, s in settings.items()}, ()
    unique = unambiguous(text)
    return Labels(unique, short, axes if unique == text and len(axes) <= MAX_AXES else ())


def unread_knobs(manifest: Manifest) -> dict[str, dict[str, str]]:
    """arm -> the knobs that were asked for and that nothing in it reads -> what would read them."""
    found: dict[str, dict[str, str]] = {}
    for request in manifest.requested:
        if request.run_id in manifest.runs:
            found.setdefault(manifest.runs[request.run_id].arm, {}).update(request.unread)
    return found


def varying_keys(settings: list[dict[str, str]]) -> list[str]:
    """Keys whose value differs between arms, or that only some of them have, in order of appearance."""
    keys = dict.fromkeys(k for s in settings for k in s)
    return [k for k in keys if len({s.get(k) for s in settings}) > 1]


def unambiguous(text: dict[str, str]) -> dict[str, str]:
    """Labels (arm -> label) in which arms that would be called the same are told apart by their hash."""
    times = Counter(text.values())
    return {arm: label if times[label] == 1 else f"{label} [{arm[:6]}]" for arm, label in text.items()}


def spell(settings: dict[str, str]) -> str:
    """Settings as on the command line."""
    return " ".join(f"{k}={v}" for k, v in settings.items())


def _settings(label: str) -> dict[str, str]:
    """The settings that a label spells out, seeds apart; none if it is a free text."""
    parts = _BETWEEN_SETTINGS.split(label.strip())
    if not all("=" in part for part in parts):
        return {}
    pairs = (part.split("=", 1) for part in parts)
    return {k: v for k, v in pairs if k not in SEED_KEYS}
