"""When two records of code contradict each other, and what is said of it."""

from __future__ import annotations

import itertools

import pytest

from moe_sweeps.records.code_record import (
    CodeRecord,
    changed_files,
    differing_files,
    disagree,
    is_other,
    name_files,
    parsed_text,
    records,
    text_of,
    versions,
)

SHARED = {"trainer.py": "t1", "worker.py": "w1"}
AUX = CodeRecord.of(SHARED | {"balancing/auxiliary.py": "a1", "balancer=aux": "balancing/auxiliary.py"})
FREE = CodeRecord.of(SHARED | {"balancing/lossfree.py": "l1", "balancer=lossfree": "balancing/lossfree.py"})
FREE_2 = CodeRecord.of({**(FREE.files or {}), "balancing/lossfree.py": "l2"})
MOVED = CodeRecord.of(SHARED | {"balancing/free.py": "l3", "balancer=lossfree": "balancing/free.py"})
TRAINER_2 = CodeRecord.of({**(AUX.files or {}), "trainer.py": "t2"})
OLD, OLDER, UNKNOWN = CodeRecord("1d5448fe8a3d"), CodeRecord("0lder"), CodeRecord("unknown")


def test_a_version_follows_from_files_and_hashes_in_any_order() -> None:
    assert AUX.files is not None
    assert CodeRecord.of(dict(reversed([*AUX.files.items()]))) == AUX
    assert len({r.version for r in (AUX, FREE, FREE_2, MOVED, TRAINER_2)}) == 5
    assert len(AUX.version) == 12


CONTRADICT = [(FREE, FREE_2), (FREE, MOVED), (FREE_2, MOVED)] + [(TRAINER_2, o) for o in (AUX, FREE, FREE_2, MOVED)]


def test_two_arms_go_together_unless_a_file_that_both_execute_differs() -> None:
    everything = (AUX, FREE, FREE_2, MOVED, TRAINER_2, OLD, OLDER, UNKNOWN)
    for a, b in itertools.combinations(everything, 2):
        by_files = a.files is not None and b.files is not None
        expected = (a, b) in CONTRADICT or (b, a) in CONTRADICT or not by_files
        assert a.contradicts(b) == b.contradicts(a) == expected == disagree([a, b]), (a, b)
    assert not any(one.contradicts(one) for one in everything)


def test_of_one_run_every_file_counts_that_comes_goes_or_changes() -> None:
    assert changed_files(FREE, FREE_2) == ("balancing/lossfree.py",)
    assert set(changed_files(FREE, MOVED)) == {"balancing/lossfree.py", "balancing/free.py", "balancer=lossfree"}
    assert is_other(FREE, FREE_2)
    assert is_other(FREE, MOVED)
    assert not is_other(FREE, CodeRecord.of(FREE.files or {}))
    assert is_other(OLD, FREE)
    assert changed_files(OLD, FREE) == ()
    assert not is_other(OLD, CodeRecord(OLD.version))


def test_kernels_that_only_one_of_two_attempts_used_are_no_change() -> None:
    """Whether they are used is infrastructure: another device may go on."""
    with_kernels = CodeRecord.of({**SHARED, "kernels/kernels.cpp": "k1"})
    assert not is_other(CodeRecord.of(SHARED), with_kernels)
    assert is_other(CodeRecord.of({**SHARED, "kernels/kernels.cpp": "k2"}), with_kernels)


def test_records_that_go_together_have_one_name_in_a_table() -> None:
    assert len(set(versions([AUX, FREE]).values())) == 1
    assert versions([AUX]) == {AUX.version: AUX.version}
    assert versions([OLD, OLD]) == {OLD.version: OLD.version}
    found = versions([AUX, FREE, FREE_2, OLD])
    assert found[AUX.version] == found[FREE.version]
    assert len(set(found.values())) == 3
    assert found[OLD.version] == OLD.version
    for group in itertools.permutations((AUX, FREE, FREE_2, TRAINER_2)):
        assert len(set(versions(group).values())) > 1  # in whatever order
    assert differing_files([AUX, FREE, FREE_2, OLD]) == ["balancing/lossfree.py"]


def test_what_a_run_was_trained_with_is_read_from_its_attempts() -> None:
    submitted = FREE.entry()
    assert records(submitted) == (FREE,)
    assert records(submitted | {"attempts": []}) == (FREE,)
    same, other = {"source_hash": FREE.version}, FREE_2.entry()
    assert records(submitted | {"attempts": [same, same]}) == (FREE,)
    assert records(submitted | {"attempts": [same, other, same]}) == (FREE, FREE_2)
    assert records(submitted | {"attempts": [other]}) == (FREE_2,)
    assert records(submitted | {"attempts": [{"source_hash": "x"}]}) == (CodeRecord("x"),)
    assert records({"source_hash": "x"}) == (CodeRecord("x"),)
    assert records({}) == ()


@pytest.mark.parametrize("found", [(), (AUX,), (OLD,), (AUX, OLD, FREE_2)])
def test_records_survive_a_column_of_text(found: tuple[CodeRecord, ...]) -> None:
    assert parsed_text(text_of(found)) == found


def test_the_first_files_are_named() -> None:
    assert name_files(["a.py"]) == "a.py"
    assert name_files(["a.py", "b.py", "a.py", "c.py"]) == "a.py, b.py, c.py"
    assert name_files("abcde") == "a, b, c and 2 more"
    assert name_files("abcde", most=None) == "a, b, c, d, e"
    assert name_files([]) == "recorded before versions were kept by file"
