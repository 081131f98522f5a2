"""What one component may know of the others: the settings of a run that are read outside the component that owns them.

`RunConfig`, the whole config of a run, is made of all components' configs and so stands above them. Components annotate
`run: Run`, this protocol, instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from moe_sweeps.config.fork import ForkConfig
    from moe_sweeps.config.groups import (
        AuxConfig,
        EngineConfig,
        ExpertsConfig,
        LaunchConfig,
        ModelConfig,
        RouterNoise,
        TrainerConfig,
    )


class RouterChoice(Protocol):
    """A gate, as others see it."""

    kind: str
    z_loss: float
    noise: RouterNoise
    temperature: float
    input_jitter: float
    input_dropout: float


class BalancerChoice(Protocol):
    """A balancer, as others see it."""

    kind: str

    @property
    def READS(self) -> frozenset[str]:
        """Groups of knobs that it reads, such as "aux"."""

    @property
    def EXPERTS_CHOOSE(self) -> bool:
        """Whether experts choose tokens."""


class OptimizerChoice(Protocol):
    """An optimizer, as others see it."""

    kind: str
    weight_decay: float

    @property
    def LINEAR_IN_LR(self) -> bool:
        """Whether its step is a product of the learning rate and something that does not depend on it."""


class DataChoice(Protocol):
    """A data set, as others see it."""

    kind: str
    mask_documents: bool


class Run(Protocol):
    """One training run; read only."""

    @property
    def model(self) -> ModelConfig: ...
    @property
    def experts(self) -> ExpertsConfig: ...
    @property
    def router(self) -> RouterChoice: ...
    @property
    def balancer(self) -> BalancerChoice: ...
    @property
    def aux(self) -> AuxConfig: ...
    @property
    def optimizer(self) -> OptimizerChoice: ...
    @property
    def data(self) -> DataChoice: ...
    @property
    def trainer(self) -> TrainerConfig: ...
    @property
    def engine(self) -> EngineConfig: ...
    @property
    def launch(self) -> LaunchConfig: ...
    @property
    def fork(self) -> ForkConfig: ...
    @property
    def seed(self) -> int: ...
