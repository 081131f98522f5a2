"""Forks of a grid: which trunk each combination continues from, and how often.

A combination with `fork.step` gets `fork.replicate` for each replicate, and the ids of its trunk. The trunk's recipe is
that of the combination which the sweep file calls its baseline, without a file the first one; `fork.trunk` replaces it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moe_sweeps.errors import ConfigError, nearest
from moe_sweeps.experiment.compose import compose
from moe_sweeps.experiment.forking import refusals
from moe_sweeps.experiment.identity import SEED_KEYS, identity
from moe_sweeps.experiment.overrides import Setting, parse
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.sweep.block import same_value
from moe_sweeps.sweep.file import matches

if TYPE_CHECKING:
    from moe_sweeps.sweep.grid import Grid

STEP, TRUNK, ROLE, REPLICATES, REPLICATE = (
    f"fork.{name}" for name in ("step", "trunk", "role", "replicates", "replicate")
)
FILLED_IN = ("fork.arm", "fork.run")
ONE_QUESTION = "a sweep asks one question, and from which step on is a part of it"
ONE_RECIPE = "a trunk has the seeds and the fork of its arms, and one value of each other setting"
WITHOUT = "~"  # before a key in fork.trunk: the arm's setting is none of the trunk
# Settings of an arm that its trunk does not have, besides those of the fork.
NOT_OF_TRUNKS = ("trainer.stop_at",)


def forked(grid: Grid) -> Grid:
    """The grid with every fork's replicates and trunk filled in; itself where nothing is forked.

    Raises:
        ConfigError: forked and unforked combinations, several forks, or a trunk that cannot be composed.
    """
    if not any(setting.key.startswith("fork.") for c in grid.combinations for setting in c):
        return grid
    _require_one_question(grid)
    grid = _without_empty_recipes(grid)
    if not _is_forked(grid.combinations[0]):
        return grid
    combinations = [one for c in grid.combinations for one in _replicates(c)]
    whole = dataclasses.replace(grid, combinations=combinations, axes=_axes(grid, combinations))
    trunks = [trunk_settings(c, whole) for c in combinations]
    ids = {trunk: _ids(trunk) for trunk in dict.fromkeys(trunks)}
    pairs = zip(combinations, trunks, strict=True)
    filled = [(*c, *_recipe(c, trunk, whole.axes), *ids[trunk]) for c, trunk in pairs]
    return dataclasses.replace(whole, combinations=filled)


def trunk_settings(combination: Sequence[Setting], grid: Grid) -> tuple[Setting, ...]:
    """The settings of the trunk that `combination` continues from.

    Raises:
        ConfigError: no combination has the settings of the sweep file's baseline.
    """
    own = {s.key: s for s in combination}
    if TRUNK in own and (typed := _typed_recipe(own[TRUNK])):
        recipe = [s for s in combination if s.key not in grid.axes and s.key not in typed]
        recipe += [Setting(key, value) for key, value in typed.items() if value is not None]
    else:
        recipe = list(_baseline(grid))
    kept = [s for s in recipe if not _is_of_arms(s.key) and s.key not in NOT_OF_TRUNKS]
    seeds = [own[key] for key in SEED_KEYS if key in own]
    return (*kept, *seeds, own[STEP], Setting(ROLE, "trunk"))


def trunk_of(combination: Sequence[Setting], grid: Grid, run: RunConfig) -> tuple[tuple[Setting, ...], RunConfig]:
    """Settings and config of the trunk of `run`, which `combination` describes.

    Raises:
        ConfigError: `run` differs from its trunk in what a fork cannot change.
    """
    settings = trunk_settings(combination, grid)
    trunk = _composed(settings)
    for error in refusals(run, trunk):
        error.add_note(f"forked from the trunk {' '.join(map(str, settings))}")
        raise error
    return settings, trunk


def _replicates(combination: Sequence[Setting]) -> list[tuple[Setting, ...]]:
    own = {s.key: s.value for s in combination}
    if REPLICATES not in own:
        return [tuple(combination)]
    if REPLICATE in own:
        raise ConfigError(REPLICATES, own[REPLICATES], f"{REPLICATE} says which one is wanted", "Leave one out.")
    count = compose([Setting(REPLICATES, own[REPLICATES])]).fork.replicates
    rest = [s for s in combination if s.key != REPLICATES]
    return [(*rest, Setting(REPLICATE, str(number))) for number in range(count)]


def _recipe(combination: Sequence[Setting], trunk: Sequence[Setting], axes: Mapping[str, list[str]]) -> list[Setting]:
    """The trunk's settings on the axes as `fork.trunk`, so that a run's own line says what it continues from."""
    has, swept = {s.key for s in trunk}, {key for key in axes if not _is_of_arms(key)} - {*NOT_OF_TRUNKS}
    recipe = [str(s) for s in trunk if s.key in swept]
    recipe += [f"{WITHOUT}{s.key}" for s in combination if s.key in swept and s.key not in has]
    if not recipe or any(s.key == TRUNK for s in combination):
        return []
    quoted = ",".join("'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'" for text in recipe)
    return [Setting(TRUNK, f"[{quoted}]")]


def _ids(trunk: tuple[Setting, ...]) -> tuple[Setting, Setting]:
    found = identity(_composed(trunk))  # quoted: digits with an e are no number here
    return Setting("fork.arm", f"'{found['arm']}'"), Setting("fork.run", f"'{found['run_id']}'")


def _composed(settings: tuple[Setting, ...]) -> RunConfig:
    try:
        return compose(settings)
    except ConfigError as error:
        error.add_note(f"in the trunk {' '.join(map(str, settings))}")
        raise


def _baseline(grid: Grid) -> Sequence[Setting]:
    """The combination that is the trunk's recipe."""
    if grid.file is None:
        return grid.combinations[0]
    chosen = grid.file.baseline
    found = [c for c in grid.combinations if matches(chosen, {s.key: s.value for s in c})]
    if not found:
        spelt = " ".join(f"{k}={v}" for k, v in chosen.items())
        rule = f"no combination is left with the settings of the file's baseline ({spelt})"
        raise ConfigError(TRUNK, "[]", rule, f"Name a recipe: {TRUNK}='[key=value]'.")
    return found[0]


