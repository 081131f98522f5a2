"""Identity: what decides a result decides the id, and nothing else does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from contracts import components
from helpers import compose_run, forget_compositions, make_run

from moe_sweeps.balancing.base import BalancerConfig
from moe_sweeps.balancing.lossfree import BiasTarget
from moe_sweeps.config.registry import REGISTRY, knob
from moe_sweeps.experiment.fast_compose import register_schemas
from moe_sweeps.experiment.frozen import from_dict
from moe_sweeps.experiment.identity import canonical_form, identity, run_id, unread_knobs, why_unread
from moe_sweeps.host.files import read_json
from moe_sweeps.optim.lr_split import StaticConfig
from moe_sweeps.optim.schedule import OneCycleCosineConfig
from moe_sweeps.sweep.grid import single

STORED = Path(__file__).parent / "stored_runs"
BASE = run_id(compose_run())


@pytest.mark.parametrize(
    "override",
    [
        "engine.device=cpu",
        "engine.expert_backend=loop",
        "engine.parallel=fsdp",
        "launch.workers=7",
        "launch.threads=2",
        "trainer.log_every=3",
        "trainer.eval_every=3",
        "trainer.eval_sequences=3",
        "trainer.checkpoint_every=3",
        "trainer.checkpoint_minutes=2.5",
        "trainer.keep_checkpoints=5",
        "trainer.monitor=false",
        "paths.runs=/elsewhere",
        "name=pretty",
        "aux.coef=0.1",  # the default, said aloud
        "data_seed=0",  # what it follows anyway
        "balancer=aux",
        "lr_split=static",  # all multipliers 1
        "aux.normalization=talk",
    ],
)
def test_infrastructure_and_spelling_do_not_change_the_id(override: str) -> None:
    assert run_id(compose_run(override)) == BASE


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "data_seed=1",
        "aux.coef=0.2",
        "aux.normalization=switch",
        "balancer=none",
        "balancer=lossfree",
        "router=sigmoid",
        "router.init=small",
        "router.z_loss=0",
        "experts=e16",
        "experts=dense",
        "model.layers=3",
        "optimizer.base_lr=1e-3",
        "optimizer.weight_decay=0",
        "schedule.warmup_steps=7",
        "trainer.steps=1999",
        "trainer.micro_batch_size=4",
        "trainer.precision=bfloat16",
        "trainer.stop_on_collapse=true",
        "trainer.collapse_patience=50",
        "data.vocab_size=1024",
    ],
)
def test_every_active_change_changes_the_id(override: str) -> None:
    assert run_id(compose_run(override)) != BASE


@pytest.mark.parametrize(("group", "kind"), [(g, k) for g, kinds in REGISTRY.items() for k in kinds])
def test_every_knob_of_every_component_is_active_infrastructure_or_unread(group: str, kind: str) -> None:
    components.every_knob_is_active_infrastructure_or_unread(group, kind)


def test_the_order_of_overrides_does_not_matter() -> None:
    line = ["seed=3", "balancer=lossfree", "balancer.rate=0.01", "scale=smoke"]
    assert run_id(compose_run(*line)) == run_id(compose_run(*reversed(line)))


def test_an_inactive_knob_is_not_part_of_the_identity_and_names_its_reader() -> None:
    ids = {run_id(compose_run("balancer=lossfree", f"aux.coef={c}")) for c in (0.1, 0.2, 0.6)}
    assert len(ids) == 1
    unread = unread_knobs(compose_run("balancer=lossfree"))
    assert why_unread("aux.coef", unread) == ("balancer=lossfree", "balancer=aux or balancer=aux_lossfree")
    assert why_unread("balancer.rate", unread) is None


def test_nothing_about_routing_counts_for_a_dense_model() -> None:
    plain = canonical_form(compose_run("experts=dense"))
    assert not {"router", "balancer", "aux"} & plain.keys()
    same = compose_run("experts=dense", "balancer=lossfree", "router=sigmoid", "lr_split=static", "lr_split.expert=0.5")
    assert canonical_form(same) == plain
    assert canonical_form(compose_run("experts=dense", "lr_split=static", "lr_split.dense=0.5")) != plain


def test_shampoos_start_is_its_frequency_however_it_is_written() -> None:
    ids = {run_id(compose_run("optimizer=shampoo", *line)) for line in ([], ["optimizer.start_step=100"])}
    assert len(ids) == 1
    assert run_id(compose_run("optimizer=shampoo", "optimizer.start_step=200")) not in ids


def test_an_arm_is_a_run_without_its_seed() -> None:
    first, second = (identity(compose_run(f"seed={s}")) for s in (0, 1))
    assert first["arm"] == second["arm"]
    assert first["run_id"] != second["run_id"]
    fixed_data = identity(compose_run("seed=1", "data_seed=0"))
    assert fixed_data["arm"] != first["arm"]


def test_negative_zero_is_zero() -> None:
    ids = {run_id(make_run(lr_split=StaticConfig(expert=e))) for e in (0.0, -0.0)}
    assert len(ids) == 1


def test_a_field_at_its_neutral_value_keeps_old_ids_valid() -> None:
    @dataclass(slots=True)
    class Younger(OneCycleCosineConfig):
        cooldown: float = knob(0.2, neutral=0.0)

    old = OneCycleCosineConfig()
    values: dict[str, Any] = {f.name: getattr(old, f.name) for f in dataclasses.fields(old)}
    assert run_id(make_run(schedule=Younger(**values, cooldown=0.0))) == run_id(make_run(schedule=old))
    assert run_id(make_run(schedule=Younger(**values))) != run_id(make_run(schedule=old))


def test_the_id_of_a_known_run_never_changes() -> None:
    """A stored identity: if this fails, every run folder in the world has become an orphan."""
    assert run_id(compose_run("scale=smoke_v1", "balancer=lossfree")) == "bed0be19ef29"


@pytest.mark.parametrize("folder", sorted(STORED.iterdir()), ids=lambda p: p.name)
def test_runs_of_the_first_version_keep_their_ids(folder: Path) -> None:
    """Frozen by commit 32d87a5. Since then knobs were added and one was dropped; config, line and id still agree."""
    stored = read_json(folder / "identity.json")
    assert identity(from_dict(yaml.safe_load((folder / "config.yaml").read_text()))) == stored
    line = yaml.safe_load((folder / "overrides.yaml").read_text())
    # A changed default is a new experiment: the line must now say what scale=proxy and scale=smoke once meant.
    line = ["scale=smoke_v1" if word == "scale=smoke" else word for word in line]
    line += ["scale=proxy_v1", "optimizer.base_lr=6e-3"] if "experts=dense" in line else []
    assert run_id(compose_run(*line)) == stored["run_id"] == folder.name.rpartition("-")[2]


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """The config of lossfree as it was, after `rate` was renamed to `step_size`."""

    @dataclass(slots=True)
    class Renamed(BalancerConfig):
        kind: str = "lossfree"
        step_size: float = knob(1e-3, gt=0, was="rate")
        bias_on: BiasTarget = BiasTarget.scores

    cls = Renamed
    monkeypatch.setitem(REGISTRY["balancer"], "lossfree", cls)
    forget_compositions()
    yield cls
    monkeypatch.undo()
    forget_compositions()
    register_schemas()


def test_a_renamed_knob_keeps_old_runs_and_old_lines_valid(renamed: type) -> None:
    folder = STORED / "smoke-lossfree-58ade3948eba"
    run = from_dict(yaml.safe_load((folder / "config.yaml").read_text()))
    assert type(run.balancer) is renamed
    assert identity(run) == read_json(folder / "identity.json")
    for spelling in ("balancer.rate", "balancer.step_size"):
        line = compose_run("scale=smoke_v1", "balancer=lossfree", f"{spelling}=0.01")
        assert run_id(line) == "58ade3948eba"
    assert [str(s) for s in single(["balancer.rate=1", "balancer.step_size=2"])] == ["balancer.step_size=2"]


@pytest.mark.parametrize(
    ("one", "other", "different"),
    [
        (
            ["aux.coef=0"],
            ["aux.coef=0", "aux.normalization=switch", "aux.scope=sequence"],
            ["aux.normalization=switch"],
        ),
        (
            ["balancer=lossfree"],
            ["balancer=lossfree", "balancer.update_every=micro_step"],
            ["balancer=lossfree", "balancer.update_every=micro_step", "trainer.micro_batch_size=4"],
        ),
        ([], ["router.weight_decay=0.1"], ["router.weight_decay=0.2"]),
    ],
)
def test_equal_meanings_are_one_run(one: list[str], other: list[str], different: list[str]) -> None:
    assert run_id(compose_run(*one)) == run_id(compose_run(*other))
    assert run_id(compose_run(*one)) != run_id(compose_run(*different))
