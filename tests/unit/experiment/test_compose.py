"""Composition: every option composes, and every mistake is answered with field, value, rule and fix."""

from __future__ import annotations

import dataclasses
import re

import pytest
from contracts import components
from helpers import compose_run

from moe_sweeps.config.groups import MoEExpertsConfig
from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.frozen import from_dict, to_dict
from moe_sweeps.experiment.options import options, schema_of

ALL_OPTIONS = [(group, option) for group, names in options().items() for option in names]


@pytest.mark.parametrize(("group", "option"), ALL_OPTIONS)
def test_every_option_composes_and_survives_freezing(group: str, option: str) -> None:
    components.composes_and_survives_freezing(group, option)


@pytest.mark.parametrize(("group", "option"), ALL_OPTIONS)
def test_every_option_file_is_short_and_says_when_to_use_it(group: str, option: str) -> None:
    components.file_is_short_and_says_when_to_use_it(group, option)


def test_every_registered_component_has_an_option() -> None:
    offered = {(g, schema_of(g, o)) for g, names in options().items() for o in names}
    assert {(g, cls) for g, kinds in REGISTRY.items() for cls in kinds.values()} <= offered


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("talk", {"layers": 24, "width": 768, "heads": 12, "experts": 8, "ffn": 2048, "tokens": 20_480}),
        ("talk_long", {"layers": 24, "width": 768, "heads": 12, "experts": 8, "ffn": 2048, "tokens": 163_840}),
        ("talk_e128", {"layers": 12, "width": 768, "heads": 12, "experts": 128, "ffn": 1024, "tokens": 20_480}),
    ],
)
def test_talk_scales_are_the_published_setting(scale: str, expected: dict[str, int]) -> None:
    run = compose_run(f"scale={scale}")
    assert isinstance(run.experts, MoEExpertsConfig)
    found = {"layers": run.model.layers, "width": run.model.width, "heads": run.model.heads}
    found |= {"experts": run.experts.num_experts, "ffn": run.experts.ffn_hidden, "tokens": run.trainer.tokens_per_step}
    assert found == expected
    assert (run.trainer.steps, run.schedule.warmup_steps, run.trainer.grad_clip) == (50_000, 300, 1.0)
    assert (run.optimizer.weight_decay, run.router.z_loss, run.aux.coef) == (0.1, 0.01, 0.1)


def test_the_command_line_wins_over_scale() -> None:
    run = compose_run("trainer.steps=7", "schedule.warmup_steps=2", "scale=smoke")
    assert (run.trainer.steps, run.model.width) == (7, 32)


def offered(group: str) -> str:
    """The options of a group as messages list them."""
    return ", ".join(options()[group])


def owners(group: str, key: str) -> str:
    """The options whose schema has a key, as messages list them."""
    having = (o for o in options()[group] if key in {f.name for f in dataclasses.fields(schema_of(group, o))})
    return " or ".join(f"{group}={option}" for option in having)


