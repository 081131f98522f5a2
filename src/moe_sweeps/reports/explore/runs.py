"""The runs of the page as columns: settings in which they differ, final numbers, and how each run ended."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from moe_sweeps.host.plain import plain
from moe_sweeps.records.numbers import CATALOGUE
from moe_sweeps.results.outcomes import ArmRun
from moe_sweeps.results.runs import FIXED, Row
from moe_sweeps.results.tables import Arm, Table

MOST_SETTINGS = 64  # columns of settings; a sweep varies a handful
MOST_TEXT = 200  # characters of a name or a value
_PLACES = ("launch", "paths", "tracking", "search")  # where a run is, and not what it is
_ALONE = ("seed", "data_seed", "scale")  # settings that belong to no group
_NO_SETTING = ("pairing.", "arithmetic.", "git.", "last_good.", "summary.")


@dataclass(frozen=True, slots=True)
class Member:
    """One run with the arms that it is part of: place of a table -> label."""

    run: ArmRun
    arms: dict[int, str]
    anchor: str  # of its line on the page
    asked: dict[str, str]  # settings that its sweeps gave it

    @property
    def row(self) -> Row:
        """What was read of it; empty where nothing was."""
        return self.run.row or {}

    def setting(self, key: str) -> Any:
        """A setting of its config; what the sweep asked for, where the components that were chosen have no such one.

        `lr_split.expert=1` is the matched learning rate, whose config has no multiplier.
        """
        value = self.row.get(key)
        return _parsed(self.asked[key]) if value is None and key in self.asked else value


def members(tables: Sequence[Table], anchors: Mapping[str, str]) -> list[Member]:
    """Every run of these tables once, in their order; `anchors`: run id -> anchor on the page."""
    found: dict[str, Member] = {}
    for place, arm, run in _planned(tables):
        member = found.setdefault(run.run_id, Member(run, {}, anchors.get(run.run_id, ""), {}))
        member.arms.setdefault(place, shortened(arm.label))
        member.asked.update(arm.settings)
    return list(found.values())


def _planned(tables: Sequence[Table]) -> Iterator[tuple[int, Arm, ArmRun]]:
    for place, table in enumerate(tables):
        for arm in table.arms:
            for run in arm.runs:
                yield place, arm, run


def described(found: Sequence[Member], reports: Path) -> dict[str, Any]:
    """What the browser knows of the runs besides curves: plain texts and numbers."""
    return {
        "runs": [_described(member, reports) for member in found],
        "settings": [_setting(key, found) for key in _varying(found)],
        "numbers": list(_numbers(found)),
    }


def _described(member: Member, reports: Path) -> dict[str, Any]:
    run, row = member.run, member.row
    link = os.path.relpath(str(row["folder"]), reports).replace(os.sep, "/") if row else ""
    return {
        "id": run.run_id, "name": shortened(run.folder), "seed": run.seed, "state": run.outcome,
        "why": plain(run.detail)[:2000], "collapsed": run.collapsed, "arms": list(member.arms.items()),
        "anchor": member.anchor, "link": quote(link, safe="/", errors="surrogateescape"),
        "perStep": tokens_per_step(row),
    }  # fmt: skip


def tokens_per_step(row: Row) -> float | None:
    """Training tokens of one update: measured by a finished run, planned by others; None where neither is known."""
    tokens, steps = row.get("tokens"), row.get("step")
    if isinstance(tokens, int | float) and isinstance(steps, int) and tokens > 0 and steps > 0:
        return float(tokens) / steps
    size, length = row.get("trainer.batch_size"), row.get("trainer.seq_len")
    return float(size * length) if isinstance(size, int) and isinstance(length, int) and size * length > 0 else None


def _varying(found: Sequence[Member]) -> list[str]:
    """Settings in which runs differ, those first that a sweep asked for."""
    keys = dict.fromkeys(key for member in found for key in member.asked)
    for names in dict.fromkeys(tuple(member.row) for member in found):  # most rows have the same
        groups = {name.partition(".")[0] for name in names if "." in name}
        keys |= dict.fromkeys(name for name in names if _is_setting(name, groups))
    return [key for key in keys if _differ(key, found)][:MOST_SETTINGS]


def _differ(key: str, found: Sequence[Member]) -> bool:
    """Whether these runs have several values of a setting; one without a folder may not know its own."""
    return len({_text(member.setting(key)) for member in found if member.row or key in member.asked}) > 1


def _is_setting(key: str, groups: set[str]) -> bool:
    """Whether a column of a row is a setting; `groups`: names that others begin with."""
    group, dot, _ = key.partition(".")
    if group in _PLACES or key in FIXED or key.startswith(_NO_SETTING):
        return False
    return bool(dot) or key in _ALONE or key in groups


def _setting(key: str, found: Sequence[Member]) -> dict[str, Any]:
    return {"key": shortened(key), "values": [_value(member.setting(key)) for member in found]}


def _numbers(found: Sequence[Member]) -> Iterator[dict[str, Any]]:
    """Final numbers in the unit that tables show; of runs that are done."""
    for metric in CATALOGUE:
        values = [_final(member, metric.column) for member in found]
        if any(value is not None for value in values):
            shown = [None if v is None else float(f"{v * metric.factor:.9g}") for v in values]
            yield {"key": metric.column, "title": metric.header, "axis": metric.axis or metric.header,
                   "digits": metric.digits, "better": metric.better, "values": shown}  # fmt: skip


def _final(member: Member, column: str) -> float | None:
    value = member.row.get(column) if member.run.outcome == "done" else None
    known = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if known and value is not None else None


def _value(value: Any) -> float | str | None:
    """A setting as the browser compares it: numbers by value, all else by its text."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None if value is None else shortened(_text(value))


def _parsed(text: str) -> float | str:
    """A value of a command line as the config would hold it."""
    try:
        return float(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def shortened(text: str) -> str:
    """A text of a folder for the browser: no controls, and of a bounded length."""
    text = plain(text)
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"
