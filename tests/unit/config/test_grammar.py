"""Ranges: start + i * step before the stop, in the decimal numbers that were typed."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_sweeps.config.grammar import parse_value, texts, unshuffled
from moe_sweeps.errors import ConfigError
from moe_sweeps.sweep.grid import expand


def values(typed: str) -> list[str]:
    return texts(parse_value(f"x={typed}"))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("range(0.1,0.4,0.1)", "0.1 0.2 0.3"),
        ("range(.1,.4,1e-1)", "0.1 0.2 0.3"),
        ("range(0,1,0.1)", "0.0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9"),
        ("range(0.3,0,-0.1)", "0.3 0.2 0.1"),
        ("range(1e-3,4e-3,1e-3)", "0.001 0.002 0.003"),
        ("range(0.7,1.3,0.2)", "0.7 0.9 1.1"),
        ("range(start=0.1,stop=0.3,step=0.1)", "0.1 0.2"),
        ("range(0.3)", "0.0"),
        ("range(3)", "0 1 2"),
        ("range(5,1,-2)", "5 3"),
        ("range(1e3,3e3,1e3)", "1000.0 2000.0"),
        ("int(range(1e3,3e3,1e3))", "1000 2000"),
        ("float(range(1,3))", "1.0 2.0"),
        ("float(int(range(1.5,3.5)))", "1.0 2.0"),
        ("sort(range(0.4,0.1,-0.1))", "0.2 0.3 0.4"),
        ("sort(range(0.1,0.4,0.1),reverse=true)", "0.3 0.2 0.1"),
        ("sort(range(10,1,-4))", "2 6 10"),  # Hydra shifts the ends: 5 9 13
        ("tag(a,b,range(0.1,0.4,0.1))", "0.1 0.2 0.3"),
        ("sort(tag(a,range(0.1,0.4,0.1)))", "0.1 0.2 0.3"),
        ("sort(0.3,0.1)", "0.1 0.3"),
        ("sort(choice(b,a))", "a b"),
        ("choice(0.30,3e-1)", "0.3 0.3"),
        ("a,${b.c}", "a ${b.c}"),
    ],
)
def test_values(typed: str, expected: str) -> None:
    assert values(typed) == expected.split()


def test_shuffled_values_are_the_same_and_a_search_takes_them_in_order() -> None:
    override = parse_value("x=shuffle(range(0.1,0.8,0.1))")
    assert sorted(texts(override)) == texts(unshuffled(override)) == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]


NUMBERS = st.decimals(-20, 20, places=3, allow_nan=False, allow_infinity=False)


@settings(max_examples=200, deadline=None)
@given(NUMBERS, NUMBERS, st.decimals("0.05", 3, places=2), st.booleans())
def test_every_range_is_that_of_decimal_arithmetic(start: Decimal, stop: Decimal, step: Decimal, down: bool) -> None:
    step = -step if down else step
    expected, value = [], start
    while (value > stop) if down else (value < stop):
        expected.append(str(float(value)))
        value += step
    typed = f"range({start},{stop},{step})"
    assert [str(float(v)) for v in values(typed)] == expected
    assert values(f"sort({typed})") == sorted(values(typed), key=float)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("range(0,1,0)", "the step of a range is not 0"),
        ("int(range(0,1,0.25))", "the step of a range is not 0"),
        ("range(0,1,1e-30)", "an axis has 100,000 at most"),
        ("range(0,1e300)", "an axis has 100,000 at most"),
        ("range(0,inf)", "a range goes from a number to a number by a number, not inf"),
        ("range(nan,1)", "a range goes from a number"),
        ("range(0,1,true)", "a range goes from a number"),
        ("range(a,b)", "a range goes from a number"),
        ("range(0.4,0.1,0.1)", "the axis has no values"),
    ],
)
def test_what_is_no_range_is_refused(typed: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        expand([f"aux.coef={typed}"])
    assert caught.value.field == "aux.coef"
