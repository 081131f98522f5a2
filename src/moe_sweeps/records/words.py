"""The words for what was found, in one place: terminal, Markdown, HTML, LaTeX, CSV and notebooks say nothing else.

A difference between two sides is better, worse, equivalent or undecided; a statement is reproduced, contradicted,
undecided or not judged. What keeps either from being tested is said after "no verdict:".
"""

from __future__ import annotations

from typing import Literal

Tone = Literal["better", "worse", "grey", "mark"]

BETTER, WORSE, EQUIVALENT, UNDECIDED = "better", "worse", "equivalent", "undecided"
REPRODUCED, CONTRADICTED, NOT_JUDGED = "reproduced", "contradicted", "not judged"  # or undecided
NO_RESULT, NO_VERDICT = "no result", "no verdict"
ONE_SEED = " (one seed)"  # after a verdict: one side's spread is taken from alike runs

MEANINGS = {
    BETTER: "the test found a difference, and it is on the good side",
    WORSE: "the test found a difference, and it is on the bad side",
    EQUIVALENT: "the test found that any difference is smaller than what counts as one",
    REPRODUCED: "the test shows that the statement holds",
    CONTRADICTED: "the test shows that the statement does not hold",
    UNDECIDED: "the test shows neither; this is no finding of equality",
    NOT_JUDGED: "this version cannot test such a statement",
    NO_RESULT: "no two sides have a finished run",
    NO_VERDICT: "something keeps the test from saying anything; it is named",
}
_TONES: dict[str, Tone] = {
    BETTER: "better", REPRODUCED: "better", WORSE: "worse", CONTRADICTED: "worse", NO_RESULT: "mark",
    EQUIVALENT: "better",
}  # fmt: skip


def tone(verdict: str) -> Tone:
    """How a verdict is set, whatever stands behind it in brackets or after a colon."""
    return _TONES.get(word(verdict), "grey")


def word(verdict: str) -> str:
    """The word that a verdict begins with, one of MEANINGS; empty for other texts."""
    return next((each for each in MEANINGS if verdict == each or verdict.startswith((f"{each} ", f"{each}:"))), "")
