"""Compiling the kernels: once, found again, and done without where it is impossible."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from moe_sweeps import kernels
from moe_sweeps.config.groups import KernelChoice
from moe_sweeps.errors import ConfigError
from moe_sweeps.kernels import build, calls
from moe_sweeps.kernels import cache as cache_module
from moe_sweeps.kernels.arithmetic import Arithmetic, preferred
from moe_sweeps.kernels.cache import checksum_file, keep, problem_with

needs_compiler = pytest.mark.skipif(
    build.compiler() is None or preferred().obstacle() is not None, reason="the kernels cannot be compiled here"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "moe_sweeps"


@pytest.fixture
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing had been loaded or said before."""
    monkeypatch.setattr(calls, "_loaded", calls._loaded.__wrapped__)
    kernels._say_once.cache_clear()


@pytest.fixture
def _no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


@needs_compiler
def test_it_is_compiled_once_and_then_found_without_a_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.library(preferred())
    assert first.parent == cache
    assert sorted(p.name for p in cache.iterdir()) == [first.name, f"{first.name}.sha256"]  # no draft is left
    assert cache.stat().st_mode & 0o777 == 0o700
    compiled = first.stat().st_mtime_ns
    monkeypatch.setenv("PATH", "")
    assert build.library(preferred()) == first
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
    if preferred().obstacle() is None:
        with pytest.raises(build.KernelsUnavailable, match="out of patience"):
            build.library(preferred())


@needs_compiler
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.library(preferred()).is_file()


@needs_compiler
@pytest.mark.parametrize("why", [PermissionError(13, "not yours"), RuntimeError("no home")])
def test_without_a_home_all_workers_share_a_folder_of_their_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    def refuse() -> Path:
        raise why

    monkeypatch.setattr(cache_module, "cache_folder", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = build.library(preferred())
    assert found.parent == tmp_path / f"moe_sweeps-{os.getuid()}"
    assert found.parent.stat().st_mode & 0o777 == 0o700
    assert build.library(preferred()) == found
    found.parent.chmod(
        0o777
    )  # anybody may put a library there: ours is closed to them again, and what they left not used
    assert build.library(preferred()) == found
    assert found.parent.stat().st_mode & 0o777 == 0o755


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def without_checksum(path: Path) -> None:
    checksum_file(path).unlink()


def with_a_pipe_for_a_checksum(path: Path) -> None:
    checksum_file(path).unlink()
    os.mkfifo(checksum_file(path))


def writable_for_others(path: Path) -> None:
    path.chmod(0o666)


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere.so"))
    path.symlink_to("elsewhere.so")


def of_another_user(path: Path) -> None:
    os.chown(path, 12345, -1)


@needs_compiler
@pytest.mark.parametrize(
    "harm",
    [
        shortened,
        emptied,
        without_checksum,
        with_a_pipe_for_a_checksum,
        writable_for_others,
        a_link,
        of_another_user,
    ],
)
def test_a_library_that_is_not_whole_or_not_ours_is_compiled_again(
    cache: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    """A library that was cut short ends every process that maps it by SIGBUS."""
    if harm is of_another_user and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = build.library(preferred())
    whole = path.read_bytes()
    harm(path)
    with caplog.at_level(logging.WARNING):
        assert build.library(preferred()) == path
    assert "it is compiled again" in caplog.text
    assert path.read_bytes() == whole
    assert (path.lstat().st_uid, path.lstat().st_mode & 0o022, path.is_symlink()) == (os.getuid(), 0, False)
    assert problem_with(path) is None


@needs_compiler
def test_a_cache_of_another_user_is_not_used(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    foreign = build.library(preferred())
    os.chown(foreign.parent, 12345, -1)
    assert build.library(preferred()).parent == tmp_path / f"moe_sweeps-{os.getuid()}"


@needs_compiler
@pytest.mark.parametrize("foreign", [Path.touch, lambda p: p.symlink_to("/"), lambda p: os.mkfifo(p)])
def test_a_foreign_file_in_the_place_of_the_temporary_folder_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    foreign(tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache" / "x"))
    monkeypatch.setattr(cache_module, "cache_folder", lambda: tmp_path / "cache")
    foreign(tmp_path / f"moe_sweeps-{os.getuid()}")
    found = build.library(preferred())
    assert found.parent.parent == tmp_path
    assert found.parent.name.startswith("moe_sweeps-")
    assert found.parent.stat().st_mode & 0o777 == 0o700


def test_no_folder_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Arithmetic, "obstacle", lambda _: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file" / "x"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(build.KernelsUnavailable, match="no folder can be written to"):
        build.library(preferred())


@pytest.mark.usefixtures("_forgetful")
def test_a_library_that_cannot_be_loaded_is_named(cache: Path) -> None:
    """Whole, by its checksum, and yet no library: of another system, for example."""
    if preferred().obstacle() is not None:
        pytest.skip("the kernels cannot run here")
    cache.mkdir()
    draft = cache / "draft"
    draft.write_bytes(b"no library")
    keep(draft, cache / build.library_name(preferred()))
    with pytest.raises(kernels.KernelsUnavailable, match=build.library_name(preferred())):
        kernels.load()
