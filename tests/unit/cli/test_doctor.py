"""The doctor: what is fine, what is absent, what is wrong, and what it says to do."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from moe_sweeps.cli import doctor
from moe_sweeps.cli.doctor import Finding, Mark
from moe_sweeps.data.memmap import TokenData
from moe_sweeps.kernels import build
from moe_sweeps.kernels.arithmetic import Arithmetic, preferred
from moe_sweeps.paths import REPOSITORY


def test_report_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    fine, wrong = Finding("disk", Mark.fine, "much"), Finding("data", Mark.wrong, "none", "Get some.")
    assert doctor.print_findings(Console(width=80), [fine]) == 0
    assert doctor.print_findings(Console(width=80), [fine, wrong]) == 1
    shown = capsys.readouterr().out
    assert "!!  data      none\n              Get some.\n1 problem to fix" in shown


def test_this_machine_has_what_the_project_needs() -> None:
    for check in (doctor.python, doctor.packages, doctor.devices):
        assert [f.mark for f in check()] == [Mark.fine]


def test_a_damaged_library_and_a_cache_of_others_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Arithmetic, "obstacle", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "moe_sweeps"
    folder.mkdir(mode=0o700)
    (folder / build.library_name(preferred())).write_bytes(b"")
    first = next(iter(doctor.kernels()))
    assert (first.mark, "has no checksum" in first.text, "compiles it again" in first.fix) == (Mark.wrong, True, True)
    (folder / f"{build.library_name(preferred())}.sha256").write_text("0" * 64)
    assert "is damaged" in next(iter(doctor.kernels())).text
    folder.chmod(0o777)
    first = next(iter(doctor.kernels()))
    assert (first.mark, first.text) == (Mark.wrong, f"others may write to {folder}")


def test_where_the_package_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    [clone] = doctor.install(REPOSITORY)
    assert (clone.mark, clone.text[:9]) == (Mark.fine, "a clone, ")
    assert str(REPOSITORY) in clone.text
    monkeypatch.setattr(doctor, "INSTALLED", True)
    [installed] = doctor.install(tmp_path)
    assert installed.mark is Mark.fine
    assert "lie in the working directory" in installed.text
    _, beside = doctor.install(REPOSITORY)
    assert (beside.mark, beside.fix[-16:]) == (Mark.absent, "pip install -e .")
    monkeypatch.setattr(doctor, "missing_folders", lambda: ["conf", "tables"])
    [broken] = doctor.install(tmp_path)
    assert broken.mark is Mark.wrong
    assert "lacks conf/, tables/: no command can work" in broken.text
    assert "pip install --force-reinstall" in broken.fix


def test_compiled_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Arithmetic, "obstacle", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    [absent] = doctor.kernels()
    assert (absent.mark, absent.text) == (Mark.absent, "there is no C++ compiler: runs use torch's operations alone")
    assert "set CXX" in absent.fix
    (tmp_path / "clang++").touch(mode=0o755)
    [fine] = doctor.kernels()
    assert (fine.mark, fine.text) == (
        Mark.fine,
        f"{tmp_path}/clang++ compiles them for training on CPU ({preferred()})",
    )
    monkeypatch.setattr(Arithmetic, "obstacle", lambda _: "the processor has no AVX2")
    [old] = doctor.kernels()
    assert (old.mark, old.text[:26]) == (Mark.absent, "the processor has no AVX2:")


def test_package_of_the_wrong_version(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"torch": "1.0", "packaging": None}
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: found.get(name, version(name)))
    [finding] = doctor.packages()
    assert finding.mark is Mark.wrong
    assert "torch is 1.0, and " in finding.text
    assert "packaging is not installed" in finding.text
    assert "pip install -e ." in finding.fix


def test_data_complete_damaged_and_partial(tmp_path: Path, real_data: TokenData) -> None:
    [absent] = doctor.prepared_data(tmp_path)
    assert absent.mark is Mark.absent
    (tmp_path / "corpus-1").symlink_to(real_data.folder)
    (tmp_path / "corpus-2").mkdir()
    (tmp_path / "fineweb_edu-3.partial").mkdir()
    findings = list(doctor.prepared_data(tmp_path))
    assert [f.mark for f in findings] == [Mark.fine, Mark.wrong, Mark.wrong]
    assert real_data.fingerprint[:12] in findings[0].text
    assert "to resume it" in findings[2].fix


@pytest.mark.parametrize(
    ("script", "mark", "text"),
    [
        (None, Mark.absent, "no sbatch"),
        ("echo 'debug* up 4'", Mark.fine, "partitions: debug* up 4"),
        ("echo gone >&2; exit 1", Mark.wrong, "sinfo fails: gone"),
    ],
)
def test_slurm(script: str | None, mark: Mark, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sbatch", "sinfo") if script else ():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if script else str(tmp_path))
    [finding] = doctor.slurm()
    assert finding.mark is mark
    assert text in finding.text


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    [finding] = doctor.disk({"data": tmp_path / "not" / "there"})
    assert finding.mark is Mark.wrong
    assert "1 GB free" in finding.text
    assert "MOE_SWEEPS_DATA" in finding.fix


def test_a_check_that_fails_is_a_finding() -> None:
    def broken() -> None:
        raise np.exceptions.AxisError("odd")

    [finding] = doctor._guarded("Hub", broken)  # type: ignore[arg-type]
    assert finding == Finding("Hub", Mark.wrong, "the check itself failed: AxisError: odd")


def test_trackers_installed_missing_and_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setattr(doctor, "_version", {"wandb": "0.31.0", "tensorboard": None}.get)
        found = list(doctor.trackers())
    assert [f.mark for f in found] == [Mark.fine, Mark.absent, Mark.fine]
    assert found[0].text == "wandb 0.31.0"
    assert found[1].fix.endswith("-m pip install -e '.[tensorboard]'")
    assert found[2].text == "wandb's server 127.0.0.1 answers"
    gone = doctor.wandb_server(url)
    assert (gone.mark, gone.fix) == (
        Mark.absent,
        "tracking=wandb needs it, unless tracking.mode=offline (docs/tracking.md).",
    )
    assert doctor.wandb_server("http://127.0.0.1:nonsense").mark is Mark.absent
