"""Text that Hugging Face's `datasets` streams: FineWeb-Edu and any dataset of the Hub. Nothing is stored on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_sweeps.data.columns import require_column, strings
from moe_sweeps.data.config import TextConfig
from moe_sweeps.data.corpus import Document
from moe_sweeps.data.sources import Unit
from moe_sweeps.errors import DataError
from moe_sweeps.paths import resolve

SAMPLE = "sample/10BT"
CONNECT_SECONDS = 5.0
ROWS_AT_A_TIME = 256
DOWNLOAD = 'hf download {repo} --repo-type dataset --include "{files}" --local-dir FOLDER'


@dataclass(frozen=True, slots=True)
class Streamed:
    """A dataset by its shards. `open(i)` streams the rows of shard i with its columns, as `datasets` gives them."""

    units: Sequence[Unit]
    open: Callable[[int], Any]
    column: str = "text"
    domain_column: str | None = None
    domain: str = "text"
    account: dict[str, Any] | None = None  # nothing is passed over

    def rows(self, unit: int, skip: int) -> Iterator[Document]:
        """The rows of shard `unit` after the first `skip`, as `Source.rows` says."""
        name, row = self.units[unit].name, skip
        try:
            dataset = self._with_columns(self.open(unit), name)
            for table in dataset.with_format("arrow").skip(skip).iter(batch_size=ROWS_AT_A_TIME):
                texts, domains = strings(table[self.column], name, row, self.column), None
                if self.domain_column:
                    domains = strings(table[self.domain_column], name, row, self.domain_column, is_domain=True)
                for i, text in enumerate(texts):
                    row += 1
                    yield Document(domains[i] if domains else self.domain, f"{name}:row {row}", text)
        except (DataError, GeneratorExit):
            raise
        except Exception as error:  # whatever the network, the file format or a library in between raises
            problem = f"reading {name} failed after row {row:,} ({type(error).__name__}: {error})"
            raise DataError(f"{problem}. What is encoded so far is kept: the same command resumes there.") from error

    def _with_columns(self, dataset: Any, name: str) -> Any:
        features = None if dataset.features is None else list(dataset.features)
        if features is not None:
            require_column(self.column, name, features)
        if features is not None and self.domain_column:
            require_column(self.domain_column, name, features, is_domain=True)
        return dataset.select_columns(list(dict.fromkeys(filter(None, (self.column, self.domain_column)))))


def fineweb_edu(source: str) -> Streamed:
    """The parquet files of sample-10BT: in a folder, or on the Hub at its current revision."""
    folder = resolve(source)
    if folder.is_dir():
        return _parquet([(str(p), _file_stamp(p), p.stat().st_size) for p in _sample_files(folder)])
    info = _hub_info(source, f"{SAMPLE}/*", local="data.source=FOLDER")
    files = [(f.rfilename, f.size) for f in info.siblings if f.rfilename.startswith(f"{SAMPLE}/")]
    if not files:
        raise DataError(f"data.source={source} is refused: the Hub has no {SAMPLE}/*.parquet in it.")
    base = f"hf://datasets/{source}@{info.sha}"
    return _parquet([(f"{base}/{name}", info.sha, size) for name, size in sorted(files)])


def hub_dataset(config: TextConfig) -> Streamed:
    """Any dataset of the Hub, at its current revision."""
    from datasets import load_dataset

    assert config.hub
    info = _hub_info(config.hub, "*", local="data.files=FOLDER")
    try:
        whole = load_dataset(config.hub, config.hub_config, split=config.hub_split, streaming=True, revision=info.sha)
    except Exception as error:
        fields = f"data.hub={config.hub} data.hub_config={config.hub_config} data.hub_split={config.hub_split}"
        raise DataError(f"{fields} is refused by datasets: {type(error).__name__}: {error}") from error
    count = whole.num_shards
    units = [Unit(f"{config.hub}[{config.hub_split}, {i + 1} of {count}]", str(info.sha)) for i in range(count)]
    return Streamed(units, lambda i: whole.shard(count, i), config.column, config.domain_column)


def _parquet(files: list[tuple[str, str, int | None]]) -> Streamed:
    from datasets import load_dataset

    def open_file(unit: int) -> Any:
        data_files = {"train": [files[unit][0]]}
        return load_dataset("parquet", data_files=data_files, split="train", streaming=True, columns=["text"])

    return Streamed([Unit(*file) for file in files], open_file, domain="fineweb-edu")


def _sample_files(folder: Path) -> list[Path]:
    """The parquet files of a clone of the repository, or of a folder of its files; in the Hub's order."""
    found = sorted((folder / SAMPLE).glob("*.parquet")) or sorted(folder.glob("*.parquet"))
    if not found:
        raise DataError(f"data.source={folder} is refused: it holds neither {SAMPLE}/*.parquet nor *.parquet.")
    return found


def _file_stamp(path: Path) -> str:
    return f"{path.stat().st_size}-{path.stat().st_mtime_ns}"


def _hub_info(repo: str, files: str, *, local: str) -> Any:
    """Revision and files of a dataset. Raises `DataError` within seconds when the Hub does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    started = time.monotonic()
    try:
        return HfApi().dataset_info(repo, timeout=CONNECT_SECONDS, files_metadata=True)
    except GatedRepoError as error:
        raise DataError(f"the dataset {repo} is gated. Accept its terms on the Hub, then: hf auth login") from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{repo} is neither a folder here nor a public dataset of the Hub. Check its name.") from error
    except Exception as error:
        cause = f"{type(error).__name__} after {time.monotonic() - started:.1f} s: {error}".rstrip(".")
        fetch = DOWNLOAD.format(repo=repo, files=files)
        raise DataError(
            f"the Hugging Face Hub cannot be reached, and {repo} is read from there ({cause}). Two ways out: "
            f"(1) where there is a network, run {fetch}, copy FOLDER here and add {local}; "
            "(2) prepare where there is a network, and copy the prepared folder below paths.data."
        ) from error
