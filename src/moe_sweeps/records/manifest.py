"""A sweep's manifest, runs/sweeps/<sweep id>/manifest.json: what was asked for, known before the first run starts.

`Manifest` writes the file and reads it, those of earlier versions included. Nobody else looks into the JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from moe_sweeps.host.files import make_folder, write_json
from moe_sweeps.host.plain import file_name
from moe_sweeps.host.reading import MANIFEST_BYTES, is_name, read_json
from moe_sweeps.records.claims import Statement
from moe_sweeps.records.genuine import ID_LENGTH, REPLICATE_KEYS
from moe_sweeps.records.problem import Problem
from moe_sweeps.records.recovery import move_aside
from moe_sweeps.records.remarks import remarks_of

# 3: a run has its settings as data. Before that a run had them in its label alone, and requests as data.
VERSION = 3
FILE = "manifest.json"
RUN_ID = re.compile(r"[0-9a-f]{12}")
NOT_A_MANIFEST = (KeyError, TypeError, AttributeError, OverflowError)
PLAIN_ID = re.compile(r"[0-9A-Za-z]{1,40}")  # of a sweep; the planner's are twelve hex digits


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One combination of the grid, links followed, and the run that answers it.

    unread: knob without effect -> what would read it.
    """

    overrides: dict[str, str]
    run_id: str
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One distinct run of a sweep.

    `settings` are its values on the sweep's axes, without seeds and without knobs that nothing reads in it; `label`
    says the same in one line, or is the name of the run where nothing varies. `pruned`: the step at which a search that
    is over left it. `trunk`: the id of the run that a fork continues from, for the `replicate`-th time.
    """

    folder: str
    arm: str
    label: str
    seed: int
    settings: dict[str, str] = field(default_factory=dict)
    pruned: int | None = None
    trunk: str | None = None
    replicate: int = 0


@dataclass(frozen=True, slots=True)
class ForkRecord:
    """Where the runs of a sweep part: after `step` steps with the settings `recipe`, in the runs `trunks`."""

    step: int
    recipe: dict[str, str]
    trunks: dict[str, RunRecord]

    @property
    def question(self) -> str:
        """What every difference between the arms is about."""
        return f"from step {self.step} on"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What the sweep file says; all empty where there is none. `table`: the table that the sweep fills."""

    name: str = ""
    question: str = ""
    source: str = ""
    table: str = ""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A setting of the sweep file that was typed otherwise. `old` is empty where the file left the key alone."""

    key: str
    old: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.new)} instead of {','.join(self.old)}"


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One suggestion of a search. `target`: the step that it is trained to; None: its end.

    `same_as` is the number of an earlier trial with the same runs; `refused` says why the config refuses it.
    """

    params: dict[str, float | int | str]
    target: int | None = None
    same_as: int | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """What a search is, and its trials in the order in which they were suggested."""

    kind: str
    metric: str
    space: dict[str, str]
    seeds: tuple[str, ...]
    rungs: tuple[int, ...]
    reduction: int
    trials: tuple[TrialRecord, ...] = ()
    over: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """A sweep. The order of `runs` is the order of the table's rows. `baseline` is the id of an arm.

    `remarks`: what people wrote about it, which lies in a file of its own beside the manifest.
    """

    sweep_id: str
    name: str
    runs: dict[str, RunRecord]
    requested: tuple[RequestRecord, ...] = ()
    axes: dict[str, list[str]] = field(default_factory=dict)
    created: str = ""
    command: str = ""
    file: FileRecord = FileRecord()
    replaced: tuple[Replaced, ...] = ()
    baseline: str | None = None
    expect: tuple[Statement, ...] = ()
    search: SearchRecord | None = None
    fork: ForkRecord | None = None
    remarks: str = ""

    @property
    def trained(self) -> dict[str, RunRecord]:
        """Every run that the sweep needs, trunks first."""
        return (self.fork.trunks if self.fork else {}) | self.runs

    @property
    def moment(self) -> float:
        """When it was made, in seconds since 1970: comparable across time zones."""
        return datetime.fromisoformat(self.created).timestamp() if self.created else 0.0

    @property
    def is_of_plan(self) -> bool:
        """Whether its id is that of its set of runs; a look of `moe-sweeps decide` has an id of its own."""
        return self.sweep_id == sweep_id_of(self.name, self.runs)

    @property
    def table(self) -> str:
        """The name of the table that the sweep fills."""
        return self.file.table or self.name

    @property
    def slug(self) -> str:
        """The sweep as a folder's name, different for different ids: what follows the last "-" is the id alone."""
        if not self.sweep_id:  # runs outside any sweep
            return file_name(self.name)
        own = PLAIN_ID.fullmatch(self.sweep_id)
        number = self.sweep_id if own else f"_{hashlib.sha256(repr(self.sweep_id).encode()).hexdigest()[:12]}"
        return f"{file_name(self.name)}-{number}"

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read one manifest.json.

        Raises:
            FileNotFoundError: there is no such file.
            OSError, ValueError: it cannot be read, or is no manifest.
        """
        try:
            manifest = cls.from_dict(read_json(path, MANIFEST_BYTES))
            manifest._require_types()
        except NOT_A_MANIFEST as error:
            raise ValueError(f"it is not a sweep's manifest ({type(error).__name__}: {error})") from None
        manifest._require_place(path)
        return dataclasses.replace(manifest, remarks=remarks_of(path.parent).line)

    def write(self, runs_root: Path) -> Path:
        """Write the manifest where it belongs below the runs folder; returns where that is."""
        path = manifest_path(runs_root, self.sweep_id)
        make_folder(path.parent)
        if path.is_dir():
            move_aside(path)
        write_json(path, self.to_dict(), durable=True)
        return path

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Manifest:
        """Read what `to_dict` wrote, in this version or an earlier one.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is no manifest.
        """
        requested = tuple(_request(entry) for entry in content["requested"])
        axes = {k: [str(v) for v in values] for k, values in (content.get("axes") or {}).items()}
        before_3 = _settings_by_run(requested, axes)
        search, fork = content.get("search"), content.get("fork")
        return cls(
            sweep_id=str(content["sweep_id"]),
            name=str(content.get("name") or "sweep"),
            runs={id_: _planned(planned, before_3.get(id_, {})) for id_, planned in content["runs"].items()},
            requested=requested,
            axes=axes,
            created=datetime.fromisoformat(content["created"]).isoformat(),
            command=str(content.get("command") or ""),
            file=_file(content.get("file") or {}),
            replaced=tuple(_replaced(entry) for entry in content.get("replaced") or ()),
            baseline=content.get("baseline"),
            expect=tuple(Statement.from_dict(statement) for statement in content.get("expect") or ()),
            search=_search(search) if search else None,
            fork=_fork(fork) if fork else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for manifest.json."""
        content: dict[str, Any] = {
            "version": VERSION,
            "sweep_id": self.sweep_id,
            "name": self.name,
            "created": self.created,
            "command": self.command,
            "axes": self.axes,
        }
        if self.file != FileRecord():
            content["file"] = {k: getattr(self.file, k) for k in ("name", "question", "source", "table")}
            content["replaced"] = [{"key": r.key, "old": list(r.old), "new": list(r.new)} for r in self.replaced]
            content["expect"] = [statement.to_dict() for statement in self.expect]
        content["baseline"] = self.baseline
        content["requested"] = [
            {"overrides": r.overrides, "run_id": r.run_id, "unread": r.unread} for r in self.requested
        ]
        content["runs"] = {run_id: _planned_dict(planned) for run_id, planned in self.runs.items()}
        content |= {"search": _search_dict(self.search)} if self.search else {}
        return content | ({"fork": _fork_dict(self.fork)} if self.fork else {})

    def _require_types(self) -> None:
        """Raise TypeError for a value that no planner has written: what follows relies on them."""
        for planned in self.trained.values():
            are_counts = planned.pruned is None or type(planned.pruned) is int, type(planned.replicate) is int
            texts = (planned.folder, planned.arm, planned.label, planned.trunk or "")
            if not (all(isinstance(text, str) for text in texts) and type(planned.seed) is int and all(are_counts)):
                raise TypeError(f"{planned!r} is no planned run")
        if not all(isinstance(request.run_id, str) for request in self.requested):
            raise TypeError("requested has a run id that is no text")
        if not isinstance(self.baseline, str | None):
            raise TypeError("baseline is no text")

    def _require_place(self, path: Path) -> None:
        """Raise ValueError unless it is the manifest of its folder, with runs in the runs folder above."""
        if not self.runs:
            raise ValueError("it lists no runs")
        if self.sweep_id != path.parent.name:
            raise ValueError(f"it says that it is sweep {self.sweep_id!r}, and lies in the folder {path.parent.name}")
        for run_id, planned in self.trained.items():
            if not (is_name(planned.folder) and planned.folder.endswith(f"-{run_id}") and RUN_ID.fullmatch(run_id)):
                raise ValueError(f"{planned.folder!r} is no folder of run {run_id!r}")


