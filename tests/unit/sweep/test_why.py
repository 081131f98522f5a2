"""Why two runs are the same or differ."""

from __future__ import annotations

from pathlib import Path

from helpers import TINY, compose_run

from moe_sweeps.experiment.freeze import freeze
from moe_sweeps.records.code_record import CodeRecord
from moe_sweeps.records.rundir import RunDir
from moe_sweeps.sweep.why import Difference, Subject, differences, nearest_run, version_differences


def folder_of(*line: str) -> RunDir:
    return freeze(compose_run(*TINY, *line), [], command="test")


def line_of(*line: str) -> Subject:
    return Subject.of_line([*TINY, *line])


def as_pairs(found: list[Difference]) -> dict[str, tuple[str, str, bool]]:
    return {d.key: (d.a, d.b, d.counts) for d in found}


def test_a_value_that_decides_the_result() -> None:
    (found,) = differences(line_of("aux.coef=0.1"), line_of("aux.coef=0.2"))
    assert found == Difference("aux.coef", "0.1", "0.2", True, "decides the result")


def test_what_nothing_reads_does_not_count() -> None:
    a, b = line_of("balancer=lossfree", "aux.coef=0.1"), line_of("balancer=lossfree", "aux.coef=0.2")
    assert a.run_id == b.run_id
    (found,) = differences(a, b)
    assert (found.key, found.a, found.b, found.counts) == ("aux.coef", "0.1", "0.2", False)
    assert found.reason == "not read by balancer=lossfree (balancer=aux or balancer=aux_lossfree reads it)"


def test_infrastructure_and_spelling_do_not_count() -> None:
    a = line_of("engine.device=cpu", "trainer.log_every=2", "name=a", "lr_split=static", "data_seed=0")
    b = line_of()
    assert a.run_id == b.run_id
    reasons = {d.key: d.reason for d in differences(a, b)}
    infrastructure = "infrastructure: it cannot change a result"
    assert reasons.pop("engine.device") == reasons.pop("trainer.log_every") == reasons.pop("name") == infrastructure
    assert reasons.pop("data_seed") == "null means: as seed"
    assert reasons == {"lr_split.kind": "another spelling of the same meaning"}


def test_a_component_that_only_one_has() -> None:
    found = {d.key: d for d in differences(line_of("balancer=aux"), line_of("balancer=lossfree"))}
    assert found["balancer.kind"].reason == "decides the result"
    assert found["aux.coef"].reason == "not read with balancer=lossfree"
    assert found["balancer.rate"].reason.startswith("only one of them has it")
    assert all(d.counts for d in found.values())


def test_the_nearest_run_is_the_one_with_fewest_differences(folders: Path) -> None:
    folder_of("balancer=lossfree", "seed=1")
    near = folder_of("aux.coef=0.3")
    (folders / "broken-000000000000").mkdir()
    (folders / "broken-000000000000" / "identity.json").write_text("{")
    found = nearest_run(line_of("aux.coef=0.4"), folders)
    assert found is not None
    assert found.folder == near
    assert as_pairs(differences(line_of("aux.coef=0.4"), found))["aux.coef"] == ("0.4", "0.3", True)


def test_code_and_data_are_named_but_never_count(folders: Path) -> None:
    a, b = folder_of("seed=0"), folder_of("seed=1")
    a.update_provenance(attempts=[{"source_hash": "aaaa", "data_fingerprint": "d1"}], sources=None)
    b.update_provenance(attempts=[{"source_hash": "bbbb", "data_fingerprint": "d1"}], packages={"torch": "0"})
    found = as_pairs(version_differences(Subject.of_folder(a), Subject.of_folder(b)))
    assert found["training code"] == ("aaaa", "bbbb", False)
    assert found["package torch"][1:] == ("0", False)
    assert "data" not in found
    (only,) = version_differences(Subject.of_folder(a), line_of())
    assert (only.key, only.a, only.counts) == ("training code", "aaaa", False)
    assert version_differences(Subject.of_folder(folder_of("seed=2")), line_of("seed=2")) == []


def test_the_files_that_differ_are_named(folders: Path) -> None:
    a, b, aux = folder_of("balancer=lossfree"), folder_of("balancer=lossfree", "seed=1"), folder_of("balancer=aux")
    then = CodeRecord.of({**a.provenance()["sources"], "balancing/lossfree.py": "0ld", "training/trainer.py": "0ld"})
    a.update_provenance(**then.entry())
    line = line_of("balancer=lossfree")
    for other in (line, Subject.of_folder(b)):
        (found,) = version_differences(Subject.of_folder(a), other)
        assert found.files == "balancing/lossfree.py, training/trainer.py"
    (found,) = version_differences(Subject.of_folder(a), Subject.of_folder(aux))  # which executes one of the two
    assert found.files == "training/trainer.py"
    assert version_differences(Subject.of_folder(b), Subject.of_folder(aux)) == []
