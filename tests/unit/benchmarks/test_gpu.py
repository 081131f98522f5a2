"""What of benchmarks/gpu.py does not need a GPU: arithmetic, groups of kernels, the refusal, and its steps on CPU."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import gpu
import pytest
import torch
from helpers import CPU, compose_run


def test_mfu_by_hand() -> None:
    """20,480 tokens in 0.1 s at 2.045 GFLOP a token (docs/definitions.md) are 418.8 TFLOP/s of 989.4."""
    found = gpu.row("ours", gpu.talk_run(), 0.1, 3 * 2**30, 989.4e12)
    assert found["tokens_per_s"] == pytest.approx(204_800)
    assert found["mfu"] == pytest.approx(418.8 / 989.4, rel=1e-3)
    assert (found["step_ms"], found["peak_gib"]) == (pytest.approx(100), 3)


def test_both_batches() -> None:
    assert [gpu.talk_run(scale).trainer.tokens_per_step for scale in ("talk", "talk_long")] == [20_480, 163_840]
    assert gpu.vocabulary(gpu.talk_run()) == gpu.VOCAB


@pytest.mark.parametrize(
    ("kernel", "group"),
    [
        ("sm90_xmma_gemm_bf16bf16_bf16f32", "matrix products"),
        ("void cutlass::device_kernel<at::cuda::detail::GroupedGemm>", "matrix products"),
        ("flash_bwd_kernel", "attention"),
        ("multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer"),
        ("radixSortKVInPlace", "sorting and indexing"),
        ("void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<float>>", "element-wise and copies"),
        ("something else", "other"),
    ],
)
def test_groups_of_kernels(kernel: str, group: str) -> None:
    assert gpu.group_of(kernel) == group


def test_shares_of_a_profile() -> None:
    kernels = [("gemm_a", 600.0), ("gemm_b", 200.0), ("mystery", 200.0), ("cudaLaunchKernel", 0.0)]
    rows = gpu.kernel_groups(SimpleNamespace(key=key, self_device_time_total=time) for key, time in kernels)
    assert rows == [
        {"kernels": "matrix products", "ms": 0.8, "share": 0.8},
        {"kernels": "other", "ms": 0.2, "share": 0.2},
    ]


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py", "eager"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        gpu.main()


@pytest.mark.parametrize("way", ["eager", "loop", "mixtral"])
def test_a_way_is_rehearsed_on_the_cpu(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.json"
    monkeypatch.setattr("sys.argv", ["gpu.py", way, "--device=cpu", "--steps=1", f"--out={out}"])
    gpu.main()
    (row,) = json.loads(out.read_text())
    assert row["what"] == f"talk, {way}"
    assert row["tokens_per_s"] > 0
    assert 0 < row["mfu"] < 1
    assert row["peak_from"] in ("torch_mm", "onednn")


@pytest.mark.parametrize("build", [gpu.eager_step, gpu.mixtral_step])
def test_steps_run_in_micro_batches(build: gpu.Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    embedding = torch.nn.Embedding.forward

    def counted(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        calls.append(ids.shape)
        return embedding(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", counted)
    run = compose_run(
        "scale=smoke_v1", "trainer.batch_size=4", "trainer.micro_batch_size=2", "trainer.seq_len=8", "model.width=16"
    )
    build(run, CPU)()
    assert calls == [(2, 8), (2, 8)]
