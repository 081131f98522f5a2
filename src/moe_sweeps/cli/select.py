"""The runs that words on a command line mean: those of a sweep, or one run (records/find.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_sweeps.cli.naming import Line, each_named, named, runs_of_line
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.records.find import find_either
from moe_sweeps.records.manifest import Manifest, load_manifests, manifest_path
from moe_sweeps.records.problem import Problem
from moe_sweeps.records.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Selection:
    """(label, folder) of each run; `never_started` counts planned runs without a folder."""

    runs: list[tuple[str, RunDir]]
    sweeps: list[Manifest]
    never_started: int = 0
    problems: tuple[Problem, ...] = ()  # manifests that cannot be read
    manifests: tuple[Manifest, ...] = ()  # of all sweeps here, the newest first
    root: Path = Path()

    def __bool__(self) -> bool:
        return bool(self.runs)

    def folder_of(self, sweep: Manifest) -> Path:
        """Where the manifest of a sweep lies, and the notes on it."""
        return manifest_path(self.root, sweep.sweep_id).parent


def select(words: Sequence[str], root: Path, *, each: bool = False) -> Selection:
    """The runs below `root` that `words` mean, each once; all of them without a word.

    `each`: every word stands for itself, so that two settings are two lines.

    Raises:
        MoeSweepsError: a word means nothing, or several things.
    """
    manifests, problems = load_manifests(root)
    if not words:
        runs_found = [(folder.path.name, folder) for folder in RunDir.all(root)]
        return Selection(runs_found, manifests, 0, tuple(problems), tuple(manifests), root)
    runs: dict[Path, tuple[str, RunDir]] = {}
    sweeps, missing = [], 0
    for what in each_named(words) if each else named(words):
        if isinstance(what, Line):
            folders, absent = runs_of_line(what, root)
            runs |= {run.path: (run.path.name, run) for run in folders if run.path not in runs}
            missing += absent
            continue
        _refuse_damaged(what, problems)
        found = find_either(what, manifests, root)
        if isinstance(found, RunDir):
            runs.setdefault(found.path, (found.path.name, found))
            continue
        sweeps.append(found)
        for run_id, planned in found.trained.items():
            path = root / planned.folder
            if path.is_dir():
                runs.setdefault(path, (run_label(found, run_id), RunDir(path)))
            else:
                missing += 1
    return Selection(list(runs.values()), sweeps, missing, (), tuple(manifests), root)


def _refuse_damaged(word: str, problems: Sequence[Problem]) -> None:
    for problem in problems:
        if word == problem.path.parent.name:
            raise MoeSweepsError(f"{problem}. Run the sweep's command again to rewrite it.")


def run_label(manifest: Manifest, run_id: str) -> str:
    """What a run is called in a sweep: its arm, its seed where there are several, and its number as a replicate."""
    planned = manifest.trained[run_id]
    parts = [planned.label]
    parts += [f"seed={planned.seed}"] if len({run.seed for run in manifest.runs.values()}) > 1 else []
    repeated = planned.trunk is not None and any(run.replicate for run in manifest.runs.values())
    parts += [f"replicate={planned.replicate}"] if repeated else []
    return " ".join(parts)
