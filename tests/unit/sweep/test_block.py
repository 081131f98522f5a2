"""Blocks of a grid, counted against brute force (hypothesis draws them)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moe_sweeps.errors import ConfigError
from moe_sweeps.sweep.block import Block, same_value

KEYS = ("a", "b", "c", "d", "e")
VALUES = st.lists(st.integers(0, 4).map(str), min_size=1, max_size=4, unique=True)


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """A block as a sweep file writes it: axes, up to one zip, up to two excludes of values that are there."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=5, unique=True))
    zipped = keys[: draw(st.integers(0, len(keys)))]
    content: dict[str, Any] = {key: draw(VALUES) for key in keys if key not in zipped}
    values = dict(content)
    if zipped:
        length = draw(st.integers(1, 3))
        content["zip"] = {
            k: draw(st.lists(st.integers(0, 4).map(str), min_size=length, max_size=length)) for k in zipped
        }
        values |= content["zip"]
    excluded = draw(st.lists(st.sets(st.sampled_from(keys), min_size=1), max_size=2))
    content["exclude"] = [{key: draw(st.sampled_from(values[key])) for key in chosen} for chosen in excluded]
    return content


def by_brute_force(content: dict[str, Any]) -> list[dict[str, str]]:
    """Every assignment of the keys to values, kept when the zip agrees and no exclude covers it."""
    group = content.get("zip", {})
    rows = list(zip(*group.values(), strict=True)) if group else [()]
    axes = {k: v for k, v in content.items() if k not in ("zip", "exclude")}
    found = []
    for point in itertools.product(*axes.values()):
        for row in rows:
            chosen = dict(zip(axes, point, strict=True)) | dict(zip(group, row, strict=True))
            if not any(all(chosen[k] == v for k, v in e.items()) for e in content["exclude"]):
                found.append(chosen)
    return found


@given(contents())
def test_combinations_are_those_of_brute_force(content: dict[str, Any]) -> None:
    expected = by_brute_force(content)
    if not expected:
        with pytest.raises(ConfigError, match="it removes every combination"):
            Block.read(content)
        return
    assert Block.read(content).combinations() == expected


@given(contents(), st.sampled_from(KEYS), VALUES)
def test_what_is_typed_replaces_one_key_and_nothing_else(content: dict[str, Any], key: str, values: list[str]) -> None:
    content["exclude"] = []
    block = Block.read(content)
    group = content.get("zip", {})
    assume(key not in group or len(values) in (1, len(group[key])))
    typed = block.with_values(key, values)
    found = typed.combinations()
    assert {c[key] for c in found} == set(values)
    others = {tuple((k, v) for k, v in sorted(c.items()) if k != key) for c in block.combinations()}
    assert {tuple((k, v) for k, v in sorted(c.items()) if k != key) for c in found} == others
    if key not in group:
        assert len(found) == len(block.combinations()) / len(content.get(key, [0])) * len(values)


def test_a_zip_cannot_take_another_number_of_values() -> None:
    block = Block.read({"zip": {"a": ["1", "2", "3"], "b": ["4", "5", "6"]}})
    with pytest.raises(ConfigError, match=r"a=7,8 is refused: it is zipped with b, which has 3 values"):
        block.with_values("a", ["7", "8"])
    assert [c["a"] for c in block.with_values("a", ["7"]).combinations()] == ["7", "7", "7"]


@pytest.mark.parametrize(("a", "b"), [("1e-3", "0.001"), ("True", "true"), ("3", "3.0"), ("aux", "aux")])
def test_spellings_of_one_value(a: str, b: str) -> None:
    assert same_value(a, b)


@pytest.mark.parametrize(("a", "b"), [("0.1", "0.2"), ("aux", "AUX"), ("null", "0")])
def test_different_values(a: str, b: str) -> None:
    assert not same_value(a, b)


def test_what_is_excluded_is_seen_through_links() -> None:
    block = Block.read({"a": ["1", "2"], "b": ["${a}", "3"], "exclude": {"a": "1", "b": "1.0"}})
    assert block.combinations() == [{"a": "1", "b": "3"}, {"a": "2", "b": "${a}"}, {"a": "2", "b": "3"}]
