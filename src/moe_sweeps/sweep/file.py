"""Sweep files: one question each, with its source, what is expected, its seeds and its grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from moe_sweeps.errors import ConfigError, nearest
from moe_sweeps.paths import SWEEPS


@dataclass(slots=True)
class SweepFile:
    """The content of `sweeps/<name>.yaml`. `grid` maps keys of the command line to their values."""

    question: str = MISSING
    source: str = MISSING
    expectation: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    grid: dict[str, list[Any]] = field(default_factory=dict)

    def overrides(self) -> list[str]:
        """The grid as it would be typed, seeds last."""
        axes = {**self.grid, "seed": self.seeds}
        return [f"{key}={','.join(str(v) for v in values)}" for key, values in axes.items()]


def load_sweep(name: str, folder: Path = SWEEPS) -> SweepFile:
    """The sweep file of this name.

    Raises:
        ConfigError: there is none, it has a key or value that a sweep file cannot have, or an axis without values.
    """
    names = sorted(p.stem for p in folder.glob("*.yaml"))
    if name not in names:
        close = nearest(name, names)
        fix = f"Did you mean sweep={close}?" if close else "Write one: sweeps/aux_coef.yaml is an example."
        raise ConfigError("sweep", name, f"the sweeps are {', '.join(names)}", fix)
    try:
        found = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(SweepFile), OmegaConf.load(folder / f"{name}.yaml"))
        )
    except OmegaConfBaseException as error:
        rule = str(error).splitlines()[0]
        raise ConfigError("sweep", name, f"sweeps/{name}.yaml cannot be read ({rule})", "Mend the file.") from error
    assert isinstance(found, SweepFile)
    for key, values in {**found.grid, "seeds": found.seeds}.items():
        if not values:
            raise ConfigError(
                key, "[]", f"the axis has no values in sweeps/{name}.yaml", "Give it one or leave it out."
            )
    return found
