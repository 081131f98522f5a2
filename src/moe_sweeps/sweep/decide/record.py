"""What a decision has done so far, runs/sweeps/decide-<key>/decide.json: the looks that are over, and what was trained.

Which runs exist and what they found is read from the run folders. The record holds what those do not say: which looks
were taken, with their answers, and which runs were paid from the budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_sweeps.errors import RunFolderError
from moe_sweeps.host.files import make_folder, write_json
from moe_sweeps.host.reading import read_json
from moe_sweeps.records.manifest import RUN_ID

VERSION = 1
UNHEARD_OF = 1_000_000  # looks


@dataclass(frozen=True, slots=True)
class Answer:
    """What a look answered to a question."""

    text: str
    answer: str
    effect: str
    p: float | None


@dataclass(frozen=True, slots=True)
class Look:
    """A look that is over: its number among all looks at these arms, its sweep, the runs that had ended, its answers
    by question, and the effects that it showed of questions that it left open."""

    look: int
    sweep_id: str
    answers: dict[str, Answer]
    runs: tuple[str, ...] = ()
    left_open: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Record:
    """`trained`: ids of the runs that the decision has paid for. `closed`: its looks, in order."""

    path: Path
    name: str
    trained: list[str] = field(default_factory=list)
    closed: list[Look] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, name: str) -> Record:
        """The record, or a new one.

        Raises:
            RunFolderError: it cannot be read.
        """
        try:
            return _record(path, name, read_json(path))
        except FileNotFoundError:
            return cls(path, name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}" if isinstance(error, KeyError | TypeError) else str(error)
            fix = "Move it away: every look that was begun then counts as taken, and the budget starts anew."
            raise RunFolderError(f"{path}: the record of a decision cannot be read ({why}). {fix}") from error

    def save(self) -> None:
        """Write it."""
        make_folder(self.path.parent)
        looks = [
            {"look": look.look, "sweep_id": look.sweep_id, "runs": list(look.runs),
             "answers": {k: _answer(a) for k, a in look.answers.items()}, "left_open": look.left_open}
            for look in self.closed
        ]  # fmt: skip
        content = {"version": VERSION, "name": self.name, "trained": self.trained, "closed": looks}
        write_json(self.path, content, durable=True)

    @property
    def answers(self) -> dict[str, Answer]:
        """Every question that a look answered, as it was answered first."""
        found: dict[str, Answer] = {}
        for look in self.closed:
            found = {**look.answers, **found}
        return found


def _answer(found: Answer) -> dict[str, Any]:
    return {"text": found.text, "answer": found.answer, "effect": found.effect, "p": found.p}


def _record(path: Path, name: str, content: Mapping[str, Any]) -> Record:
    if content["version"] != VERSION:
        raise ValueError(f"version {content['version']} is not {VERSION}")
    return Record(path, name, _run_ids(content["trained"]), [_look(entry) for entry in _list(content["closed"])])


def _list(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise ValueError(f"{found!r:.100} is no list")
    return found


def _run_ids(found: Any) -> list[str]:
    wrong = [one for one in _list(found) if not (isinstance(one, str) and RUN_ID.fullmatch(one))]
    if wrong:
        raise ValueError(f"{wrong[0]!r:.100} is no id of a run")
    return list(dict.fromkeys(found))


def _look(entry: Mapping[str, Any]) -> Look:
    number = entry["look"]
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number < UNHEARD_OF:
        raise ValueError(f"{number!r:.100} is no number of a look")
    answers = {
        str(key): Answer(str(a["text"]), str(a["answer"]), str(a["effect"]), None if a["p"] is None else float(a["p"]))
        for key, a in entry["answers"].items()
    }
    left_open = {str(key): str(effect) for key, effect in entry.get("left_open", {}).items()}  # not in older records
    return Look(number, str(entry["sweep_id"]), answers, tuple(_run_ids(entry["runs"])), left_open)
