"""What benchmarks/proposals.py found, in words."""

from __future__ import annotations

from simulated.rates import Row, limit, percent


def lines(found: list[Row]) -> list[str]:
    """Real runs: what judge and the greedy rule accept."""
    row = found[0]
    proposals, seeds = row["proposals"], row["seeds"]
    told = [
        f"{proposals} proposals that change nothing, {seeds * (proposals + 1)} real runs (`benchmarks/proposals.py`):",
        "",
        "| rule | accepted, in place of what they beat, % | upper 95% limit | each against the one before it, % |"
        " seeming gain (nats) |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, words in (("judge", "moe-sweeps judge"), ("greedy", "the lower mean")):
        kept, fresh = ({"hits": row[key], "of": proposals} for key in (name, f"{name}_fresh"))
        told.append(f"| {words} | {percent(kept)} | {limit(kept)} | {percent(fresh)} | {row[f'{name}_gain']:.4f} |")
    return told
