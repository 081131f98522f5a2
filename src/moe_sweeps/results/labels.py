"""Short, unambiguous names for the arms of a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from moe_sweeps.records.genuine import REPLICATE_KEYS
from moe_sweeps.records.manifest import Manifest, spell_settings

MAX_AXES = 3  # more varying settings than these share one column


@dataclass(frozen=True, slots=True)
class Labels:
    """How a table names its arms: by a column for each varying setting (`axes`), or by `text` if there are none."""

    text: dict[str, str]
    settings: dict[str, dict[str, str]]
    axes: tuple[str, ...]

    def columns(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """The settings that get a column: those in `wanted` if they distinguish all arms, else `axes`."""
        told_apart = {tuple(s.get(key) for key in wanted) for s in self.settings.values()}
        return wanted if wanted and len(told_apart) == len(self.settings) else self.axes


def label_arms(manifest: Manifest) -> Labels:
    """Name every arm of a sweep by the settings that not all arms share."""
    first = {run.arm: run for run in reversed(manifest.runs.values())}
    full = {arm: run.label for arm, run in first.items()}
    hidden = {arm: {*REPLICATE_KEYS, *knobs} for arm, knobs in unread_knobs(manifest).items()}
    settings = {
        arm: {k: v for k, v in first[arm].settings.items() if k not in hidden.get(arm, REPLICATE_KEYS)}
        for arm in dict.fromkeys(run.arm for run in manifest.runs.values())
    }
    varying = varying_keys(list(settings.values()))
    short = {arm: {k: s[k] for k in varying if k in s} for arm, s in settings.items()}
    if len(settings) > 1 and all(settings.values()):
        text, axes = {arm: spell_settings(s) or "defaults" for arm, s in short.items()}, tuple(varying)
    else:
        text, axes = {arm: spell_settings(s) or full[arm] or "defaults" for arm, s in settings.items()}, ()
    unique = unambiguous(text)
    return Labels(unique, short, axes if unique == text and len(axes) <= MAX_AXES else ())


def unread_knobs(manifest: Manifest) -> dict[str, dict[str, str]]:
    """arm -> knob that was set but that nothing in the arm reads -> what would read it."""
    found: dict[str, dict[str, str]] = {}
    for request in manifest.requested:
        if request.run_id in manifest.runs:
            found.setdefault(manifest.runs[request.run_id].arm, {}).update(request.unread)
    return found


def varying_keys(settings: list[dict[str, str]]) -> list[str]:
    """Keys whose value differs between arms, or that only some arms have, in order of appearance."""
    keys = dict.fromkeys(k for s in settings for k in s)
    return [k for k in keys if len({s.get(k) for s in settings}) > 1]


def unambiguous(text: dict[str, str]) -> dict[str, str]:
    """The labels (arm -> label), with a part of the arm's hash where two arms share a label."""
    times = Counter(text.values())
    return {arm: label if times[label] == 1 else f"{label} [{arm[:6]}]" for arm, label in text.items()}
