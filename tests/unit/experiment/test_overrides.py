"""A command line is parsed once, from the first question about it to the plan."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.types import Override

from moe_sweeps.config import grammar
from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.overrides import Setting, parse
from moe_sweeps.sweep.grid import single
from moe_sweeps.sweep.plan import make_plan
from moe_sweeps.sweep.search.space import asks_for_search, read_space

LINE = ["scale=smoke", "balancer=aux,lossfree", "aux.coef=0.1,0.25", "router.noise=fixed", "seed=range(0,3)"]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the grammar was asked about each text."""
    parser: Any = grammar._parser()
    texts: Counter[str] = Counter()
    ask = parser.parse_override

    def counted(text: str) -> Override:
        texts[text] += 1
        found: Override = ask(text)
        return found

    monkeypatch.setattr(parser, "parse_override", counted)
    grammar.parse_value.cache_clear()
    return texts


def test_a_line_is_parsed_once_on_its_way_to_the_plan(folders: Path, parsed: Counter[str]) -> None:
    assert not asks_for_search(LINE)
    plan = make_plan(LINE)
    assert len(plan.requests) == 12
    assert set(LINE) <= parsed.keys()
    assert {text: n for text, n in parsed.items() if n > 1} == {}


def test_the_settings_of_one_run_are_those_that_were_parsed(parsed: Counter[str]) -> None:
    """What a setting means is what was parsed when the line was read, not its text parsed again."""
    line = ["aux.coef=1e-3", "name=a-b", "data_seed=null"]
    assert [setting.meaning for setting in single(line)] == [1e-3, "a-b", None]
    assert parsed == Counter(line)


def test_a_list_that_a_setting_means_is_nobody_elses() -> None:
    first = Setting("launch.sbatch", "[a,b]").meaning
    first.append("c")
    assert Setting("launch.sbatch", "[a,b]").meaning == ["a", "b"]


def test_a_setting_that_means_nothing_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"aux\.coef=\[1 is refused: it cannot be parsed"):
        _ = Setting("aux.coef", "[1").meaning


@pytest.mark.parametrize("line", [["search=tpe"], ["seed=1", "search=random"], ["search=none", "search=tpe"]])
def test_a_search_is_asked_for_by_an_override(line: list[str]) -> None:
    assert asks_for_search(line)


@pytest.mark.parametrize("line", [[], ["search.trials=3"], ["search=tpe", "search=none"], ["name=search"]])
def test_other_lines_ask_for_no_search(line: list[str]) -> None:
    assert not asks_for_search(line)


def test_what_cannot_be_parsed_is_refused_by_whoever_asks_first() -> None:
    for ask in (asks_for_search, single, make_plan, read_space, parse):
        with pytest.raises(ConfigError, match=r"aux\.coef=\[1 is refused"):
            ask(["aux.coef=[1"])
