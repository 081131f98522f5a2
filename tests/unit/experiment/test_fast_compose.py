"""Composing each option once gives what Hydra gives for the whole line, for lines that hypothesis draws."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from helpers import compose_run, forget_compositions
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from moe_sweeps.experiment import compose
from moe_sweeps.experiment.fast_compose import GLOBAL_GROUPS, PATH_VARIABLES, register_schemas
from moe_sweeps.experiment.frozen import to_dict
from moe_sweeps.experiment.options import options
from moe_sweeps.paths import CONF

VALUES = {
    "seed": ("0", "7"),
    "data_seed": ("null", "3"),
    "name": ("null", "pretty"),
    "aux.coef": ("0.1", "1e-3"),
    "aux.normalization": ("switch", "talk"),
    "router.z_loss": ("0", "0.5"),
    "router.init": ("small", "talk"),
    "optimizer.base_lr": ("1e-2", "1"),
    "trainer.steps": ("20000", "60000"),
    "trainer.precision": ("float32", "auto"),
    "trainer.final_eval_sequences": ("null", "64"),
    "experts.ffn_hidden": ("32", "64"),
    "launch.workers": ("null", "2"),
    "paths.runs": ("elsewhere", "/tmp/x"),
}


def fully(line: list[str], conf: Path = CONF) -> DictConfig:
    """The line in Hydra's own hands: no cache, no parts."""
    register_schemas()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return hydra_compose("config", overrides=line)


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    groups = draw(st.lists(st.sampled_from(sorted(options())), unique=True, max_size=4))
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=5))
    line = [f"{g}={draw(st.sampled_from(options()[g]))}" for g in groups]
    return draw(st.permutations([*line, *(f"{k}={draw(st.sampled_from(VALUES[k]))}" for k in keys)]))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines())
def test_the_fast_path_is_full_composition(line: list[str]) -> None:
    expected = OmegaConf.to_object(fully(line))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moe_sweeps.experiment.compose.validate", lambda run: run)  # rules are another matter
        assert compose_run(*line) == expected


@pytest.mark.parametrize("scale", ["smoke", "talk_e128"])
def test_global_groups_together(scale: str) -> None:
    line = [f"scale={scale}", "compat=talk", "balancer=lossfree", "router=sigmoid", "experts=e16"]
    assert compose_run(*line) == OmegaConf.to_object(fully(line))


def test_every_option_is_what_hydra_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "validate", lambda run: run)
    for group, names in options().items():
        for name in names:
            line = f"{group}={name}"
            assert compose_run(line) == OmegaConf.to_object(fully([line])), line


# What somebody may write into conf/ -> lines that it concerns.
EDITS = {
    "another standard of compat": (("config.yaml", "- compat: none", "- compat: talk"), ["balancer=lossfree"]),
    "another standard of scale": (("config.yaml", "- scale: proxy", "- scale: talk"), ["optimizer=muon", "seed=1"]),
    "a key of a group": (("config.yaml", "\nseed: 0", "\nschedule: {warmup_steps: 77}\nseed: 0"), ["schedule=wsd"]),
    "a reference": (("balancer/lossfree.yaml", "  - _self_", "  - _self_\nrate: ${aux.coef}"), ["balancer=lossfree"]),
    "a key in a scale": (("scale/proxy.yaml", "\nscale: proxy", "\nscale: proxy\naux: {coef: 0.5}"), ["aux=default"]),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "lines"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_conf_means_what_hydra_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: tuple[str, str, str], lines: list[str]
) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    file, old, new = edit
    text = (conf / file).read_text()
    assert old in text
    (conf / file).write_text(text.replace(old, new, 1))
    monkeypatch.setattr("moe_sweeps.experiment.options.CONF", conf)
    monkeypatch.setattr(compose, "validate", lambda run: run)
    forget_compositions()
    try:
        for line in lines:
            assert compose_run(line) == OmegaConf.to_object(fully([line], conf))
    finally:
        monkeypatch.undo()
        forget_compositions()


def test_only_global_groups_write_outside_their_own_key() -> None:
    """What composing options one by one relies on."""
    everywhere = {p.parent.name for p in CONF.glob("*/*.yaml") if "@package" in p.read_text()}
    assert everywhere == set(GLOBAL_GROUPS)


def test_folders_follow_the_environment_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        monkeypatch.setenv("MOE_SWEEPS_RUNS", str(tmp_path / name))
        assert compose_run("scale=smoke").paths.runs == str(tmp_path / name)


def test_what_the_folders_follow_is_known() -> None:
    """They are read again only when one of these variables has changed."""
    assert tuple(re.findall(r"oc\.env:(\w+)", (CONF / "config.yaml").read_text())) == PATH_VARIABLES


@pytest.mark.parametrize(
    "line", ["balancer=lossfree", "launch=slurm launch.sbatch=[a,b]", "compat=talk", "data_seed=3"]
)
def test_plain_data_are_what_omegaconf_makes_of_a_run(line: str) -> None:
    run = compose_run(*line.split())
    assert to_dict(run) == OmegaConf.to_container(OmegaConf.structured(run), enum_to_str=True)
    assert list(to_dict(run)) == list(OmegaConf.structured(run))
