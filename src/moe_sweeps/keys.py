"""Keys of other services: they belong in the environment or in a service's own files, never into ours."""

from __future__ import annotations

import os
import re

VARIABLES = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
HIDDEN = "***"
_SHORTEST = 8  # what is shorter is no key, and hiding it would make holes in sentences
# NAME=value, as in `export WANDB_API_KEY=...`, of any variable whose name says what it is.
_ASSIGNED = re.compile(r"\b([A-Z][A-Z0-9_]*(?:API_KEY|TOKEN|SECRET|PASSWORD))=([^\s'\"\],;]+)")


def without_keys(text: str) -> str:
    """`text` with every key replaced by ***: values of VARIABLES in this environment, and NAME_API_KEY=value."""
    return _ASSIGNED.sub(rf"\1={HIDDEN}", without_own_keys(text))


def without_own_keys(text: str) -> str:
    """The same for the values of VARIABLES alone: in source code NAME_TOKEN=value need not be a key."""
    for value in map(os.environ.get, VARIABLES):
        if value and len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    return text


def has_key(text: str) -> bool:
    """Whether `without_keys` would change it."""
    return without_keys(text) != text
