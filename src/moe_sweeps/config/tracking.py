"""Configs of the trackers that mirror run folders: never part of a run's identity, and no field takes an API key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moe_sweeps.config.choice import Choice
from moe_sweeps.config.registry import Component, component, knob


@component("tracking", "none")
@dataclass(slots=True)
class TrackingConfig(Component):
    """Mirrors of metrics.jsonl. `none`: the run folder is all there is."""

    INFRA: ClassVar[bool] = True
    kind: str = "none"


class WandbMode(Choice):
    """Where wandb's data go."""

    online = "online"
    offline = "offline", "files in the run folder, which `wandb sync` sends later"
    disabled = "disabled", "nowhere, as with tracking=none"


@dataclass(slots=True)
class MirrorConfig(TrackingConfig):
    """What every tracker has."""

    finish_seconds: float = knob(
        15.0,
        gt=0,
        le=1e9,
        doc=(
            "after training, a tracker that does not answer for so long is given up; `moe-sweeps track sync` "
            "sends the rest"
        ),
    )


@component("tracking", "wandb")
@dataclass(slots=True)
class WandbConfig(MirrorConfig):
    """One wandb run per run: its id is the run id, its group the sweep. wandb finds the API key itself."""

    kind: str = "wandb"
    mode: WandbMode = knob(WandbMode.online, doc="where wandb's data go")
    project: str = knob("moe_sweeps", doc="wandb project")
    entity: str | None = knob(None, doc="wandb user or team; null: wandb's default")


@component("tracking", "tensorboard")
@dataclass(slots=True)
class TensorBoardConfig(MirrorConfig):
    """Event files in the run folder."""

    kind: str = "tensorboard"
