"""Which files were read as text and which were not, in sentences for plans, logs and `moe-sweeps data prepare`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moe_sweeps.data.config import DataConfig, TextConfig
from moe_sweeps.data.meta import require_meta
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.host.reading import read_json

MOST_ROOTS = 3


def planned_text(config: DataConfig, data_root: Path) -> list[str]:
    """The files that `data.files` names now and, where they are prepared, their duplicates. Empty for other data.

    Raises:
        MoeSweepsError: the files are neither here nor prepared.
    """
    if not isinstance(config, TextConfig) or not config.files:
        return []
    from moe_sweeps.data.finding import find_files

    meta = _meta(config, data_root)
    try:
        meta = {**meta, "files": find_files(config).account}
    except MoeSweepsError:
        if not meta:
            raise
    return list(sentences(meta))


def sentences(meta: Mapping[str, Any]) -> Iterator[str]:
    """The files that were read and passed over, and documents that stand on both sides of the split."""
    files = meta.get("files")
    if files:
        yield _read(files)
    if files and files["passed_over"]:
        yield _passed_over(files["passed_over"], files["examples"])
    if found := meta.get("duplicates", {}).get("val_in_train"):
        yield _duplicates(found, meta["duplicates"]["val"])


def _read(files: Mapping[str, Any]) -> str:
    roots, count = files["roots"], files["read"]
    more = f" and {len(roots) - MOST_ROOTS} more" if len(roots) > MOST_ROOTS else ""
    size = f"{files['bytes'] / 1e6:,.1f} MB"
    return f"text: {count:,} file{'s' * (count != 1)}, {size}, from {', '.join(roots[:MOST_ROOTS])}{more}"


def _passed_over(counts: Mapping[str, int], examples: Mapping[str, str]) -> str:
    count = sum(counts.values())
    reasons = (f"{why}: {n:,} ({'such as ' * (n > 1)}{examples[why]})" for why, n in counts.items())
    return f"passed over: {count:,} file{'s' * (count != 1)}; {', '.join(reasons)}"


def _duplicates(found: int, of: int) -> str:
    stand = "document of validation stands" if of == 1 else "documents of validation stand"
    return f"duplicates: {found:,} of {of:,} {stand} in training, too, word for word, which lowers the validation loss"


def _meta(config: DataConfig, data_root: Path) -> dict[str, Any]:
    from moe_sweeps.data.memmap import META_FILE
    from moe_sweeps.data.prepare import folder_name  # takes half a second to import

    try:
        return require_meta(read_json(data_root / folder_name(config) / META_FILE, links=True))
    except (OSError, ValueError):
        return {}