def spell_settings(settings: Mapping[str, str]) -> str:
    """Settings in one line, as they are typed."""
    return " ".join(f"{key}={value}" for key, value in settings.items())


def sweep_id_of(name: str, runs: Iterable[str]) -> str:
    """The same set of runs under one name is the same sweep, in whatever order it was typed."""
    return hashlib.sha256(json.dumps([name, sorted(runs)]).encode()).hexdigest()[:ID_LENGTH]


def manifest_path(runs_root: Path, sweep_id: str) -> Path:
    """Where the manifest of a sweep lies, or would lie."""
    return runs_root / "sweeps" / sweep_id / FILE


def decision_path(runs_root: Path, key: str) -> Path:
    """Where the record of a decision lies, or would lie (sweep/decide/record.py)."""
    return runs_root / "sweeps" / f"decide-{key}" / "decide.json"


def decisions(runs_root: Path) -> list[Path]:
    """The records of all decisions here."""
    return sorted((runs_root / "sweeps").glob(decision_path(Path(), "*").relative_to("sweeps").as_posix()))


def first_created(runs_root: Path, sweep_id: str) -> str:
    """When a sweep was typed first; now, if it never was or its manifest cannot be read."""
    try:
        return Manifest.load(manifest_path(runs_root, sweep_id)).created
    except (OSError, ValueError):
        return datetime.now().astimezone().isoformat(timespec="seconds")


