"""`make gpu-hour`: what it asks for, that it resumes, and that nothing of a rehearsal or a failure becomes a result."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import gpu
import gpu_hour
import gpu_parts
import pytest
import torch
from gpu_hour import DONE, FAILED, NO_DEVICE, TIME_IS_OVER, Record, Stage, run_part, stages
from render import page, section

from moe_sweeps.config.registry import REGISTRY
from moe_sweeps.optim import shampoo, soap
from moe_sweeps.paths import REPOSITORY

CPU = torch.device("cpu")


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path, "NVIDIA H200")


@pytest.fixture
def scripts(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stage's script, which does what its first word says and notes that it was called."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "stage.py").write_text(
        "import json, sys, time\nfrom pathlib import Path\nword, out = sys.argv[1], sys.argv[-1].partition('=')[2]\n"
        "with open(Path(__file__).parent / 'calls', 'a') as file: file.write(word + '\\n')\n"
        "if word == 'sleep': time.sleep(60)\n"
        "if word == 'raise': raise ValueError('no such kernel')\n"
        "failing = 'test_a' if word == 'tests' else None\n"
        "Path(out).write_text(json.dumps([{'what': word, 'value': 1.5, 'failing': failing}]))\n"
        "if word == 'late': sys.exit(3)\n"
    )
    monkeypatch.setattr(gpu_hour, "HERE", folder)
    return folder


def stage(word: str, most: float = 60.0, case: str = "talk") -> Stage:
    return Stage(word, case, ("stage.py", word), most)


def calls(scripts: Path) -> list[str]:
    return (scripts / "calls").read_text().split()


def later(seconds: float = 120.0) -> float:
    return time.monotonic() + seconds


def test_what_is_done_is_kept_with_the_device_and_not_done_again(record: Record, scripts: Path) -> None:
    todo = [stage("one"), stage("two")]
    assert run_part(todo, record, "cpu", later(), "PART=1") == DONE
    assert run_part(todo, record, "cpu", later(), "PART=1") == DONE
    assert calls(scripts) == ["one", "two"]
    (file,) = record.folder.glob("*.json")
    found = json.loads(file.read_text())
    assert file.name == "gpu_talk_nvidia-h200.json"
    assert (found["case"], found["device"]) == ("gpu_talk", "NVIDIA H200")
    assert found["machine"]["device"] == "NVIDIA H200"
    assert [(row["stage"], row["value"]) for row in found["rows"]] == [("one", 1.5), ("two", 1.5)]
    assert "## GPU: A training step of the talk's model, NVIDIA H200" in section(found)


def test_a_stage_that_fails_stops_no_other_leaves_no_row_and_is_tried_last(record: Record, scripts: Path) -> None:
    todo = [stage("raise"), stage("late"), stage("one")]
    assert run_part(todo, record, "cpu", later(), "PART=1") == FAILED
    assert [row["stage"] for row in record.rows("talk")] == ["one"]
    how = record.ends()
    assert (how["raise"]["exit_code"], how["late"]["exit_code"], how["one"]["exit_code"]) == (1, 3, 0)
    assert how["raise"]["last"][-1] == "ValueError: no such kernel"
    assert run_part([*todo, stage("two")], record, "cpu", later(), "PART=1") == FAILED
    assert calls(scripts) == ["raise", "late", "one", "two", "raise", "late"]


def test_tests_that_fail_are_a_finding_and_are_tried_again(record: Record, scripts: Path) -> None:
    todo = [stage("tests", case="tests"), stage("one")]
    for _ in range(2):
        assert run_part(todo, record, "cpu", later(), "PART=1") == FAILED
    assert calls(scripts) == ["tests", "one", "tests"]
    assert [row["failing"] for row in record.rows("tests")] == ["test_a"]


def test_a_stage_that_hangs_is_ended_with_all_that_it_started(record: Record, scripts: Path) -> None:
    started = time.monotonic()
    assert run_part([stage("sleep", most=2.0), stage("one")], record, "cpu", later(), "PART=1") == FAILED
    assert time.monotonic() - started < 40
    assert record.ends()["sleep"]["exit_code"] == 124
    assert record.has(stage("one"))


def test_a_call_keeps_to_its_time_and_the_next_goes_on(record: Record, scripts: Path) -> None:
    todo = [stage("one"), stage("two")]
    assert run_part(todo, record, "cpu", later(5), "PART=1") == TIME_IS_OVER
    assert not (scripts / "calls").exists()
    assert run_part(todo, record, "cpu", later(), "PART=1") == DONE


def test_without_a_device_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_hour.py", "2"])
    assert gpu_hour.main() == NO_DEVICE
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "needs a CUDA device" in said


def test_a_rehearsal_is_no_result() -> None:
    assert gpu_hour.REHEARSAL.relative_to(REPOSITORY).parts[0] == "build"
    assert "/build/" in (REPOSITORY / ".gitignore").read_text().split()


def test_the_parts_ask_for_everything() -> None:
    one, two, three = ([each.name for each in stages(part, tiny=False)] for part in (1, 2, 3))
    for kind in REGISTRY["balancer"]:
        assert any(f"and -{kind}-" in name for name in one), kind
    assert {"environment", "smoke", "doctor"} <= set(one)
    assert {f"talk {way}" for way in gpu.WAYS} | {"talk_long eager", "talk_long compiled"} <= set(two)
    assert {"talk eager profile", "talk compiled profile"} <= set(two)
    assert {f"optimizer {kind}" for kind in REGISTRY["optimizer"]} <= set(three)
    assert {"sweep 1", "sweep 2", "sweep 4", "sweep 8", "talk_e128 eager", "fp8"} <= set(three)


@pytest.mark.parametrize("part", [1, 2, 3])
@pytest.mark.parametrize("tiny", [False, True])
def test_every_stage_names_a_title_and_a_command_that_exists(part: int, tiny: bool) -> None:
    for each in stages(part, tiny):
        assert each.case in gpu_hour.TITLES
        script, *words = each.command
        known = gpu.WAYS if script == "gpu.py" else gpu_parts.PARTS
        assert words[0] in known
        assert each.most <= 600
    names = [each.name for each in stages(part, tiny)]
    assert len(set(names)) == len(names)


def test_the_selections_of_tests_cover_the_matrix_once() -> None:
    """A test of balancer `aux` is none of `aux_lossfree`."""
    found = [each.command[2] for each in stages(1, tiny=False) if each.command[1] == "tests"]
    matrix = [selection.partition(",")[2] for selection in found if selection.startswith("test_matrix.py")]
    names = [f"{way}-{balancer}-{optimizer}]" for way in ("eager", "compiled")
             for balancer in REGISTRY["balancer"] for optimizer in REGISTRY["optimizer"]]  # fmt: skip
    for name in names:
        assert sum(all(word.strip() in name for word in one.split(" and ")) for one in matrix) == 1, name


def test_the_page_has_the_gpus_cases_in_place_of_the_sentence_that_there_are_none() -> None:
    case = {"case": "gpu_talk", "title": "GPU: a step, X", "date": "d", "machine": {"device": "X"}, "threads": 1,
            "versions": {"torch": "2"}, "rows": [{"stage": "talk eager", "mfu": 0.25}]}  # fmt: skip
    assert "## GPU\n\nNot yet measured." in page([])
    assert "Not yet measured." not in page([case])
    assert "| talk eager | 0.25 |" in page([case])


def test_parts_that_need_no_device() -> None:
    rows = {row["what"]: row["value"] for row in gpu_parts.environment(CPU, "")}
    assert rows["device"] == "cpu rehearsal"
    assert rows["peak from"] == "measured: no data sheet is known"
    assert gpu_parts.fp8(CPU, "") == [{"what": "fp8", "note": "cpu rehearsal has no units for it"}]


@pytest.mark.parametrize(
    ("kind", "owner", "name"), [("shampoo", shampoo, "inverse_roots"), ("soap", soap.SoapStack, "_improve_bases")]
)
def test_the_expensive_steps_are_told_from_the_others(
    kind: str, owner: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = getattr(owner, name)

    def slow(*args: object, **more: object) -> object:
        time.sleep(0.05)
        return work(*args, **more)

    monkeypatch.setattr(owner, name, slow)
    (found,) = gpu_parts.optimizer(CPU, kind)
    assert found["due_ms"] > found["usual_ms"] + 45


@pytest.mark.parametrize("kind", ["adamw", "shampoo"])
def test_an_optimizers_share_counts_its_expensive_steps_as_often_as_they_come(kind: str) -> None:
    (found,) = gpu_parts.optimizer(CPU, kind)
    assert 0 < found["share_of_step"] < 1
    assert found["due_every"] == (100 if kind == "shampoo" else None)
    costly = found["due_ms"] or found["usual_ms"]
    period = found["due_every"] or 1
    mean = ((period - 1) * found["usual_ms"] + costly) / period
    assert found["share_of_step"] == pytest.approx(mean / (mean + found["model_ms"]))
