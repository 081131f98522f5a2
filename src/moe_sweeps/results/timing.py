"""Whether the times of runs can be held against each other: they say as much of the machine as of the settings."""

from __future__ import annotations

from collections.abc import Collection

from moe_sweeps.results.runs import ARITHMETIC, Row


def unlike(rows: Collection[Row]) -> str:
    """Why times of these runs are no evidence about their settings; empty where nothing speaks against it.

    Two machines may have one name. Where they multiply in another way, that tells them apart.
    """
    hosts = list(dict.fromkeys(str(row["host"]) for row in rows if row.get("host") is not None))
    if len(hosts) > 1:
        return f"timed on {len(hosts)} hosts ({', '.join(hosts)})"
    threads = sorted({str(row.get("launch.threads")) for row in rows})
    if len(threads) > 1:
        return f"trained with different numbers of threads ({', '.join(threads)})"
    ways = {tuple(str(row.get(column)) for column in ARITHMETIC) for row in rows}
    return f"trained by {len(ways)} kinds of arithmetic, so on different machines" if len(ways) > 1 else ""
