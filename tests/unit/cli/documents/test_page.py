"""docs/json.md, and that every field of every document is explained there."""

from __future__ import annotations

import dataclasses

import pytest

from moe_sweeps.cli.documents.document import Document
from moe_sweeps.cli.documents.page import COMMANDS, page, parts_of
from moe_sweeps.paths import REPOSITORY


def test_the_page_is_that_of_the_declarations() -> None:
    assert (REPOSITORY / "docs" / "json.md").read_text() == page(), "make format"


def test_every_document_is_on_it() -> None:
    declared = {cls.SCHEMA for cls in Document.__subclasses__() if cls.__module__.startswith("moe_sweeps")}
    assert declared == {cls.SCHEMA for cls in COMMANDS}
    assert len(declared) == len(COMMANDS)


@pytest.mark.parametrize("cls", COMMANDS)
def test_every_field_says_what_it_is(cls: type[Document]) -> None:
    for part in (cls, *parts_of(cls)):
        assert all(field.metadata["doc"].strip() for field in dataclasses.fields(part))
        assert part.__doc__
        assert not part.__doc__.startswith(part.__name__)  # the signature that a dataclass writes for itself
