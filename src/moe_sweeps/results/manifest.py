"""A sweep's manifest: what was asked for, known before the first run starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from moe_sweeps.files import read_json
from moe_sweeps.results.problem import Problem


@dataclass(frozen=True, slots=True)
class Request:
    """One combination of the grid and the run that answers it. unread: knob without effect -> what would read it."""

    overrides: dict[str, str]
    run_id: str
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One distinct run of a sweep. `pruned`: the step at which a search that is over left it."""

    folder: str
    arm: str
    label: str
    seed: int
    pruned: int | None = None

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> PlannedRun:
        return cls(content["folder"], content["arm"], content["label"], content["seed"], content.get("pruned"))


@dataclass(frozen=True, slots=True)
class Manifest:
    """A sweep. The order of `runs` is the order of the table's rows."""

    sweep_id: str
    name: str
    runs: dict[str, PlannedRun]
    requested: tuple[Request, ...] = ()
    axes: dict[str, list[str]] = field(default_factory=dict)
    created: str = ""
    command: str = ""
    file: dict[str, str] = field(default_factory=dict)  # of the sweep file: name, question, source, table
    replaced: tuple[str, ...] = ()  # what was typed in place of the sweep file's values
    baseline: str | None = None  # arm id
    expect: tuple[dict[str, Any], ...] = ()  # statements bound to arm ids; see claims.py
    search: dict[str, Any] = field(default_factory=dict)  # of a search: sampler, metric, space, rungs, trials

    @property
    def table(self) -> str:
        """The name of the table that the sweep fills."""
        return self.file.get("table") or self.name

    @property
    def question(self) -> str:
        return self.file.get("question", "")

    @property
    def slug(self) -> str:
        """The sweep as a folder's name."""
        parts = [p for p in (self.name, self.sweep_id) if p]
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in "-".join(parts)).lstrip(".")

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Manifest:
        asked = content["requested"]
        return cls(
            sweep_id=str(content["sweep_id"]),
            name=str(content.get("name") or "sweep"),
            runs={run_id: PlannedRun.from_dict(planned) for run_id, planned in content["runs"].items()},
            requested=tuple(Request(_texts(r["overrides"]), r["run_id"], _texts(r.get("unread"))) for r in asked),
            axes={k: [str(v) for v in values] for k, values in (content.get("axes") or {}).items()},
            created=datetime.fromisoformat(content["created"]).isoformat(),
            command=str(content.get("command") or ""),
            file=_texts(content.get("file")),
            replaced=tuple(_replaced(e) for e in content.get("replaced") or () if e["old"]),
            baseline=content.get("baseline"),
            expect=tuple(dict(statement) for statement in content.get("expect") or ()),
            search=dict(content.get("search") or {}),
        )


def load_manifest(path: Path) -> Manifest:
    """Read one manifest.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a manifest.
    """
    try:
        manifest = Manifest.from_dict(read_json(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is not a sweep's manifest ({type(error).__name__}: {error})") from None
    if not manifest.runs:
        raise ValueError("it lists no runs")
    return manifest


def load_manifests(root: Path) -> tuple[list[Manifest], list[Problem]]:
    """Every sweep under the runs folder `root`, the newest first, and the manifests that cannot be read."""
    manifests: list[Manifest] = []
    problems: list[Problem] = []
    for path in sorted((root / "sweeps").glob("[!.]*/manifest.json")):
        try:
            manifests.append(load_manifest(path))
        except (OSError, ValueError) as error:
            problems.append(Problem(path, f"the manifest cannot be read: {error}"))
    manifests.sort(key=lambda m: datetime.fromisoformat(m.created).timestamp(), reverse=True)
    return manifests, problems


def _replaced(entry: dict[str, Any]) -> str:
    old, new = (",".join(map(str, entry[which])) for which in ("old", "new"))
    return f"{entry['key']}={new} instead of {old}"


def _texts(values: dict[str, Any] | None) -> dict[str, str]:
    return {str(k): str(v) for k, v in (values or {}).items()}
