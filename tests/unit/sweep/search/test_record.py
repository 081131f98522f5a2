"""The manifest of a search, read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import TINY

from moe_sweeps.errors import RunFolderError
from moe_sweeps.sweep.search.drive import Search
from moe_sweeps.sweep.search.plan import make_search_plan
from moe_sweeps.sweep.search.record import load_trials, path_of


def test_a_stored_place_outside_its_axis_is_said_in_words(folders: Path) -> None:
    plan = make_search_plan(("search=random", *TINY, "aux.coef=range(0.1,0.4,0.1)"))
    search = Search(plan, "typed")
    assert search.next_run() is not None
    content = json.loads(path_of(plan).read_text())
    content["search"]["trials"][0]["params"]["aux.coef"] = 7
    path_of(plan).write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match="Move it away to restart the search"):
        load_trials(plan)
