"""A corpus of run folders, manifests and records that somebody damaged, or made to do harm. One run each."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moe_sweeps.paths import REPOSITORY

STORED = REPOSITORY / "results" / "proxy" / "runs"
Damage = Callable[[Path], object]
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP = 100_000
PROOF = Path(tempfile.gettempdir()) / f"moe-sweeps-hostile-{os.getpid()}"  # is there where a file's code was run


def _text(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def _json(name: str, **changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return damage


def _instead(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return damage


def _sparse(name: str, size: int) -> Damage:
    def damage(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(size)

    return damage


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has at most a hundred letters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _below(folder: str, name: str, make: Callable[[Path], object]) -> Damage:
    def damage(run: Path) -> None:
        (run / folder).mkdir()
        make(run / folder / name)

    return damage


def _linked_folder(folder: Path) -> None:
    elsewhere = folder.parent / f".elsewhere-{folder.name}"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def _linked_file(name: str) -> Damage:
    """To a sound file: that links are refused is not said by what they lead to."""

    def damage(folder: Path) -> None:
        elsewhere = folder.parent / f".{folder.name}-{name}"
        (folder / name).rename(elsewhere)
        (folder / name).symlink_to(elsewhere)

    return damage


def _edited(old: str, new: str) -> Damage:
    def damage(folder: Path) -> None:
        text = (folder / "config.yaml").read_text()
        assert old in text
        (folder / "config.yaml").write_text(text.replace(old, new, 1))

    return damage


def _more_config(line: str) -> Damage:
    def damage(folder: Path) -> None:
        text = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(text + line)

    return damage


# Name -> what is done to a run that was done. Each of these is one line under problems, or a mark.
RUNS: dict[str, Damage] = {
    **{
        f"{name} is {what}": damage
        for name in ("config.yaml", "identity.json", "provenance.json", "status.json", "summary.json", "metrics.jsonl")
        for what, damage in {
            "a FIFO": _instead(name, os.mkfifo),
            "a folder": _instead(name, Path.mkdir),
            "a link": _linked_file(name),
            "a device": _instead(name, lambda path: path.symlink_to("/dev/zero")),
            "a socket": _instead(name, _socket),
            "a hundred gigabytes": _sparse(name, 100 << 30),
            "not UTF-8": _text(name, b"\xff\xfe{}: [\x80]\n"),
            "deep": _text(name, "[" * DEEP + "]" * DEEP + "\n"),
            "less deep": _text(name, '{"a":' * 300 + "1" + "}" * 300 + "\n"),
            "zeros": _text(name, bytes(4096)),
        }.items()
    },
    "the folder is a link": _linked_folder,
    "aliases in YAML": _text("config.yaml", BOMB),
    "keys of YAML that are no text": _more_config("? [a, b]\n: 1\n"),
    "a date in YAML": _more_config("when: 2026-01-01\n"),
    "an impossible date in YAML": _more_config("when: 2026-13-99\n"),
    "an object in YAML": _more_config(f"a: !!python/object/apply:os.system ['touch {PROOF}']\n"),
    "a number of 400 digits in YAML": _more_config(f"big: {'9' * 400}\n"),
    "a number of 400 digits": _text("status.json", '{"state": "done", "step": ' + "9" * 400 + "}"),
    "a number of 5,000 digits": _text("status.json", '{"state": "done", "step": ' + "9" * 5000 + "}"),
    "a loss of 400 digits": _text("summary.json", '{"val_loss": ' + "9" * 400 + "}"),
    "a loss beyond floats": _text("summary.json", '{"val_loss": 1e999}'),
    "NaN": _json("summary.json", val_loss=float("nan")),
    "Infinity": _json("status.json", heartbeat=float("inf")),
    "a key twice": _text("status.json", '{"state": "done", "state": "done"}'),
    "half a letter": _text("status.json", '{"state": "failed", "host": "\\ud800"}'),
    "steps beyond all": _text("metrics.jsonl", '{"step": ' + "9" * 400 + ', "split": "train", "loss": 1}\n'),
    "a line without end": _text("metrics.jsonl", b'{"step": 1, "split": "val", "x": "' + b"x" * (1 << 20) + b'"}'),
    "attempts are no list": _json("provenance.json", attempts={"a": 1}),
    "attempts are texts": _json("provenance.json", attempts=["x"]),
    "packages are a list": _json("provenance.json", packages=[1], git=7),
    "texts for counts": _json("status.json", step="many", total_steps=None),
    "a failure that is none": _json("status.json", failure=["x"]),
    "a summary of other types": _json("summary.json", collapsed="yes", last_good=3, tokens="x", wall_seconds=[1]),
    "an identity of other types": _json("identity.json", canonical=[1, 2], arm=7),
    "an identity of its own": _json("identity.json", canonical={"seed": 0}),
    "a config of other types": _text("config.yaml", "seed: zero\ntrainer: 3\nlaunch: [1]\nexperts: x\ntracking: 5\n"),
    "texts for numbers in the config": _edited("batch_size: ", "batch_size: x"),
    "texts for numbers of experts": _edited("top_k: ", "top_k: x"),
    "no experts": _edited("num_experts: ", "num_experts: 0 #"),
    "other types in metrics": _text("metrics.jsonl", '{"step": 1, "split": "train", "loss": [1, "x"], "lr": "y"}\n'),
    "other types in routing": _text(
        "routing.jsonl",
        '{"step": 1, "split": "train", "load_LE": "x", "lr": 3, "bias_LE": [[1], "y"], "maxvio_batch_L": {"a": 1}}\n'
        '{"step": 1, "split": "val", "load_LE": [[1, 2], [3]], "domain_load": [1], "maxvio_L": 7}\n',
    ),
    "huge numbers in routing": _text(
        "routing.jsonl",
        '{"step": 9223372036854775808, "split": "train", "load_LE": [[1e308, 1e308]], "lr": {"x": 1}}\n',
    ),
    "checkpoints is a link": lambda folder: (folder / "checkpoints").symlink_to("/proc/self"),
    "checkpoints is a file": _text("checkpoints", "x"),
    "a checkpoint of another name": _below("checkpoints", "step-x.json", Path.touch),
    "a record of a tracker that is a FIFO": _below("tracking", "wandb.json", os.mkfifo),
    "a record of a tracker of other types": _below(
        "tracking", "tensorboard.json", lambda p: p.write_text('{"destination": 1, "last_step": "x", "complete": 0}')
    ),
    "a request to cancel that is a FIFO": lambda folder: os.mkfifo(folder / "cancel.json"),
    "a lock that is a FIFO": lambda folder: os.mkfifo(folder / ".lock"),
    "a traceback that is a FIFO": lambda folder: os.mkfifo(folder / "traceback.txt"),
    "another balancer": _edited("balancer:\n  kind: ", "balancer:\n  kind: x"),
    "another seed": _edited("\nseed: ", "\nseed: 7"),
    "text from the environment": _edited("\nname: null", "\nname: ${oc.env:HOME}"),
}


def _manifest(**changes: Any) -> Damage:
    return _json("manifest.json", **changes)


def _planned(**changes: Any) -> Damage:
    """Change what the manifest says of its first run."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / "manifest.json").read_text())
        first = next(iter(content["runs"]))
        content["runs"][first] |= changes
        (folder / "manifest.json").write_text(json.dumps(content))

    return damage