def load_manifests(root: Path) -> tuple[list[Manifest], list[Problem]]:
    """Every sweep under the runs folder `root`, the newest first, and the manifests that cannot be read."""
    manifests: list[Manifest] = []
    problems: list[Problem] = []
    for path in sorted((root / "sweeps").glob(f"[!.]*/{FILE}")):
        try:
            manifests.append(Manifest.load(path))
        except (OSError, ValueError) as error:
            problems.append(Problem(path, f"the manifest cannot be read: {error}"))
    manifests.sort(key=lambda m: m.moment, reverse=True)
    return manifests, problems


# --- parts ------------------------------------------------------------------------------------------------------------


def _request(entry: Mapping[str, Any]) -> RequestRecord:
    return RequestRecord(_texts(entry["overrides"]), entry["run_id"], _texts(entry.get("unread")))


def _planned(entry: Mapping[str, Any], before_3: dict[str, str]) -> RunRecord:
    """`before_3`: the settings of a run without such an entry, if its label is made of them and no free text."""
    is_made_of_them = entry["label"] == spell_settings(before_3)
    settings = _texts(entry["settings"]) if "settings" in entry else before_3 if is_made_of_them else {}
    fork = entry.get("trunk"), entry.get("replicate", 0)
    return RunRecord(entry["folder"], entry["arm"], entry["label"], entry["seed"], settings, entry.get("pruned"), *fork)


def _planned_dict(planned: RunRecord) -> dict[str, Any]:
    content: dict[str, Any] = {"folder": planned.folder, "arm": planned.arm, "label": planned.label}
    content |= {"seed": planned.seed, "settings": planned.settings}
    content |= {} if planned.pruned is None else {"pruned": planned.pruned}
    return content | ({} if planned.trunk is None else {"trunk": planned.trunk, "replicate": planned.replicate})


def _settings_by_run(requested: Iterable[RequestRecord], axes: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Run id -> the settings that its label spells out, by the first combination that asked for it."""
    found: dict[str, dict[str, str]] = {}
    for request in requested:
        shown = {k: v for k, v in request.overrides.items() if k in axes and k not in request.unread}
        found.setdefault(request.run_id, {k: v for k, v in shown.items() if k not in REPLICATE_KEYS})
    return found


def _file(entry: Mapping[str, Any]) -> FileRecord:
    return FileRecord(**{k: v for k, v in _texts(entry).items() if k in FileRecord.__slots__})


def _replaced(entry: Mapping[str, Any]) -> Replaced:
    old, new = (tuple(map(str, entry[which])) for which in ("old", "new"))
    return Replaced(str(entry["key"]), old, new)


def _search(entry: Mapping[str, Any]) -> SearchRecord:
    return SearchRecord(
        kind=str(entry["kind"]),
        metric=str(entry["metric"]),
        space=_texts(entry.get("space")),
        seeds=tuple(map(str, entry.get("seeds") or ())),
        rungs=tuple(map(int, entry.get("rungs") or ())),
        reduction=int(entry.get("reduction") or 1),
        trials=tuple(_trial(trial) for trial in entry["trials"]),
        over=entry.get("over") is True,
    )


def _fork(entry: Mapping[str, Any]) -> ForkRecord:
    trunks = {id_: _planned(planned, {}) for id_, planned in entry["trunks"].items()}
    return ForkRecord(int(entry["step"]), _texts(entry.get("recipe")), trunks)


def _fork_dict(fork: ForkRecord) -> dict[str, Any]:
    trunks = {run_id: _planned_dict(planned) for run_id, planned in fork.trunks.items()}
    return {"step": fork.step, "recipe": fork.recipe, "trunks": trunks}


def _trial(entry: Mapping[str, Any]) -> TrialRecord:
    target, same_as = entry["target"], entry.get("same_as")
    target = None if target is None else int(target)
    return TrialRecord(dict(entry["params"]), target, same_as, entry.get("refused"))


def _search_dict(search: SearchRecord) -> dict[str, Any]:
    content: dict[str, Any] = {"kind": search.kind, "metric": search.metric, "space": search.space}
    content |= {"seeds": list(search.seeds), "rungs": list(search.rungs), "reduction": search.reduction}
    names = ("params", "target", "same_as", "refused")
    return content | {"trials": [{n: getattr(t, n) for n in names} for t in search.trials], "over": search.over}


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {str(k): str(v) for k, v in (values or {}).items()}
