"""The small files of a run folder, read with limits and written whole. Every refusal names the file and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from moe_sweeps.errors import RunFolderError
from moe_sweeps.host.files import owner, write_atomic
from moe_sweeps.host.reading import CONFIG_BYTES, DOCUMENT_BYTES, LOG_BYTES, read_json, read_yaml, why_not_read
from moe_sweeps.records.recovery import move_aside

YAML_DUMPER: type[yaml.SafeDumper] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
MOVE_AWAY = "Move the folder away; the run is then trained again."
READ_GROUPS = ("trainer", "experts", "launch", "engine", "tracking")  # that are read without the config's schemas
MOST_BYTES = {
    "config.yaml": CONFIG_BYTES,
    "overrides.yaml": CONFIG_BYTES,
    "identity.json": DOCUMENT_BYTES,
    "provenance.json": DOCUMENT_BYTES,
    "status.json": DOCUMENT_BYTES,
    "summary.json": DOCUMENT_BYTES,
    "metrics.jsonl": LOG_BYTES,
    "routing.jsonl": LOG_BYTES,
}


class DamagedFile(RunFolderError):
    """A file of a run folder that is missing, empty, cut, or not what it should be."""

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{path}: {reason}. {MOVE_AWAY}")


def read_object(path: Path) -> dict[str, Any]:
    """The object that a file of JSON holds.

    Raises:
        DamagedFile: it is missing, cut, or something else.
        RunFolderError: this user may not read it.
    """
    name = path.name
    try:
        content = read_json(path)
    except PermissionError as error:
        raise closed(path, error) from error
    except FileNotFoundError as error:
        raise DamagedFile(path, f"{name} is missing") from error
    except (OSError, ValueError) as error:
        size = "is empty" if path.is_file() and not path.stat().st_size else f"cannot be read ({error})"
        raise DamagedFile(path, f"{name} {size}") from error
    if not isinstance(content, dict):
        raise DamagedFile(path, f"{name} holds {type(content).__name__} instead of an object")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """The frozen config in the file `path`.

    Raises:
        DamagedFile: it is missing, or holds no config.
        RunFolderError: this user may not read it.
    """
    try:
        content = read_yaml(path)
    except PermissionError as error:
        raise closed(path, error) from error
    except FileNotFoundError as error:
        raise DamagedFile(path, "config.yaml is missing") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DamagedFile(path, f"config.yaml cannot be read ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(content, dict):
        raise DamagedFile(path, "config.yaml is empty" if content is None else "config.yaml holds no mapping")
    wrong = next((group for group in READ_GROUPS if not isinstance(content.get(group, {}), dict)), None)
    if wrong is not None:
        raise DamagedFile(path, f"{wrong} in config.yaml is no group of settings")
    return content


def write_config(path: Path, config: dict[str, Any], durable: bool = True) -> None:
    """Write config.yaml whole; `durable` waits until it is on disk."""
    write_atomic(path, yaml.dump(config, Dumper=YAML_DUMPER, sort_keys=False), durable=durable, whole=True)


def free_place(path: Path) -> Path:
    """`path`, where a file goes: a folder in its place is moved aside."""
    if path.is_dir():
        move_aside(path)
    return path


def misplaced(folder: Path) -> str | None:
    """What is in the place of a file of a run, or that the folder is a link; None if all is well."""
    if folder.is_symlink():
        return "it is a link, and links are not followed"
    found = (why_not_read(str(folder), name, most) for name, most in MOST_BYTES.items())
    return next(filter(None, found), None)


def closed(path: Path, error: OSError) -> RunFolderError:
    """The refusal of a file that the operating system does not let this user read."""
    fix = f"Ask {owner(path)}, who owns it, to let you read it (docs/running.md, A shared folder)."
    if not isinstance(error, PermissionError):
        fix = MOVE_AWAY.replace("the folder", "it")
    return RunFolderError(f"{path} cannot be read: {error.strerror}. {fix}")
