"""Why two runs are the same or differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import TINY, compose_run

from moe_sweeps.errors import RunFolderError
from moe_sweeps.freeze import freeze
from moe_sweeps.rundir import RunDir
from moe_sweeps.sweep.why import Difference, Subject, differences, find_run, nearest_runs, version_differences


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
    assert found["aux.coef"].reason == "only one of them reads it: the other has balancer=lossfree"
    assert found["balancer.rate"].reason.startswith("only one of them has it")
    assert all(d.counts for d in found.values())


def test_the_nearest_run_is_the_one_with_fewest_differences(folders: Path) -> None:
    folder_of("balancer=lossfree", "seed=1")
    near = folder_of("aux.coef=0.3")
    (folders / "broken-000000000000").mkdir()
    (folders / "broken-000000000000" / "identity.json").write_text("{")
    (found,) = nearest_runs(line_of("aux.coef=0.4"), folders)
    assert found.folder == near
    assert as_pairs(differences(line_of("aux.coef=0.4"), found))["aux.coef"] == ("0.4", "0.3", True)


def test_code_and_data_are_named_but_never_count(folders: Path) -> None:
    a, b = folder_of("seed=0"), folder_of("seed=1")
    a.update_provenance(attempts=[{"source_hash": "aaaa", "data_fingerprint": "d1"}])
    b.update_provenance(attempts=[{"source_hash": "bbbb", "data_fingerprint": "d1"}], packages={"torch": "0"})
    found = as_pairs(version_differences(Subject.of_folder(a), Subject.of_folder(b)))
    assert found["training code"] == ("aaaa", "bbbb", False)
    assert found["package torch"][1:] == ("0", False)
    assert "data" not in found
    assert version_differences(Subject.of_folder(a), line_of()) == []


def test_runs_are_found_by_path_name_id_and_beginning(folders: Path) -> None:
    run = folder_of()
    for name in (str(run.path), run.path.name, run.run_id, run.run_id[:5]):
        assert find_run(name, folders) == run
    with pytest.raises(RunFolderError, match=rf"there is no run {run.run_id[:-1]}x.*Did you mean {run.run_id}\?"):
        find_run(f"{run.run_id[:-1]}x", folders)
    folder_of("seed=1")
    with pytest.raises(RunFolderError, match="beginning of several runs"):
        find_run("", folders)
