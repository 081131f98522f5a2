"""compat=talk: what it sets, beside which options, and that what is typed beside it wins."""

from __future__ import annotations

import itertools

import pytest
from helpers import compose_run
from omegaconf import OmegaConf

from moe_sweeps.experiment.fast_compose import BESIDE_COMPAT
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.experiment.options import options
from moe_sweeps.paths import CONF, REPOSITORY

LOAD_BASED = ("batch_fraction", "ideal_normalized")


@pytest.mark.parametrize("split", options()["lr_split"])
@pytest.mark.parametrize("optimizer", options()["optimizer"])
def test_norms_and_embedding_are_decayed_beside_rates_that_follow_the_load(optimizer: str, split: str) -> None:
    line = [f"optimizer={optimizer}", f"lr_split={split}"]
    for permuted in itertools.permutations([*line, "compat=talk"]):
        assert compose_run(*permuted).optimizer.decay_all == (split in LOAD_BASED)
    assert not compose_run(*line).optimizer.decay_all


def test_what_is_typed_beside_it_wins() -> None:
    line = ["compat=talk", "lr_split=batch_fraction"]
    without = compose_run("optimizer.decay_all=false", *line)
    assert not without.optimizer.decay_all
    assert without.router.init.name == "talk"
    assert run_id(without) != run_id(compose_run(*line))


def test_both_groups_beside_it_count_together() -> None:
    run = compose_run("compat=talk", "balancer=lossfree", "lr_split=ideal_normalized")
    assert (run.optimizer.decay_all, run.router.z_loss) == (True, 0.0)
    assert compose_run("compat=talk", "lr_split=ideal_normalized").router.z_loss == 0.01


@pytest.mark.parametrize("group", BESIDE_COMPAT)
def test_every_file_beside_compat_is_of_options_that_exist(group: str) -> None:
    """A misspelt one would never be read, and nobody would know."""
    files = list((CONF / "compat" / f"beside_{group}").glob("*.yaml"))
    assert files
    for file in files:
        assert file.stem in {f"{c}_{o}" for c in options()["compat"] for o in options()[group]}


def test_fidelity_names_every_key_that_it_sets() -> None:
    page = (REPOSITORY / "docs" / "fidelity.md").read_text()
    for file in (CONF / "compat").rglob("talk*.yaml"):
        for group, values in OmegaConf.load(file).items():
            prefix = str(group)
            for key in map(str, values if OmegaConf.is_dict(values) else ()):
                assert f"`{prefix}.{key}=" in page, f"{prefix}.{key} of {file.name}"