def _typed_recipe(setting: Setting) -> dict[str, str | None]:
    """Key -> value of what `fork.trunk` lists; None where an arm's setting is left out, as in ~balancer.rate.

    Raises:
        ConfigError: an item is no setting, or one that all of a sweep's trunks have from their arms.
    """
    items = _items(setting)
    found: dict[str, str | None] = {item[1:]: None for item in items if item.startswith(WITHOUT)}
    for override in parse([item for item in items if not item.startswith(WITHOUT)]):
        if override.is_sweep_override():
            raise ConfigError(TRUNK, override.input_line, ONE_RECIPE, "Leave it out.")
        found[override.key_or_group] = (override.input_line or "").partition("=")[2]
    for key in filter(_is_of_arms, found):
        text = f"{WITHOUT}{key}" if found[key] is None else f"{key}={found[key]}"
        raise ConfigError(TRUNK, text, ONE_RECIPE, "Leave it out.")
    return found


def _items(setting: Setting) -> list[str]:
    """What `fork.trunk` lists, as texts; null lists nothing."""
    meaning: Any = setting.meaning
    return [str(item) for item in (meaning if isinstance(meaning, list) else [meaning]) if item is not None]


def _is_of_arms(key: str) -> bool:
    """Whether a trunk has this from its arms: seeds and the fork."""
    return key in SEED_KEYS or key.startswith("fork.")


def _without_empty_recipes(grid: Grid) -> Grid:
    """The grid without `fork.trunk=[]` and null, which say no more than nothing does."""
    combinations = [tuple(s for s in c if s.key != TRUNK or _items(s)) for c in grid.combinations]
    return dataclasses.replace(grid, combinations=combinations)


def _is_forked(combination: Sequence[Setting]) -> bool:
    own = {s.key: s.value for s in combination}
    return own.get(STEP, "null").lower() != "null" and own.get(ROLE) != "trunk"


def _require_one_question(grid: Grid) -> None:
    """Refuse forks that cannot be compared with each other, and what the plan fills in itself."""
    for key in FILLED_IN:
        typed = next((s.value for c in grid.combinations for s in c if s.key == key), None)
        if typed is not None:
            raise ConfigError(key, typed, "the plan fills it in from fork.trunk", "Leave it out.")
    forks = [{s.key: s.value for s in c if s.key.startswith("fork.")} for c in grid.combinations]
    for key in (STEP, TRUNK, ROLE, REPLICATES, "fork.noise"):
        values = list(dict.fromkeys(str(fork.get(key, "absent")) for fork in forks))
        if not all(same_value(values[0], value) for value in values):
            raise ConfigError(key, ", ".join(values[:3]), ONE_QUESTION, "Type a line for each.")
    _require_known(grid)


def _require_known(grid: Grid) -> None:
    """Refuse ~key for a key that no combination has: a misspelt one would leave the setting in the trunk."""
    recipe = next((s for s in grid.combinations[0] if s.key == TRUNK), None)
    known = {s.key for c in grid.combinations for s in c}
    for item in _items(recipe) if recipe else ():
        key = item.removeprefix(WITHOUT)
        if item != key and key not in known:
            close = nearest(key, sorted(known))
            fix = f"Did you mean {WITHOUT}{close}?" if close else "Leave it out."
            raise ConfigError(TRUNK, item, "this line has no such setting that the trunk could be without", fix)


def _axes(grid: Grid, combinations: Sequence[Sequence[Setting]]) -> dict[str, list[str]]:
    numbers = list(dict.fromkeys(s.value for c in combinations for s in c if s.key == REPLICATE))
    axes = {key: values for key, values in grid.axes.items() if key != REPLICATES}
    return axes | ({REPLICATE: numbers} if len(numbers) > 1 else {})
