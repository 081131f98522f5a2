"""Which run or sweep a word means: every command that takes one asks here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from moe_sweeps.errors import MoeSweepsError, nearest
from moe_sweeps.host.files import exists
from moe_sweeps.paths import TRAIN
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.rundir import RunDir

T = TypeVar("T")
RunTest = Callable[[str, RunDir], bool]
SweepTest = Callable[[str, Manifest], bool]

# The ways to name a run, the strictest first. The first way that fits any run decides.
RUN_NAMES: list[RunTest] = [
    lambda word, run: word in (run.run_id, run.path.name),
    lambda word, run: run.run_id.startswith(word),
    lambda word, run: run.path.name.startswith(word),
]
SHORTEST_BEGINNING = 3  # of a sweep's id: a shorter word is more likely a run
# The same for a sweep. A name may mean several sweeps: the same question asked of other runs.
SWEEP_NAMES: list[SweepTest] = [
    lambda word, sweep: word in (sweep.sweep_id, sweep.slug),
    lambda word, sweep: word == sweep.name,
    lambda word, sweep: word == sweep.table,
    lambda word, sweep: len(word) >= SHORTEST_BEGINNING and sweep.sweep_id.startswith(word),
]
_SHOWN = 5  # folders that a message lists


def find_run(word: str, runs_root: Path, sweeps: Sequence[Manifest] = ()) -> RunDir:
    """The run that `word` means: a run folder's path, or one of RUN_NAMES among the runs of `runs_root`.

    `sweeps`: what the word might have meant instead, for the message.

    Raises:
        MoeSweepsError: no run or several are meant.
    """
    path = _path(word)
    if word and _is_folder(path) and exists(path / "identity.json"):
        return RunDir(_unfollowed(path))
    runs = RunDir.all(runs_root)
    if word and _is_folder(path) and (own := _unfollowed(path)) in {run.path.absolute() for run in runs}:
        return RunDir(own)  # one of these, though its identity.json is lost
    if not runs:
        raise MoeSweepsError(f"there are no runs in {runs_root}. Start one: {TRAIN} scale=smoke")
    found = _meant(word, runs, RUN_NAMES)
    if not found:
        raise MoeSweepsError(_no_such_run(word, path, runs, runs_root, sweeps))
    if len(found) > 1:
        fix = "Type more of the name, or give the folder."
        raise MoeSweepsError(f"{word} means {len(found)} runs: {_listed(found)}. {fix}")
    return found[0]


def find_sweeps(word: str, sweeps: Sequence[Manifest]) -> list[Manifest]:
    """The sweeps that `word` means, in their order; none if it means no sweep."""
    return _meant(word, sweeps, SWEEP_NAMES)


def find_sweep(word: str, sweeps: Sequence[Manifest]) -> Manifest | None:
    """The only sweep that `word` means; None if it means none.

    Raises:
        MoeSweepsError: it means several.
    """
    found = find_sweeps(word, sweeps)
    if len(found) > 1:
        listed = "".join(f"\n  {m.sweep_id}  {m.created}  {m.command}" for m in found)
        raise MoeSweepsError(f"{word} means {len(found)} sweeps. Give the id of one:{listed}")
    return found[0] if found else None


def find_either(word: str, sweeps: Sequence[Manifest], runs_root: Path) -> Manifest | RunDir:
    """The one sweep or the one run that `word` means. A whole name of the one comes before a beginning of the other.

    Raises:
        MoeSweepsError: it means nothing, or several of them.
    """
    folder = _path(word)
    own = [
        sweep for sweep in sweeps if word and _unfollowed(folder) == runs_root.absolute() / "sweeps" / sweep.sweep_id
    ]
    sweep = own[0] if own else find_sweep(word, sweeps)
    if sweep is None:
        return find_run(word, runs_root, sweeps)
    if own or not SWEEP_NAMES[-1](word, sweep) or word == sweep.sweep_id:
        return sweep
    runs = _meant(word, RunDir.all(runs_root), RUN_NAMES)
    if runs and not any(RUN_NAMES[0](word, run) for run in runs):
        raise MoeSweepsError(
            f"{word} means the sweep {sweep.slug} and {len(runs)} {'run' if len(runs) == 1 else 'runs'}: "
            f"{_listed(runs)}. Type more of the one that you mean."
        )
    return runs[0] if runs else sweep


def is_setting(word: str) -> bool:
    """Whether `word` is an override such as `aux.coef=0.1`, where a run may be named as well."""
    return "=" in word and not _is_folder(Path(word))


def _path(word: str) -> Path:
    try:
        return Path(word).expanduser()
    except RuntimeError:  # ~name of a user who does not exist
        return Path(word)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a long line, or one with a NUL, is no name of a file
        return False


def _unfollowed(path: Path) -> Path:
    """An absolute path whose last part is not followed if it is a link: no run folder is one."""
    return path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()


def _meant(word: str, things: Sequence[T], ways: Sequence[Callable[[str, T], bool]]) -> list[T]:
    """What the strictest way that fits anything finds."""
    by_way = ([thing for thing in things if way(word, thing)] for way in ways) if word else ()
    return next(filter(None, by_way), [])


def _no_such_run(word: str, path: Path, runs: Sequence[RunDir], runs_root: Path, sweeps: Sequence[Manifest]) -> str:
    if word and _is_folder(path):
        return f"{word} is a folder, but not a run folder: it has no identity.json"
    names = list(dict.fromkeys(name for sweep in sweeps for name in (sweep.name, sweep.sweep_id)))
    guess = nearest(path.name or word, [*(name for run in runs for name in (run.run_id, run.path.name)), *names])
    others = f"; sweeps: {', '.join(dict.fromkeys(sweep.name for sweep in sweeps))}" if sweeps else ""
    hint = f"Did you mean {guess}?" if guess else f"There are: {_listed(runs)}{others}."
    return f"no run in {runs_root} is called {word!r}. {hint}"


def _listed(runs: Sequence[RunDir]) -> str:
    more = f" and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else ""
    return ", ".join(run.path.name for run in runs[:_SHOWN]) + more