# The same for the folder of a sweep; each of these is one line under problems.
SWEEPS: dict[str, Damage] = {
    "another id": _manifest(sweep_id="../.."),
    "an id of another sweep": _manifest(sweep_id="0" * 12),
    "a run outside": _planned(folder="../outside-0123456789ab"),
    "a run at an absolute path": _planned(folder="/tmp/outside-0123456789ab"),
    "another run's folder": _planned(folder="proxy-aux-0123456789ab"),
    "a run that is no text": _planned(folder=7),
    "a seed that is a list": _planned(seed=[1]),
    "a label that is a list": _planned(label=[1]),
    "no date": _manifest(created="yesterday"),
    "runs are a list": _manifest(runs=[1]),
    "requests are numbers": _manifest(requested=[1]),
    "a file that is a list": _manifest(file=[1]),
    "statements that are numbers": _manifest(expect=[1]),
    "a FIFO": _instead("manifest.json", os.mkfifo),
    "a link": _linked_file("manifest.json"),
    "a folder": _instead("manifest.json", Path.mkdir),
    "a device": _instead("manifest.json", lambda path: path.symlink_to("/dev/zero")),
    "deep": _text("manifest.json", "[" * DEEP),
    "the folder is a link": _linked_folder,
}


def _search(**changes: Any) -> Damage:
    """Change what a search's manifest says of the search."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / "manifest.json").read_text())
        content["search"] |= changes
        (folder / "manifest.json").write_text(json.dumps(content))

    return damage


def _trial(**changes: Any) -> Damage:
    return _search(trials=[{"params": {"aux.coef": 0.25}, "target": None, "same_as": None, "refused": None} | changes])


# The same for the manifest of a search with one trial of aux.coef. Each of these is refused by the next line.
SEARCHES: dict[str, Damage] = {
    "a search that is a list": _manifest(search=[1]),
    "no trials": _manifest(search={}),
    "trials are a text": _search(trials="abc"),
    "trials are an object": _search(trials={"a": 1}),
    "trials are numbers": _search(trials=[1]),
    "params are a list": _trial(params=[1]),
    "another parameter": _trial(params={"paths.runs": str(PROOF)}),
    "a parameter that is a text": _trial(params={"aux.coef": "\x1b[31mx"}),
    "a parameter that is a sweep": _trial(params={"aux.coef": "0.1,0.2"}),
    "a parameter that is a link": _trial(params={"aux.coef": "${oc.env:HOME}"}),
    "a parameter that is a list": _trial(params={"aux.coef": [1]}),
    "a parameter that is nothing": _trial(params={"aux.coef": None}),
    "a target that is a text": _trial(target="x"),
    "a target that is a list": _trial(target=[1]),
    "not a number": _text("manifest.json", '{"search": NaN}'),
    **{what: SWEEPS[what] for what in ("a FIFO", "a link", "a folder", "a device", "deep")},
}


def _without(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def _split(**changes: Any) -> Damage:
    """Change what meta.json of prepared data says of its training split."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / "meta.json").read_text())
        content["splits"]["train"] |= changes
        (folder / "meta.json").write_text(json.dumps(content))

    return damage


