"""Which runs are meant by a word: a sweep's id or name, a run's id or folder, or the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.results.manifest import Manifest, load_manifests
from moe_sweeps.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Selection:
    """Runs with what they are called where they were asked for. `never_started` counts those without a folder."""

    runs: list[tuple[str, RunDir]]
    sweeps: list[Manifest]
    never_started: int = 0

    def __bool__(self) -> bool:
        return bool(self.runs)


def select(words: Sequence[str], root: Path) -> Selection:
    """The runs below `root` that `words` mean, each once; all of them without a word.

    Raises:
        MoeSweepsError: a word means nothing, or several things.
    """
    from moe_sweeps.results.history import find_run  # with numpy, which most commands do without

    manifests, _ = load_manifests(root)
    if not words:
        return Selection([(folder.path.name, folder) for folder in RunDir.all(root)], manifests)
    runs: dict[Path, tuple[str, RunDir]] = {}
    sweeps, missing = [], 0
    for word in words:
        manifest = _sweep(word, manifests)
        if manifest is None:
            found = find_run(word, root)
            runs.setdefault(found.path, (found.path.name, found))
            continue
        sweeps.append(manifest)
        folders = {run_id: root / planned.folder for run_id, planned in manifest.runs.items()}
        for run_id, path in folders.items():
            if path.is_dir():
                runs.setdefault(path, (run_label(manifest, run_id), RunDir(path)))
            else:
                missing += 1
    return Selection(list(runs.values()), sweeps, missing)


def run_label(manifest: Manifest, run_id: str) -> str:
    """What a run is called in a sweep: its arm, and its seed where there are several."""
    planned = manifest.runs[run_id]
    several = len({run.seed for run in manifest.runs.values()}) > 1
    return f"{planned.label} seed={planned.seed}" if several else planned.label


def _sweep(word: str, manifests: Sequence[Manifest]) -> Manifest | None:
    """The sweep that is called `word`, or else the only one whose id begins with it."""
    found = [m for m in manifests if word in (m.sweep_id, m.slug)] or [m for m in manifests if m.name == word]
    found = found or [m for m in manifests if len(word) >= 3 and m.sweep_id.startswith(word)]
    if len(found) > 1:
        listed = "".join(f"\n  {m.sweep_id}  {m.created}  {m.command}" for m in found)
        raise MoeSweepsError(f"{word} means {len(found)} sweeps. Give the id of one:{listed}")
    return found[0] if found else None
