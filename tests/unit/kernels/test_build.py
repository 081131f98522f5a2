"""Compiling the kernels: once, found again, and done without where it is impossible."""

from __future__ import annotations

import logging
import os
import platform
import tempfile
from pathlib import Path

import pytest

from moe_sweeps import kernels
from moe_sweeps.config.groups import KernelChoice
from moe_sweeps.errors import ConfigError
from moe_sweeps.kernels import build

needs_compiler = pytest.mark.skipif(
    build.compiler() is None or build.processor_obstacle() is not None, reason="the kernels cannot be compiled here"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "moe_sweeps"


@pytest.fixture
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing had been loaded or said before."""
    monkeypatch.setattr(kernels, "load", kernels.load.__wrapped__)
    kernels._say_once.cache_clear()


@pytest.fixture
def _no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


@needs_compiler
def test_it_is_compiled_once_and_then_found_without_a_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.library()
    assert first.parent == cache
    assert [p.name for p in cache.iterdir()] == [first.name]  # no draft is left
    compiled = first.stat().st_mtime_ns
    monkeypatch.setenv("PATH", "")
    assert build.library() == first
    assert first.stat().st_mtime_ns == compiled


@pytest.mark.usefixtures("_forgetful", "_no_compiler", "cache")
def test_without_a_compiler_training_goes_on_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert kernels.chosen_kernels(KernelChoice.auto) is None
        assert kernels.chosen_kernels(KernelChoice.auto) is None
    assert [r.message for r in caplog.records if "no C++ compiler" in r.message] == [caplog.records[0].message]
    assert kernels.chosen_kernels(KernelChoice.torch) is None


@pytest.mark.usefixtures("_forgetful", "_no_compiler", "cache")
def test_asked_for_by_name_they_are_refused_where_they_cannot_be_had() -> None:
    with pytest.raises(ConfigError, match=r"engine\.kernels=compiled is refused: there is no C\+\+ compiler"):
        kernels.chosen_kernels(KernelChoice.compiled)


@pytest.mark.usefixtures("cache")
def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'first' >&2\necho 'out of patience' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    if build.processor_obstacle() is None:
        with pytest.raises(build.KernelsUnavailable, match="out of patience"):
            build.library()


@needs_compiler
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.library().is_file()


@needs_compiler
@pytest.mark.parametrize("why", [PermissionError(13, "not yours"), RuntimeError("no home")])
def test_without_a_home_all_workers_share_a_folder_of_their_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    def refuse() -> Path:
        raise why

    monkeypatch.setattr(build, "cache_folder", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = build.library()
    assert found.parent == tmp_path / f"moe_sweeps-{os.getuid()}"
    assert found.parent.stat().st_mode & 0o777 == 0o700
    assert build.library() == found
    found.parent.chmod(0o777)  # anybody may put a library there: it is not trusted
    assert build.library().parent != found.parent


@pytest.mark.usefixtures("_forgetful")
def test_a_damaged_library_is_named(cache: Path) -> None:
    if build.processor_obstacle() is not None:
        pytest.skip("the kernels cannot run here")
    cache.mkdir()
    path = cache / f"kernels-{build._digest()}.so"
    path.write_bytes(b"no library")
    with pytest.raises(kernels.KernelsUnavailable, match=path.name):
        kernels.load()


def test_an_old_processor_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(Path, "read_text", lambda _: "flags\t\t: fpu sse4_2 avx\n\nflags: avx2 fma")
    assert build.processor_obstacle() == "the processor has no AVX2"
    monkeypatch.setattr(Path, "read_text", lambda _: "flags\t\t: fpu avx2 fma\n\n")
    assert build.processor_obstacle() is None
