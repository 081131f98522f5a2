"""Enumerations whose members say what they mean, where they are declared."""

from __future__ import annotations

from enum import Enum
from typing import Self


class Choice(Enum):
    """Values of a knob: `fixed = "fixed", "z + noise_std * N(0, 1)"`. The second part is its documentation, `doc`."""

    _value_: str
    doc: str

    def __new__(cls, value: str, doc: str = "") -> Self:
        member = object.__new__(cls)
        member._value_ = value
        member.doc = doc
        return member
