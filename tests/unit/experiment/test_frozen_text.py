"""A frozen config is data: its texts are not questions that OmegaConf answers."""

from __future__ import annotations

import pytest
from helpers import TINY, compose_run

from moe_sweeps.errors import ConfigError
from moe_sweeps.experiment.frozen import from_dict, to_dict


@pytest.mark.parametrize(
    "text", ["${oc.env:HOME}", "${seed}", "a\\${x}", "\\\\${a} ${b}", "$HOME", "${", "${oc.decode:x}"]
)
def test_texts_stay_texts(text: str) -> None:
    content = to_dict(compose_run(*TINY))
    content["paths"]["runs"] = text
    assert from_dict(content).paths.runs == text


@pytest.mark.parametrize("content", [3, None, [1], "x"])
def test_a_group_that_is_none_is_refused(content: object) -> None:
    with pytest.raises(ConfigError, match="a group is a mapping"):
        from_dict(to_dict(compose_run(*TINY)) | {"trainer": content})
