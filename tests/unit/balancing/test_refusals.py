"""What a balancer cannot do is refused when a run is planned, with field, value, rule and fix."""

from __future__ import annotations

import re

import pytest
from helpers import compose_run

from moe_sweeps.errors import ConfigError

UNEVEN = ("experts.num_experts=6", "trainer.batch_size=4", "trainer.micro_batch_size=2", "trainer.seq_len=8")
REFUSED = [
    ("balancer=lossfree balancer.rate=0", r"balancer\.rate=0\.0 is refused: it must be > 0\. Its default is 0\.001"),
    ("balancer=lossfree balancer.rate=-0.5", r"balancer\.rate=-0\.5 is refused: it must be > 0"),
    ("balancer=aux_lossfree balancer.rate=0", r"balancer\.rate=0\.0 is refused: it must be > 0"),
    (
        "balancer=lossfree balancer.decay_fraction=1.5",
        r"balancer\.decay_fraction=1\.5 is refused: it must be >= 0 and <= 1",
    ),
    ("balancer=quantile balancer.iterations=0", r"balancer\.iterations=0 is refused: it must be >= 1"),
    ("aux.coef=-1", r"aux\.coef=-1\.0 is refused: it must be >= 0"),
    ("router.temperature=0", r"router\.temperature=0\.0 is refused: it must be > 0\. Its default is 1\.0"),
    *(
        (
            f"balancer=expert_choice router={router} engine.compile=true",
            rf"engine\.compile=True is refused: torch\.compile .* wrong gradients of router={router} where .*"
            r"Use engine\.compile=false, or router=softmax_topk\.",
        )
        for router in ("sigmoid", "topk_softmax")
    ),
    ("experts.top_k=0", r"experts\.top_k=0 is refused: it must be >= 1"),
    (
        "balancer=aux_lossfree balancer.update_every=micro_step aux.scope=global",
        r"balancer\.update_every=micro_step is refused: aux\.scope=global counts the step's picks in advance",
    ),
    (
        " ".join(["balancer=quantile", *UNEVEN]),
        r"trainer\.batch_size=4 is refused: balancer=quantile gives every expert the same number of tokens, and "
        r"4 sequences of 8 tokens with 2 picks each do not divide by 6 experts\. Use a multiple of 3\.",
    ),
    (
        " ".join(["balancer=expert_choice", *UNEVEN, "trainer.batch_size=6"]),
        r"trainer\.micro_batch_size=2 is refused: balancer=expert_choice .* do not divide by 6 experts",
    ),
]


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=[line for line, _ in REFUSED])
def test_bad_input_is_refused_with_the_fix(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run("scale=smoke", *line.split())
    assert re.match(message, str(caught.value)), str(caught.value)


def test_what_divides_is_taken() -> None:
    run = compose_run("scale=smoke", "balancer=quantile", *UNEVEN[:-1], "trainer.seq_len=9")
    assert run.trainer.batch_size * run.trainer.seq_len * 2 % 6 == 0
