"""Reading a frozen run back. Separate from freeze.py, so that a worker's code version does not include that."""

from __future__ import annotations

import sys

from moe_sweeps.config.outside import problems as left_out
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.errors import ConfigError, MoeSweepsError, RunFolderError
from moe_sweeps.experiment.frozen import from_dict
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.records.genuine import RECORD, flatten, why_no_evidence
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.records.small_files import MOVE_AWAY


def frozen_run(folder: RunDir) -> RunConfig:
    """The run that a folder's config.yaml holds.

    Raises:
        MoeSweepsError: it uses a component of a package that this Python does not have.
        ConfigError: it was written by other code.
        RunFolderError: it was edited, so that it no longer matches its run id.
    """
    _require_genuine(folder)
    try:
        return from_dict(folder.config())
    except ConfigError as error:
        _require_components(folder.provenance().get("components", {}), error)
        raise


def _require_genuine(folder: RunDir) -> None:
    identity, kept = folder.identity(), folder.provenance().get(RECORD)
    edited = why_no_evidence(flatten(folder.config()), identity, flatten(identity.get("canonical") or {}), kept)
    if edited:
        raise RunFolderError(f"{folder.path}: {edited}. {MOVE_AWAY}")


def _require_components(needed: dict[str, str], error: ConfigError) -> None:
    pairs = {key: tuple(key.split("=", 1)) for key in needed}
    missing = [f"{key} of {needed[key]}" for key, (group, kind) in pairs.items() if kind not in REGISTRY.get(group, {})]
    if missing:
        fix = left_out() or f"Install it for {sys.executable}, and train the run again."
        raise MoeSweepsError(f"the run needs {', '.join(missing)}, which this Python does not have. {fix}") from error
