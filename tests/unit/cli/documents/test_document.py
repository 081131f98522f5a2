"""How a document becomes JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from moe_sweeps import __version__
from moe_sweeps.cli.documents.document import Document, as_json, plain_data, told
from moe_sweeps.cli.documents.refusal import error_document
from moe_sweeps.errors import ConfigError, MoeSweepsError, key_refused


class Colour(StrEnum):
    red = "r"


@dataclass(frozen=True, slots=True)
class Example(Document):
    SCHEMA: ClassVar[str] = "moe-sweeps/example"
    value: Any = told("anything")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float64("nan"), None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (10**400, 10**400),
        (True, True),
        (0.1 + 0.2, 0.30000000000000004),
        (Path("/a b"), "/a b"),
        (Colour.red, "r"),
        ({1: (None, {"x"})}, {"1": [None, ["x"]]}),
        ("a\x1b[31m\n\ud83d", "a\x1b[31m\n\ud83d"),
        (Example([math.inf]), {"value": [None]}),
    ],
)
def test_what_python_has_and_json_has_not(value: object, found: object) -> None:
    assert plain_data(value) == found
    assert type(plain_data(value)) is type(found)


def test_the_envelope_comes_first_and_all_is_ascii() -> None:
    text = as_json(Example("\x1b[31mé\ud83d\x00"))
    assert text.isascii()
    assert "\x1b" not in text
    content = json.loads(text, parse_constant=pytest.fail)
    assert list(content) == ["schema", "schema_version", "program", "value"]
    assert content["schema"] == "moe-sweeps/example"
    assert content["schema_version"] == 1
    assert content["program"] == f"moe_sweeps {__version__}"


def test_a_refusal_has_its_parts_and_no_key() -> None:
    found = plain_data(error_document(ConfigError("aux.coef", -1, "it must not be negative", "Write 0."), 2))
    assert (found["field"], found["value"], found["fix"]) == ("aux.coef", "-1", "Write 0.")
    assert (found["kind"], found["exit_code"]) == ("ConfigError", 2)
    assert plain_data(error_document(key_refused("launch.setup"), 2))["value"] == "***"
    error = MoeSweepsError("no")
    error.add_note("but")
    assert plain_data(error_document(error, 2)) == {
        "kind": "MoeSweepsError",
        "message": "no",
        **dict.fromkeys(("field", "value", "rule", "fix")),
        "notes": ["but"],
        "exit_code": 2,
    }
