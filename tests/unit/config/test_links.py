"""Links in values: what `${...}` gives is what counts, and what gives nothing is refused by name."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import compose_run, forget_compositions

from moe_sweeps.config.registry import LARGEST_SEED, LARGEST_WHOLE, REGISTRY
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment import compose
from moe_sweeps.experiment.compose import resolved
from moe_sweeps.experiment.frozen import from_dict, to_dict
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.experiment.options import options, schema_of
from moe_sweeps.experiment.overrides import Setting
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.paths import CONF


def value_of(run: RunConfig, key: str) -> Any:
    found: Any = run
    for part in key.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("line", "plainly"),
    [
        (["aux.normalization=${oc.env:NORM}"], ["aux.normalization=switch"]),
        (["optimizer.base_lr=${aux.coef}"], ["optimizer.base_lr=0.1"]),
        (["lr_split=static", "lr_split.expert=${lr_split.dense}", "lr_split.dense=0.5"],
         ["lr_split=static", "lr_split.expert=0.5", "lr_split.dense=0.5"]),
        (["lr_split=static", "lr_split.expert=${.dense}", "lr_split.dense=0.5"],
         ["lr_split=static", "lr_split.expert=0.5", "lr_split.dense=0.5"]),
        (["aux.coef=${router.z_loss}", "router.z_loss=${optimizer.weight_decay}"],
         ["aux.coef=0.1", "router.z_loss=0.1"]),
        (["seed=1${seed_of_the_day}", "data_seed=3"], ["seed=13", "data_seed=3"]),
        (["aux.coef=${oc.env:NUMBER}"], ["aux.coef=0.25"]),
        (["data_seed=${oc.env:NOTHING}"], ["data_seed=null"]),
        (["trainer.monitor=${oc.env:OFF}"], ["trainer.monitor=false"]),
        (["balancer=${oc.env:WHICH}"], ["balancer=lossfree"]),
        (["trainer.final_eval_sequences=${oc.env:ABSENT,64}"], ["trainer.final_eval_sequences=64"]),
        (["data=text", "data.files=${oc.env:FILES}/x"], ["data=text", "data.files='/a b, c/x'"]),
        (["launch=slurm", "launch.sbatch=${oc.env:LIST}"], ["launch=slurm", "launch.sbatch=[a,b]"]),
    ],
)  # fmt: skip
def test_a_link_is_what_it_leads_to(line: list[str], plainly: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"NORM": "switch", "NUMBER": "0.25", "NOTHING": "null", "OFF": "false", "WHICH": "lossfree"}
    for name, value in {**names, "FILES": "/a b, c", "LIST": "[a,b]"}.items():
        monkeypatch.setenv(name, value)
    line = [word.replace("${seed_of_the_day}", "${data_seed}") for word in line]
    linked, plain = compose_run(*line), compose_run(*plainly)
    assert linked == plain
    assert run_id(linked) == run_id(plain)
    assert "${" not in str(to_dict(linked))


def test_another_environment_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for norm in ("switch", "megatron", "switch"):
        monkeypatch.setenv("NORM", norm)
        ids.append(run_id(compose_run("aux.normalization=${oc.env:NORM}")))
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("aux.coef=${nope}", r"aux\.coef=\$\{nope\} is refused: it cannot be resolved .*'nope' not found"),
        ("aux.coef=${oc.env:ABSENT}", r"Environment variable 'ABSENT' not found.*\$\{oc\.env:NAME,default\}"),
        ("aux.coef=${aux.coef}", r"aux\.coef=.* cannot be resolved \(Recursive interpolation"),
        ("aux.coef=${aux}", r"aux\.coef=.* cannot be resolved"),
        ("aux.coef=${router}", r"it is a whole group, and a value is one of its keys"),
        ("aux.coeff=${seed}", r"there is no such key\. Did you mean aux\.coef"),
        ("seed=${aux.coef}", r"seed=0\.1 is refused: it must be a whole number"),
        ("aux.coef=-${optimizer.weight_decay}", r"aux\.coef=-0\.1 is refused: it must be >= 0"),
        ("aux.normalization=${aux.coef}", r"it must be one of switch, megatron, talk"),
        ("balancer=${oc.env:ABSENT,losfree}", r"Did you mean balancer=lossfree"),
        ("aux.coef=${a.${b}}", r"it cannot be parsed .*A link within a link is quoted"),
        ('aux.coef="${aux.coef"', r"it cannot be resolved"),
        ("seed=${hydra:runtime.cwd}", r"HydraConfig was not set"),
        ("aux.coef=${oc.env:SEVERAL}", r"aux\.coef=.*it must be a number"),
        ("aux.coef=\\${HOME}", r"it must be a number"),
    ],
)
def test_what_cannot_be_resolved_is_refused_with_key_and_reason(
    typed: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEVERAL", "0.1,0.2")
    monkeypatch.delenv("ABSENT", raising=False)
    with pytest.raises(ConfigError, match=words) as caught:
        compose_run(typed)
    assert "\n" not in str(caught.value)


def test_an_api_key_is_never_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    with pytest.raises(ConfigError, match="it leads to an API key") as caught:
        compose_run("name=x${oc.env:WANDB_API_KEY}")
    assert "0123456789abcdef" not in str(caught.value)


def test_the_moment_is_one_for_all_runs_of_a_command() -> None:
    folders = {compose_run("paths.runs=x/${now:%H-%M-%S-%f}", f"seed={seed}").paths.runs for seed in range(3)}
    assert len(folders) == 1
    assert not folders & {"x/${now:%H-%M-%S-%f}", "x/%H-%M-%S-%f"}


def test_resolved_settings_mean_the_same_when_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILES", "/a, b'/${x}")
    typed = (Setting("balancer", "${oc.env:W,lossfree}"), Setting("data", "text"), Setting("seed", "3"),
             Setting("data.files", "${oc.env:FILES}"), Setting("aux.coef", "${seed}"))  # fmt: skip
    run = compose.compose(typed)
    plain = resolved(typed, run)
    assert compose.compose(plain) == run
    assert {s.key: s.value for s in plain if s.key != "data.files"} == {
        "balancer": "lossfree", "data": "text", "seed": "3", "aux.coef": "3"}  # fmt: skip


@pytest.fixture
def edited_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    monkeypatch.setattr("moe_sweeps.experiment.options.CONF", conf)
    forget_compositions()
    yield conf
    monkeypatch.undo()
    forget_compositions()


def test_a_link_in_conf_follows_what_is_typed(edited_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = edited_conf / "balancer" / "lossfree.yaml"
    file.write_text(file.read_text() + "rate: ${aux.coef}\n")
    forget_compositions()
    assert value_of(compose_run("balancer=lossfree"), "balancer.rate") == 0.1
    assert value_of(compose_run("balancer=lossfree", "aux.coef=0.5"), "balancer.rate") == 0.5
    assert value_of(compose_run("balancer=lossfree", "balancer.rate=2", "aux.coef=0.5"), "balancer.rate") == 2
    assert compose_run("aux.coef=0.5").balancer.kind == "aux"
    file.write_text(file.read_text().replace("${aux.coef}", "${oc.env:RATE}"))
    forget_compositions()
    monkeypatch.setenv("RATE", "0.75")
    assert value_of(compose_run("balancer=lossfree"), "balancer.rate") == 0.75
    monkeypatch.delenv("RATE")
    with pytest.raises(ConfigError, match=r"balancer\.rate=\$\{oc\.env:RATE\} is refused: it cannot be resolved"):
        compose_run("balancer=lossfree")
    assert value_of(compose_run("balancer=lossfree", "balancer.rate=2"), "balancer.rate") == 2


# --- frozen ---


def test_a_frozen_config_is_read_as_it_stands() -> None:
    run = compose_run("launch=slurm", r'launch.setup=["export P=\${HOME}/bin"]')
    assert value_of(run, "launch.setup") == ["export P=${HOME}/bin"]
    for text in ("${x}", r"\${x}", r"a\\${x}", "${x", "$${a}", "${oc.env:HOME}"):
        launch: Any = dataclasses.replace(run.launch, setup=[text], partition=text)  # type: ignore[call-arg]
        changed = dataclasses.replace(run, launch=launch, paths=dataclasses.replace(run.paths, runs=text))
        assert from_dict(to_dict(changed)) == changed


@pytest.mark.parametrize(
    ("group", "key", "value", "words"),
    [
        ("aux", "normalization", "${oc.env:NORM}", "it was frozen with a link"),
        ("aux", "coef", "${router.z_loss}", "it was frozen with a link"),
        ("", "seed", "${data_seed}", "it was frozen with a link"),
        ("", "seed", "x", "could not be converted to Integer"),
        ("", "seed", 2**64, "it must be >= 0 and <= 18446744073709551615"),
    ],
)
def test_a_frozen_value_that_cannot_be_is_refused(
    group: str, key: str, value: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORM", "switch")
    content = to_dict(compose_run())
    (content[group] if group else content)[key] = value
    with pytest.raises(ConfigError, match=words) as caught:
        from_dict(content)
    assert caught.value.field == f"{group}.{key}".lstrip(".")


# --- every key ---


def numeric_keys() -> Iterator[tuple[str, str, str]]:
    """(option, key, type) of every key that takes numbers."""
    seen = set()
    for group in REGISTRY:
        for option in options()[group]:
            for field in dataclasses.fields(schema_of(group, option)):
                key = f"{group}.{field.name}"
                if {"int", "float"} & set(str(field.type).split(" | ")) and key not in seen:
                    seen.add(key)
                    yield f"{group}={option}", key, str(field.type)
    yield from (("seed=0", key, kind) for key, kind in (("seed", "int"), ("data_seed", "int | None")))


NO_NUMBERS = ("abc", "[1,2]", "[]", "{a: 1}", "true", "inf", "-inf", "nan", "1e400", "9" * 400, "9" * 5000, "''",
              "${nope}", "${aux}", "${router}", "\\${HOME}", '"${aux"', "[range(0,1,0.1)]", "0x10")  # fmt: skip


@pytest.mark.parametrize(("option", "key", "kind"), list(numeric_keys()), ids=lambda v: v)
def test_every_numeric_key_refuses_what_is_no_number_in_one_line(option: str, key: str, kind: str) -> None:
    found = []
    for value in (*NO_NUMBERS, *(["null"] if "None" not in kind else [])):
        with pytest.raises(ConfigError) as caught:
            compose_run(option, f"{key}={value}")
        found.append((caught.value.field, "\n" in str(caught.value), len(str(caught.value)) > 700))
    assert set(found) == {(key, False, False)}


@pytest.mark.parametrize(("option", "key", "kind"), [k for k in numeric_keys() if "int" in k[2]], ids=lambda v: v)
def test_every_whole_number_has_a_largest(option: str, key: str, kind: str) -> None:
    largest = LARGEST_SEED if key in ("seed", "data_seed") else LARGEST_WHOLE
    with pytest.raises(ConfigError, match=r"it must be .*<= \d+") as caught:
        compose_run(option, f"{key}={largest + 1}")
    assert caught.value.field == key


def test_the_largest_seed_is_the_largest_that_torch_takes() -> None:
    import torch

    torch.Generator().manual_seed(LARGEST_SEED)
    with pytest.raises(ValueError, match="Overflow"):
        torch.Generator().manual_seed(LARGEST_SEED + 1)
    assert compose_run(f"seed={LARGEST_SEED}").effective_data_seed == LARGEST_SEED
