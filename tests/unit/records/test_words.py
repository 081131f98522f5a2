"""The words for what was found: one list, and every place that says a verdict says one of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import moe_sweeps
from moe_sweeps.records.words import MEANINGS, REPRODUCED, UNDECIDED, tone, word

OWNER = "words.py"


@pytest.mark.parametrize(
    ("verdict", "expected", "set_as"),
    [
        ("better", "better", "better"),
        ("better (one seed)", "better", "better"),
        ("better than every other arm", "better", "better"),
        ("worse (one seed)", "worse", "worse"),
        ("undecided", "undecided", "grey"),
        ("no verdict: 2 diverged or stopped", "no verdict", "grey"),
        ("no result", "no result", "mark"),
        ("not judged", "not judged", "grey"),
        ("betterment", "", "grey"),
        ("", "", "grey"),
    ],
)
def test_the_word_of_a_verdict_and_its_tone(verdict: str, expected: str, set_as: str) -> None:
    assert word(verdict) == expected
    assert tone(verdict) == set_as


def test_every_word_is_explained() -> None:
    assert {UNDECIDED, REPRODUCED} <= MEANINGS.keys()
    assert all(len(meaning) > 10 for meaning in MEANINGS.values())


def test_no_other_module_spells_a_verdict() -> None:
    spelled = re.compile(r'"(undecided|reproduced|contradicted|not judged|equivalent)"')
    root = Path(moe_sweeps.__file__).parent
    others = [path.name for path in root.rglob("*.py") if path.name != OWNER and spelled.search(path.read_text())]
    assert others == []
