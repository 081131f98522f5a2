"""What words on a command line name: an id or its beginning, a folder, or a line of settings as train.py takes it.

Every command that takes a run asks here. Words that are settings (key=value) and stand side by side are one line; a
quoted word with several settings is a line of its own: `moe-sweeps compare 'balancer=aux seed=1' 'balancer=lossfree'`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from moe_sweeps.cli.imports import lasting
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.host.reading import read_yaml
from moe_sweeps.host.shell import train_command
from moe_sweeps.records.find import find_run, is_setting
from moe_sweeps.records.rundir import RunDir

_OPENING = re.compile(r"[(\[{]")


@dataclass(frozen=True, slots=True)
class Line:
    """Settings that mean a run, or with several values several runs."""

    settings: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.settings)


def named(words: Sequence[str]) -> list[str | Line]:
    """The names and the lines in `words`, in their order."""
    found: list[str | Line] = []
    loose: list[str] = []  # settings that stand side by side
    for word in words:
        parts = _split(word)
        if parts is None or len(parts) > 1:
            found += [Line(tuple(loose))] if loose else []
            loose = []
            found.append(word if parts is None else Line(parts))
        else:
            loose += parts
    return found + ([Line(tuple(loose))] if loose else [])


def each_named(words: Sequence[str]) -> list[str | Line]:
    """The same for a command that sets runs side by side: every word is one of them, and a setting a line."""
    return [named([word])[0] for word in words]


def meant_today(folder: Path, run_id: str) -> str | None:
    """What the line that a run was typed as means today, where that is another run; None where it is the same.

    Defaults and scales change, and ids do not.
    """
    from moe_sweeps.experiment.compose import compose
    from moe_sweeps.experiment.identity import identity
    from moe_sweeps.sweep.grid import single

    try:
        typed = [str(word) for word in read_yaml(folder / "overrides.yaml") or []]
        found = identity(compose(single(typed)))["run_id"]
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        return f"the line cannot be read ({error})"
    except MoeSweepsError as error:
        return f"the line is refused today: {error}"
    if found == run_id:
        return None
    return f"the line means another run today, {found}, because a default or a scale has changed since"


def runs_of_line(line: Line, root: Path) -> tuple[list[RunDir], int]:
    """The runs of `root` that a line means, and how many more it means that have no folder.

    Raises:
        ConfigError: a setting is refused.
        MoeSweepsError: none of the runs that it means has a folder.
    """
    with lasting():
        from moe_sweeps.sweep.plan import make_plan

    ids = list(make_plan(line.settings).runs)
    found = [folder for run_id in ids if (folder := RunDir.find(root, run_id)) is not None]
    if not found:
        raise MoeSweepsError(_no_run(line, ids, root))
    return found, len(ids) - len(found)


def the_run(words: Sequence[str], root: Path) -> RunDir:
    """The one run that `words` mean.

    Raises:
        ConfigError: a setting is refused.
        MoeSweepsError: they mean none or several.
    """
    names = named(words)
    if len(names) != 1:
        raise MoeSweepsError(f"one run is wanted, and these name {len(names)}: {' '.join(words)}")
    what = names[0]
    if not isinstance(what, Line):
        return find_run(what, root)
    found, missing = runs_of_line(what, root)
    if len(found) + missing > 1:
        raise MoeSweepsError(f"{what} means {len(found) + missing} runs. Give each key one value.")
    return found[0]


def _split(word: str) -> tuple[str, ...] | None:
    """The settings in a word; None where it is a name."""
    if not is_setting(word):
        return None
    try:
        parts = [_unquoted(part) for part in _pieces(word)] if " " in word else [word]
    except ValueError:  # a quotation mark or a bracket without its other
        parts = [word]
    return tuple(parts) if all(map(is_setting, parts)) else (word,)


def _pieces(word: str) -> list[str]:
    """The parts of a word between spaces, those in brackets and quotes apart.

    Raises:
        ValueError: a quotation mark or a bracket without its other.
    """
    pieces, depth, quote, escaped = [""], 0, "", False
    for char in word:
        escapes = char == "\\" and not escaped and quote != "'"
        if not (escaped or escapes):
            is_mark = char == quote or (not quote and char in "'\"")
            quote = "" if char == quote else char if is_mark else quote
            depth += 0 if quote else (char in "([{") - (char in ")]}")
        if char.isspace() and not (escaped or quote or depth):
            pieces.append("")
        else:
            pieces[-1] += char
        escaped = escapes
    if quote or depth:
        raise ValueError("unbalanced")
    return [piece for piece in pieces if piece]


def _unquoted(piece: str) -> str:
    """Without the quotation marks and backslashes that a shell removes; a list keeps its own."""
    bare = shlex.split(piece)
    return piece if _OPENING.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", piece)) or len(bare) != 1 else bare[0]


def _no_run(line: Line, ids: Sequence[str], root: Path) -> str:
    what = f"the run {ids[0]}, which has no" if len(ids) == 1 else f"{len(ids)} runs, none of which has a"
    fix = train_command(line.settings, several=len(ids) > 1)
    return f"{line} means {what} folder in {root}. Train: {fix}"
