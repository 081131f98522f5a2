"""tables/<name>.yaml: how the table of a sweep is laid out. A sweep without one gets the plain list of its arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from moe_sweeps.errors import ConfigError, nearest
from moe_sweeps.paths import REPOSITORY
from moe_sweeps.results.columns import FURTHER, METRICS

TABLES = REPOSITORY / "tables"
FIGURES = ("curves", "heat", "turning_point", "maxvio", "tradeoff", "equal_time")


@dataclass(frozen=True, slots=True)
class GridLayout:
    """A second view: `metrics` with the values of one setting down the side and of another along the top."""

    rows: str
    columns: str
    metrics: tuple[str, ...] = ("val_loss",)


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """What a table shows besides the list of its arms. `recommends` is what the summary table calls its finding."""

    name: str = ""
    title: str = ""
    grid: GridLayout | None = None
    columns: tuple[str, ...] = ()  # settings with a column each, where they tell the arms apart; else as they vary
    metrics: tuple[str, ...] = ()  # columns besides those of every table
    published: tuple[str, ...] = ()  # experiments of reference/talk_results.csv
    setting: str = ""  # how the published runs differ, besides what all of them share
    axis: str = ""  # the setting along which figures draw a line
    figures: tuple[str, ...] = ("curves", "maxvio", "tradeoff")
    recommends: str = ""


GENERIC = TableDefinition()


def load_definition(name: str, folder: Path = TABLES) -> TableDefinition:
    """The definition of the table `name`, or the generic one if there is no such file.

    Raises:
        ConfigError: the file has an unknown key, metric or figure.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        return GENERIC
    content = yaml.safe_load(path.read_text())
    _only("table", content, [f.name for f in fields(TableDefinition)])
    grid = content.pop("grid", None)
    if grid is not None:
        _only("grid", grid, [f.name for f in fields(GridLayout)])
        grid = GridLayout(grid["rows"], grid["columns"], tuple(grid.get("metrics", ("val_loss",))))
        shown = [*(metric.column for metric in METRICS), *content.get("metrics", ())]
        _only("grid.metrics", dict.fromkeys(grid.metrics), shown)
    _only("metrics", dict.fromkeys(content.get("metrics", ())), [metric.column for metric in FURTHER])
    for key in ("columns", "published", "figures", "metrics"):
        if key in content:
            content[key] = tuple(content[key])
    _only("figures", dict.fromkeys(content.get("figures", ())), FIGURES)
    return TableDefinition(**{**content, "name": name, "grid": grid})


def _only(where: str, content: Mapping[str, Any], valid: Any) -> None:
    for key in content:
        if key not in valid:
            close = nearest(key, valid)
            fix = f"Did you mean {close}?" if close else "Leave it out."
            raise ConfigError(where, key, f"it must be one of {', '.join(valid)}", fix)