# (command line, what the message must say)
REFUSED = [
    (["aux.coeff=0.1"], r"aux\.coeff=0\.1 is refused: there is no such key\. Did you mean aux\.coef\?"),
    (["coef=0.1"], r"Did you mean aux\.coef\?"),
    (["aux.coef=O.1"], r"aux\.coef=O\.1 is refused: it must be a number\. Its value here would be 0\.1"),
    (["aux.coef=-1"], r"aux\.coef=-1\.0 is refused: it must be >= 0\. Its default is 0\.1"),
    (["aux.coef=nan"], r"it must be a finite number"),
    (["aux.normalization=swich"], r"must be one of switch, megatron, talk\. Did you mean switch\?"),
    (
        ["balancer=auxx"],
        rf"the options are {offered('balancer')}\. Did you mean balancer=aux\?",
    ),
    (["balancer=zzz"], rf"Choose one of {offered('balancer')}"),
    (["balanser=aux"], r"Did you mean balancer\?"),
    (["balancer.kind=lossfree"], r"Write balancer=lossfree instead"),
    (["balancer=lossfree", "balancer.rate=0"], r"balancer\.rate=0\.0 is refused: it must be > 0"),
    (
        ["lr_split.expert=0.5"],
        rf"it is a key of {owners('lr_split', 'expert')}, and here lr_split is of kind matched\. Add one of them",
    ),
    (["lr_split=static", "lr_split.experts=2"], r"there is no such key\. Did you mean lr_split\.expert\?"),
    (["lr_split=batch_fraction", "lr_split.expert=-1"], r"lr_split\.expert=-1\.0 is refused: it must be >= 0"),
    (["lr_split=batch_fraction", "lr_split.ema=1"], r"lr_split\.ema=1\.0 is refused: it must be >= 0 and < 1"),
    (["lr_split=batch_fraction", "lr_split.min_ratio=1"], r"below the largest ratio, which is 1 here"),
    (["lr_split=ideal_normalized", "lr_split.min_ratio=4"], r"below the largest ratio, which is 4 here"),
    (
        ["lr_split=ideal_normalized", "lr_split.min_ratio=2", "lr_split.max_ratio=1.5"],
        r"lr_split\.min_ratio=2\.0 is refused: it must be below the largest ratio, which is 1\.5 here",
    ),
    (
        ["lr_split=batch_fraction", "lr_split.control=shufled"],
        r"uniform, shuffled\. Did you mean shuffled\?",
    ),
    (["schedule.router=constnat"], r"kinds of schedules are .*wsd\. Did you mean schedule\.router=constant\?"),
    (["schedule=constant", "schedule.expert=cosine", "schedule.warmup_steps=2000"], r"warm-up must end before"),
    (["schedule=wsd", "schedule.decay_fraction=0.96"], r"its 1152 of 1200 steps begin before the 480 of the warm-up"),
    (["schedule=wsd", "schedule.end_fraction=0"], r"an exponential decay never reaches 0"),
    (["schedule=cosine", "schedule.end_fraction=0", "schedule.norm=wsd"], r"schedule\.norm=wsd is refused: schedule"),
    (["lr_split=static", "lr_split.expert=-1"], r"lr_split\.expert=-1\.0 is refused: it must be >= 0"),
    (["optimizer=shampo"], rf"the options are {offered('optimizer')}\. Did you mean optimizer=shampoo\?"),
    (
        ["optimizer.momentum=0.9"],
        rf"it is a key of {owners('optimizer', 'momentum')}, and here optimizer is of kind adamw",
    ),
    (["optimizer=muon", "optimizer.momentum=1"], r"optimizer\.momentum=1\.0 is refused: it must be >= 0 and < 1"),
    (["optimizer=muon", "optimizer.scaling=rms"], r"must be one of match_rms_adamw, original"),
    (["optimizer=soap", "optimizer.precondition_frequency=0"], r"precondition_frequency=0 is refused: it must be >= 1"),
    (["optimizer=shampoo", "optimizer.precondition_frequency=0"], r"it must be >= 1\. Its default is 100"),
    (
        ["optimizer=shampoo", "optimizer.start_step=99"],
        r"start_step=99 is refused: roots exist from step optimizer\.precondition_frequency \(100\) on\. Start then or",
    ),
    (
        ["optimizer=shampoo", "trainer.steps=99", "schedule.warmup_steps=9"],
        r"precondition_frequency=100 is refused: training ends before .*\(trainer\.steps=99\), so this would be AdamW",
    ),
    (["experts=dense", "experts.num_experts=4"], rf"a key of {owners('experts', 'num_experts')}"),
    (["experts.top_k=9"], r"a token cannot use more experts than there are \(8\)\. Use experts\.top_k<=8"),
    (["experts.top_k=0"], r"experts\.top_k=0 is refused: it must be >= 1"),
    (["model.heads=3"], r"the width \(64\) must be divisible by the number of heads"),
    (["model.heads=64"], r"64/64 = 1 is odd"),
    (["model.layers=null"], r"it must be a whole number"),
    (["trainer.micro_batch_size=3"], r"micro-batches of equal size\. Use a divisor of 16"),
    (["schedule.warmup_steps=5000"], r"warm-up must end before training does \(trainer\.steps=1200\)"),
    (["seed=1.5"], r"seed=1\.5 is refused: it must be a whole number"),
    (["seed=-1"], r"seed=-1 is refused: it must be >= 0"),
    (["name=a/b"], r"up to 80 letters"),
    (["+balancer.typo=1"], r"keys cannot be added, deleted or moved"),
    (["~balancer"], r"keys cannot be added, deleted or moved"),
    (["hydra.run.dir=x"], r"Hydra only composes the config here"),
    (["foo"], r"foo is refused: it is not key=value"),
    (["smoke"], r"it is not key=value\. Did you mean scale=smoke\?"),
    (["launch.exclude=a,b"], r"the same for all runs of a sweep\. A list is quoted twice: launch\.exclude="),
    (["engine.compile=true", "trainer.precision=mixed"], "not known to torch.compile. Leave engine.compile out"),
    (["engine.expert_backend=grouped", "experts.ffn_hidden=10"], r"multiples of 4, not \(64, 10\)\. Use engine"),
    (["aux.coef=0.1,0.2"], r"it asks for 2 runs, and without -m one run is trained\. Add -m"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=[" ".join(line) for line, _ in REFUSED])
def test_mistakes_are_refused_with_the_fix(line: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run(*line)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_a_frozen_config_of_unknown_code_is_refused() -> None:
    content = to_dict(compose_run())
    content["balancer"]["kind"] = "later"
    with pytest.raises(ConfigError, match=r"balancer\.kind=later is refused: the kinds are"):
        from_dict(content)
    content = to_dict(compose_run())
    content["aux"]["new_knob"] = 1
    with pytest.raises(ConfigError, match="new_knob"):
        from_dict(content)