def _of(file: str, size: Any = 1968) -> Damage:
    return _split(files=[{"file": file, "tokens": size}])


# The same for a folder of prepared text: refused with what to delete, or prepared again.
PREPARED: dict[str, Damage] = {
    **{
        f"{name} is {what}": damage
        for name in ("meta.json", "train-00000.bin")
        for what, damage in {
            "a FIFO": _instead(name, os.mkfifo),
            "a folder": _instead(name, Path.mkdir),
            "a device": _instead(name, lambda path: path.symlink_to("/dev/zero")),
            "a socket": _instead(name, _socket),
            "a hundred gigabytes": _sparse(name, 100 << 30),
            "empty": _text(name, ""),
            "missing": _without(name),
        }.items()
    },
    "meta is deep": _text("meta.json", "[" * DEEP),
    "meta is not UTF-8": _text("meta.json", b"\xff\xfe"),
    "meta is a list": _text("meta.json", "[]"),
    "tokens that are objects": _json("meta.json", dtype="object"),
    "tokens that are fractions": _json("meta.json", dtype="<f2"),
    "a vocabulary that is a text": _json("meta.json", vocab_size="x"),
    "domains are a number": _json("meta.json", domains=7),
    "a fingerprint that is a list": _json("meta.json", fingerprint=[1]),
    "sources are a number": _json("meta.json", source=7),
    "a tokenizer outside": _json("meta.json", tokenizer_file="/etc/passwd"),
    "splits are a list": _json("meta.json", splits=[1]),
    "tokens outside": _of("../../passwd"),
    "tokens at an absolute path": _of("/etc/passwd"),
    "tokens in a file that is a number": _of(7),  # type: ignore[arg-type]
    "tokens in no file": _split(files=[]),
    "fewer tokens than none": _of("train-00000.bin", -1),
    "tokens beyond all": _of("train-00000.bin", 2**63),
    "spans are a number": _split(domains=7),
    "a span that ends at a text": _split(domains=[{"name": "text", "start": 0, "end": "x"}]),
    "a subset of a text": _json("meta.json", subset={"documents": "x"}),
    "a subset that is a list": _json("meta.json", subset=[1]),
    "an account without counts": _json("meta.json", files={"roots": "x"}),
    "an account that is a number": _json("meta.json", files=7),
    "duplicates are a list": _json("meta.json", duplicates=[1]),
    "duplicates are a text": _json("meta.json", duplicates={"val_in_train": "x", "val": 1}),
}


def _progress(**changes: Any) -> Damage:
    return lambda folder: (folder / "progress.json").write_text(json.dumps({"stamps": []} | changes))


# The same for what a preparation that was interrupted has left, in an empty folder.
PARTIAL: dict[str, Damage] = {
    "progress is a FIFO": _instead("progress.json", os.mkfifo),
    "progress is a device": _instead("progress.json", lambda path: path.symlink_to("/dev/zero")),
    "progress is a list": _text("progress.json", "[]"),
    "progress that is negative": _progress(tokens=-4),
    "progress that is a text": _progress(unit="x"),
    "encoded text is a FIFO": _instead("encoded.bin", os.mkfifo),
    "encoded text is a folder": _instead("encoded.bin", Path.mkdir),
    "encoded text is a link": _instead("encoded.bin", lambda path: path.symlink_to(path.parent.parent / "precious")),
    "documents are a socket": _instead("documents.bin", _socket),
    "digests are no JSON": _text("digests.json", "x"),
    "digests are a list": _text("digests.json", "[1]"),
    "digests are a FIFO": _instead("digests.json", os.mkfifo),
    "a digest of a file outside": _text("digests.json", '{"/etc/passwd": "x"}'),
}


def hostile_root(root: Path, runs: dict[str, Damage]) -> tuple[list[Path], list[Path]]:
    """Runs of this project, the first two sound; returns those and the damaged ones, in the order of `runs`."""
    stored = sorted(path for path in STORED.iterdir() if (path / "identity.json").exists())
    root.mkdir(parents=True, exist_ok=True)
    made = [Path(shutil.copytree(path, root / path.name)) for path in stored[: 2 + len(runs)]]
    assert len(made) == 2 + len(runs)
    for folder, damage in zip(made[2:], runs.values(), strict=True):
        damage(folder)
    return made[:2], made[2:]
