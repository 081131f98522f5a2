"""Configs of the trackers that mirror run folders: never part of a run's identity, and no field takes a key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from moe_sweeps.config.registry import Component, component, knob


@component("tracking", "none")
@dataclass(slots=True)
class TrackingConfig(Component):
    """Mirrors of metrics.jsonl. `none`: the run folder is all there is."""

    INFRA: ClassVar[bool] = True
    kind: str = "none"


class WandbMode(Enum):
    """Where wandb's data go."""

    online = "online"
    offline = "offline"  # files in the run folder, which `wandb sync` sends later
    disabled = "disabled"  # nowhere, as with tracking=none


@dataclass(slots=True)
class MirrorConfig(TrackingConfig):
    """What every tracker has."""

    # When training is over, a tracker that does not answer for so long is given up; `track sync` sends the rest.
    finish_seconds: float = knob(15.0, gt=0)


@component("tracking", "wandb")
@dataclass(slots=True)
class WandbConfig(MirrorConfig):
    """A wandb run a run: its id is the run id, its group the sweep. The API key is wandb's own business."""

    kind: str = "wandb"
    mode: WandbMode = WandbMode.online
    project: str = "moe_sweeps"  # where wandb shows the runs
    entity: str | None = None  # null: wandb's default


@component("tracking", "tensorboard")
@dataclass(slots=True)
class TensorBoardConfig(MirrorConfig):
    """Event files in the run folder."""

    kind: str = "tensorboard"
