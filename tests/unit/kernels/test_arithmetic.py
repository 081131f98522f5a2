"""Which instruction set a processor computes with."""

from __future__ import annotations

import platform

import pytest

from moe_sweeps.config.groups import KernelChoice
from moe_sweeps.host.processor import Processor
from moe_sweeps.kernels import arithmetic
from moe_sweeps.kernels.arithmetic import Arithmetic, preferred

AVX2 = frozenset({"avx2", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


def on(monkeypatch: pytest.MonkeyPatch, cpu: Processor, machine: str = "x86_64") -> None:
    monkeypatch.setattr(arithmetic, "processor", lambda: cpu)
    monkeypatch.setattr(platform, "machine", lambda: machine)


@pytest.mark.parametrize(
    ("cpu", "wanted"),
    [
        (Processor("AuthenticAMD", 26, AVX512 | {"avx512_bf16"}), Arithmetic.avx512),  # Zen 5
        (Processor("AuthenticAMD", 25, AVX512 | {"avx512_bf16"}), Arithmetic.avx2),  # Zen 4: in two halves
        (Processor("AuthenticAMD", 26, AVX2), Arithmetic.avx2),  # hidden by a hypervisor
        (Processor("GenuineIntel", 6, AVX512 | {"avx512_bf16"}), Arithmetic.avx512),
        (Processor("GenuineIntel", 6, AVX512), Arithmetic.avx2),  # the first ones slow down for it
        (Processor("GenuineIntel", 6, AVX512 - {"avx512vl"} | {"avx512_bf16"}), Arithmetic.avx2),
        (Processor(), Arithmetic.avx2),  # an x86 that says nothing of itself, as on macOS
    ],
)
def test_the_preferred_one_follows_from_the_processor(
    monkeypatch: pytest.MonkeyPatch, cpu: Processor, wanted: Arithmetic
) -> None:
    on(monkeypatch, cpu)
    assert preferred() is wanted


def test_other_processors_have_one_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, Processor(), "aarch64")
    assert preferred() is Arithmetic.plain
    assert Arithmetic.plain.obstacle() is None
    assert Arithmetic.avx2.obstacle() == "avx2 is for x86 processors, this is aarch64"


def test_what_a_processor_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, Processor("GenuineIntel", 6, AVX2))
    assert Arithmetic.avx2.obstacle() is None
    assert Arithmetic.avx512.obstacle() == (
        "the processor has no avx512bw and no avx512cd and no avx512dq and no avx512f and no avx512vl"
    )
    on(monkeypatch, Processor("GenuineIntel", 6, frozenset({"fpu", "fma"})))
    assert Arithmetic.avx2.obstacle() == "the processor has no avx2"
    assert Arithmetic.plain.obstacle() == "plain is for other processors, this is x86_64"


def test_each_of_x86_can_be_asked_for() -> None:
    assert {a.value for a in Arithmetic} - {choice.value for choice in KernelChoice} == {"plain"}
