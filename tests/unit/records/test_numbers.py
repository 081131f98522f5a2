"""The catalogue of final numbers: a new one is known everywhere once it is added there."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from helpers import TINY, compose_run

from moe_sweeps.experiment.code_version import code_version
from moe_sweeps.records.numbers import (
    BY_COLUMN,
    CATALOGUE,
    PRIMARY,
    SEARCHABLE,
    metric_of,
    spell_probability,
    spell_ratio,
)

# The module with one more entry in FURTHER stands in for the one on disk before anything imports it.
NEW_NUMBER = """
import sys, types
from pathlib import Path
import moe_sweeps.records
path = Path(moe_sweeps.records.__file__).with_name("numbers.py")
entry = 'Metric("val_entropy", "entropy", 3, better="higher", words="entropy of the router", unit=" nats"),'
text = path.read_text().replace("FURTHER = (", "FURTHER = (" + entry, 1)
module = types.ModuleType("moe_sweeps.records.numbers")
sys.modules[module.__name__] = moe_sweeps.records.numbers = module
exec(compile(text, str(path), "exec"), module.__dict__)
"""
KNOWN = {
    "a search may optimise it": """
from moe_sweeps.config.search import SearchMetric, TpeSearchConfig
found = TpeSearchConfig(metric=SearchMetric["val_entropy"]).number
assert (found.lower_is_better, found.in_log) == (False, "entropy")
""",
    "a claim may be about it": """
from moe_sweeps.sweep.expectation import read_expectation
arms = {"arm": {"a": "1"}, "than": {"a": "2"}}
read_expectation({"claim": "c", "kind": "better", "metric": "val_entropy", **arms})
""",
    "the rows have it as a checked number": """
from moe_sweeps.results.runs import ALWAYS, _check_numbers
assert "val_entropy" in ALWAYS
try:
    _check_numbers({"val_loss": 1.0, "val_entropy": float("nan")})
except Exception as error:
    assert "val_entropy" in str(error)
else:
    raise AssertionError
""",
    "the end of a run shows it": """
from moe_sweeps.cli.views import _summary_rows
assert _summary_rows({"val_entropy": 0.5}) == [("entropy of the router", "0.500 nats")]
""",
    "a table may have it as a column": """
from moe_sweeps.results.definition import TableDefinition
from moe_sweeps.results.tables import metrics_of
assert metrics_of(TableDefinition(metrics=("val_entropy",)))[-1].header == "entropy"
""",
}


@pytest.mark.parametrize("where", KNOWN)
def test_a_new_number_is_known_everywhere(where: str) -> None:
    code = [sys.executable, "-c", NEW_NUMBER + KNOWN[where]]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_catalogue_is_no_part_of_the_code_that_trains_a_run() -> None:
    """Else a new number would mark every stored run as trained by other code."""
    files = code_version(compose_run(*TINY)).files
    assert files is not None
    assert "records/rundir.py" in files
    assert not {"records/numbers.py", "records/claims.py", "records/manifest.py", "records/find.py"} & files.keys()


def test_directions() -> None:
    assert {m.column for m in CATALOGUE if m.better == "higher"} == {
        "val_accuracy", "tokens_per_second", "share_of_peak", "share_of_gemm_peak",
    }  # fmt: skip
    assert {m.column for m in CATALOGUE if m.better is None} == {
        "val_z_loss", "params_total", "params_active", "tokens",
    }  # fmt: skip
    with pytest.raises(ValueError, match="val_z_loss has no better direction"):
        _ = BY_COLUMN["val_z_loss"].lower_is_better


def test_how_numbers_are_shown() -> None:
    accuracy, tokens = BY_COLUMN["val_accuracy"], BY_COLUMN["tokens"]
    assert (accuracy.spell(0.25), accuracy.spell(0.25, sign=True)) == ("25.00", "+25.00")
    assert accuracy.spell_with_unit(0.25) == "25.00%"
    assert tokens.spell_with_unit(2_048_000) == "2,048,000"
    assert PRIMARY.spell_with_unit(4.56789) == "4.5679 nats"
    assert metric_of("odd.number").spell(0.5) == "0.5000"


def test_a_search_may_optimise_what_evaluations_measure_and_has_a_direction() -> None:
    assert [m.column for m in SEARCHABLE] == [
        "val_loss", "val_perplexity", "val_accuracy", "val_maxvio_global", "val_load_balancing_loss",
    ]  # fmt: skip


def test_no_probability_is_spelt_as_certain() -> None:
    assert [spell_probability(p) for p in (0.0, 0.0004, 0.5, 0.9371, 0.9995, 1.0)] == [
        "<0.1%", "<0.1%", "50.0%", "93.7%", ">99.9%", ">99.9%",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.64, "0.640"), (0.2, "0.200"), (9.9, "9.90"), (0.3384, "0.338"), (14.06, "14.1"), (1.0, "1.00"), (100.2, "100"),
     (999.4, "999"), (999.6, "1,000"), (1234.4, "1,234"), (2.06e-9, "2.06e-09"), (1.5e12, "1.50e+12")],
)  # fmt: skip
def test_a_ratio_has_three_digits_whatever_they_are(ratio: float, text: str) -> None:
    assert spell_ratio(math.log(ratio)) == text
