"""Properties of the identity, for lines that hypothesis draws: what never changes an id, and what always does."""

from __future__ import annotations

from helpers import compose_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_sweeps.experiment.frozen import to_dict
from moe_sweeps.experiment.identity import run_id, unread_knobs, why_unread

SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Every value is allowed beside every other. The first of each is not special.
OPTIONS = {
    "balancer": ("aux", "lossfree", "aux_lossfree", "none"),
    "router": ("topk_softmax", "softmax_topk", "sigmoid"),
    "experts": ("e8", "e16", "dense"),
    "lr_split": ("matched", "static"),
    "scale": ("smoke", "proxy"),
}
KNOBS = {
    "aux.coef": ("0.1", "0.2", "0.6"),
    "aux.normalization": ("talk", "switch", "megatron"),
    "router.z_loss": ("0.01", "0.0", "0.1"),
    "router.init": ("normal", "small", "zero"),
    "router.noise_std": ("0.1", "0.5"),
    "optimizer.base_lr": ("1e-3", "2e-3", "5e-3"),
    "optimizer.weight_decay": ("0.0", "0.1"),
    "schedule.warmup_steps": ("10", "20"),
    "trainer.grad_clip": ("1.0", "0.0", "0.5"),
    "seed": ("0", "1", "2"),
    "data_seed": ("null", "0", "1"),
}
INFRASTRUCTURE = {
    "engine.device": "cpu",
    "engine.expert_backend": "loop",
    "engine.parallel": "fsdp",
    "launch.workers": "3",
    "launch.threads": "2",
    "trainer.log_every": "7",
    "trainer.eval_every": "11",
    "trainer.checkpoint_every": "13",
    "trainer.checkpoint_minutes": "0.5",
    "trainer.keep_checkpoints": "5",
    "trainer.monitor": "false",
    "name": "pretty",
    "paths.runs": "elsewhere",
}
# Other spellings of one value.
ALIASES = {"1e-3": "0.001", "2e-3": "2.0e-3", "0.1": "1e-1", "0.0": "-0.0", "1.0": "1", "10": "1_0"}


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A line of distinct keys that composes."""
    options = {g: draw(st.sampled_from(v)) for g, v in OPTIONS.items() if draw(st.booleans())}
    keys = draw(st.lists(st.sampled_from(sorted(KNOBS)), unique=True, max_size=5))
    return [f"{k}={v}" for k, v in (options | {k: draw(st.sampled_from(KNOBS[k])) for k in keys}).items()]


@SLOW
@given(lines(), st.data())
def test_the_order_of_overrides_never_changes_an_id(line: list[str], data: st.DataObject) -> None:
    assert run_id(compose_run(*data.draw(st.permutations(line)))) == run_id(compose_run(*line))


@SLOW
@given(lines(), st.sets(st.sampled_from(sorted(INFRASTRUCTURE))))
def test_infrastructure_never_changes_an_id(line: list[str], keys: set[str]) -> None:
    more = [f"{key}={INFRASTRUCTURE[key]}" for key in sorted(keys)]
    assert run_id(compose_run(*line, *more)) == run_id(compose_run(*line))


@SLOW
@given(lines(), st.data())
def test_a_default_said_aloud_never_changes_an_id(line: list[str], data: st.DataObject) -> None:
    run = compose_run(*line)
    typed = {setting.partition("=")[0] for setting in line}
    key = data.draw(st.sampled_from(sorted(set(KNOBS) - typed - {"data_seed"})))
    value = to_dict(run)
    for part in key.split("."):
        value = value[part]
    assert run_id(compose_run(*line, f"{key}={value}")) == run_id(run)


@SLOW
@given(lines())
def test_other_spellings_of_a_value_never_change_an_id(line: list[str]) -> None:
    pairs = [setting.partition("=") for setting in line]
    respelt = [f"{key}={ALIASES.get(value, value)}" for key, _, value in pairs]
    assert run_id(compose_run(*respelt)) == run_id(compose_run(*line))


@SLOW
@given(lines(), st.sampled_from(sorted(KNOBS)), st.data())
def test_a_change_counts_exactly_when_something_reads_it(line: list[str], key: str, data: st.DataObject) -> None:
    rest = [setting for setting in line if not setting.startswith(f"{key}=")]
    one, other = data.draw(st.permutations(KNOBS[key]))[:2]
    a, b = compose_run(*rest, f"{key}={one}"), compose_run(*rest, f"{key}={other}")
    unread = why_unread(key, unread_knobs(a)) is not None
    same_seed = key == "data_seed" and a.effective_data_seed == b.effective_data_seed
    assert (run_id(a) == run_id(b)) == (unread or same_seed)
