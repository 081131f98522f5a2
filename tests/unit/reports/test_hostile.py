"""All outputs fed with one corpus of hostile texts, in every place that a run folder and a manifest have.

A world of hostile texts must give the structure that a world of harmless ones gives: the same blocks of Markdown, tags
and attributes of HTML, lines and cells of CSV, and no command, formula, link or escape sequence of its own.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from unit.hostile import COMMANDS, FLOATS, HOSTILE, latex_problems
from unit.results.folders import make_manifest, make_run, manifest_content, summary
from unit.results.routing import make_recorded_run

from moe_sweeps.cli import manage
from moe_sweeps.host.files import read_json, write_json
from moe_sweeps.host.plain import plain
from moe_sweeps.records.rundir import Failure, RunDir
from moe_sweeps.reports.latex import PREAMBLE
from moe_sweeps.reports.pictures import write_pictures
from moe_sweeps.reports.write import write_tables

HARMLESS = tuple(f"word{place}" for place in range(len(HOSTILE)))
SGR = re.compile(r"\x1b\[[0-9;]*m")
FORMULAS = tuple("=+-@＝＋－＠")
Say = Callable[[], str]


@dataclass
class World:
    """A runs folder whose every text comes from `words`, and the reports on it."""

    root: Path
    words: Sequence[str]
    start: int = 0

    def __post_init__(self) -> None:
        self.labels = [self.next() for _ in self.words]
        self._sweep()
        self._axis()
        self.recorded = self._recorded()
        self.written = write_tables(self.runs, self.reports)
        self.pictures = write_pictures(self.recorded, self.reports)

    @property
    def glue(self) -> str:
        """What joins the words of a name: in hostile worlds a line break, so that every name has one."""
        return " " if self.words is HARMLESS else "\n\\input{x}\n"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    def next(self) -> str:
        """The next word, without half of a surrogate pair: that is refused where a file is read (test_reading.py)."""
        self.start += 1
        return self.words[self.start % len(self.words)].encode(errors="replace").decode()

    def texts(self, suffix: str) -> dict[str, str]:
        return {p.name: p.read_text() for p in sorted(self.reports.rglob(f"*.{suffix}"))}

    def _spoil(self, run: RunDir) -> None:
        """Texts in every file of a run folder."""
        status, provenance = read_json(run.path / "status.json"), read_json(run.path / "provenance.json")
        status |= {"host": self.next(), "tracking": self.next(), "slurm_job_id": self.next()}
        provenance |= {"command": self.next(), "host": self.next(), "git": {"commit": self.next(), "dirty": True}}
        write_json(run.path / "status.json", status)
        write_json(run.path / "provenance.json", provenance)
        (run.path / "overrides.yaml").write_text(json.dumps([self.next(), f"a={self.next()}"]))
        (run.path / "traceback.txt").write_text(f"Traceback\n  {self.next()}\n".encode(errors="replace").decode())
        scale, key, value = (_for_yaml(self.next()) for _ in range(3))
        run.write_config(run.config() | {"scale": scale, "note": {key: value}})

    def _sweep(self) -> None:
        """As many arms as there are words, each a label; three of them with two seeds."""
        arms = tuple(("aux", place / 1000) for place in range(len(self.words)))
        content = manifest_content(1, arms)
        for place, (planned, label) in enumerate(zip(content["runs"].values(), self.labels, strict=True)):
            planned["label"] = label
            lost = Failure(self.next(), self.next(), self.next())
            failed: dict[str, Any] = {"state": "failed", "failure": lost} if place % 3 == 2 else {}
            self._spoil(make_run(self.runs, *arms[place], code=self.next(), data=self.next(), **failed))
        ids = [planned["arm"] for planned in content["runs"].values()]
        content["axes"] = {self.next(): [self.next(), self.next()] for _ in range(3)}
        for request in content["requested"]:
            request["overrides"] = {self.next(): self.next(), "seed": "0"}
            request["unread"] = {self.next(): self.next()}
        content["requested"] += [r | {"overrides": {self.next(): self.next()}} for r in content["requested"][:9]]
        content["replaced"] = [{"key": self.next(), "new": [self.next()], "old": [self.next()]}]
        content["expect"] = [{"claim": self.next(), "metric": "val_loss", "kind": "better", "source": self.next(),
                              "arm": arm, "than": ids[0], "cannot": cannot} for arm, cannot in
                             ((ids[1], None), (ids[1], self.next()))]  # fmt: skip
        content["baseline"] = ids[0]
        file = {"name": self.next(), "question": self.next(), "source": self.next(), "table": "aux_coef"}
        make_manifest(self.runs, content, name=f"{self.next()}{self.glue}{self.next()}", command=self.next(), file=file)

    def _axis(self) -> None:
        """Arms that are told apart by settings, whose names and values stand in columns of their own."""
        content = manifest_content(2, (("lossfree", 0.1), ("lossfree", 0.2), ("lossfree", 0.3)))
        key, values = self.next(), [self.next() for _ in range(3)]
        for place, planned in enumerate(content["runs"].values()):
            settings = {key: f"{values[place // 2]}.{place // 2}"}
            planned |= {"label": self.next(), "settings": settings}
        for coef, seed in ((c, s) for c in (0.1, 0.2, 0.3) for s in range(2)):
            self._spoil(make_run(self.runs, "lossfree", coef, seed, numbers=summary(3 + seed / 10)))
        make_manifest(self.runs, content, sweep_id="0a0a0a0a", name=self.next(), file={"question": self.next()})

    def _recorded(self) -> RunDir:
        """A run with routing records: names of domains and roles, in a folder with a name of its own."""
        run = make_recorded_run(self.root / "made", layers=2, points=8)
        lines = [json.loads(line) for line in (run.path / "routing.jsonl").read_text().splitlines()]
        names = [self.next() + str(i) for i in range(3)]
        role = self.next() + "role"
        for record in lines:
            if "domain_load" in record:
                record["domain_load"] = dict(zip(names, record["domain_load"].values(), strict=True))
            for key in ("lr", "grad_norm", "param_norm"):
                if key in record:
                    record[key][role] = record[key].pop("dense")
        (run.path / "routing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        scale, data, balancer = (_for_yaml(self.next()) for _ in range(3))
        run.write_config(run.config() | {"scale": scale, "data": {"kind": data}, "balancer": balancer})
        name = re.sub(r"[/\0]", "", self.next()).encode(errors="replace").decode()[:60]
        path = self.root / "runs" / f"x{name}-0123456789ab"
        shutil.move(run.path, path)
        return RunDir(path)


def _for_yaml(text: str) -> str:
    """YAML holds no halves of surrogate pairs, and no longer keys."""
    return text.encode(errors="replace").decode()[:300]


def terminal(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What every command says that shows a run or a sweep."""
    monkeypatch.setenv("MOE_SWEEPS_RUNS", str(world.runs))
    monkeypatch.setenv("MOE_SWEEPS_REPORTS", str(world.root / "again"))
    monkeypatch.setenv("COLUMNS", "220")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    capsys.readouterr()
    first = next(p.name for p in sorted(world.runs.glob("smoke-*")))
    for line in (
        ["tables", "--costs"],
        ["status", "--all"],
        ["status", "5eed5eed"],
        ["explain", "5eed5eed:1,val_loss"],
        ["explain", "5eed5eed:3,val_loss"],
        ["explain", "5eed5eed:nowhere,val_loss"],
        ["why", first, "0123456789ab"],
        ["explain", first],
        ["report", first],
        ["status", "\x1b[31m[red]\x1b]0;x\x07"],
    ):
        manage.main(line)
    said = capsys.readouterr()
    return said.out + said.err


# --- the checks, one a language -----------------------------------------------------------------------------------


def markdown_shape(text: str) -> tuple[list[str], set[str]]:
    """Kinds of blocks and inline parts, texts joined and left out, and everything that it links to."""
    shape, links = [], set()
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        shape.append(token.type)
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                links.add(str(child.attrs.get("href") or child.attrs.get("src")))
            if child.type not in ("text", "text_special"):
                shape.append(child.content if child.type == "html_inline" else child.type)
    return shape, links


class Tags(HTMLParser):
    """Tags with the names of their attributes, and where they lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.shape: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shape.append(f"{tag} {' '.join(name for name, _ in attrs)}")
        found = dict(attrs)
        self.links += [str(found[name]) for name in ("href", "src") if name in found]
        self.ids += [str(found["id"])] if "id" in found else []

    def handle_endtag(self, tag: str) -> None:
        self.shape.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        self.shape.append("comment")

    def handle_data(self, data: str) -> None:
        self.text += data


def check_markdown(world: World, harmless: World) -> None:
    found, expected = world.texts("md"), harmless.texts("md")
    assert set(found) == set(expected) >= {"table.md", "claims.md", "recommended.md", "index.md"}
    for path, other in zip(markdowns(world), markdowns(harmless), strict=True):
        shape, links = markdown_shape(path)
        assert shape == markdown_shape(other)[0]
        assert all(re.fullmatch(r"[a-z_]+\.(png|svg)", link) for link in links)
        assert not re.search(r"(?<!\\)\$", re.sub(r"^ {4}.*$", "", path, flags=re.M))
    table = next(text for text in markdowns(world) if "Collapsed combinations" in text)
    shown = "".join(t.content for b in MarkdownIt().parse(table) for t in b.children or ())
    assert all(plain(label).strip() in shown for label in world.labels)


def markdowns(world: World) -> list[str]:
    """In the order of creation, which does not depend on the names."""
    found = [p for p in world.written.paths if p.suffix == ".md"] + [world.pictures.folder / "index.md"]
    return [path.read_text() for path in found]


def check_html(world: World, harmless: World) -> None:
    ours, others = (Tags((w.pictures.folder / "index.html").read_text()) for w in (world, harmless))
    assert ours.shape == others.shape
    assert not _acting(ours.text)
    page, other = (Tags((w.reports / "index.html").read_text()) for w in (world, harmless))
    assert page.shape == other.shape
    assert [
        x
        for x in page.links
        if not re.fullmatch(r"data:(,|image/svg\+xml;charset=utf-8,[^'#&]*)|#[\w.-]+|(\.\./)*runs/[^:?#]*/", x)
    ] == []
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert anchors <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert not _acting(page.text)
    assert all(plain(label) in page.text for label in world.labels)


def check_csv(world: World, harmless: World) -> None:
    for path, other in zip(
        *([p for p in w.written.paths if p.suffix == ".csv"] for w in (world, harmless)), strict=True
    ):
        lines, expected = (list(csv.reader(io.StringIO(p.read_bytes().decode()))) for p in (path, other))
        assert path.name == "runs.csv" or [len(line) for line in lines] == [len(line) for line in expected]
        for cell in (cell for line in lines for cell in line):
            assert not _acting(cell)
            if cell.strip().startswith(FORMULAS):
                float(cell)
    tables = [path.read_text() for path in world.written.paths if path.name == "table.csv"]
    rows = max((list(csv.DictReader(io.StringIO(text))) for text in tables), key=len)
    assert [row["label"].removeprefix("'").strip() for row in rows] == [
        plain(label).removeprefix("'").strip() for label in world.labels
    ]


def check_latex(world: World, harmless: World) -> None:
    texts = [p.read_text() for p in world.written.paths if p.suffix == ".tex"]
    others = [p.read_text() for p in harmless.written.paths if p.suffix == ".tex"]
    assert len(texts) == len(others) >= 3
    for text, other in zip(texts, others, strict=True):
        comment, *rest = text.split("\n")
        assert comment.startswith("% ")
        assert comment.isascii()
        assert rest[0] == r"\begin{table}"
        assert _labels(text) == _labels(other)
        assert all(_is_table(lines.split("\n")) for lines in "\n".join(rest).split("\\begin{table}\n")[1:])
        body = "\n".join(rest)
        assert latex_problems(body, COMMANDS | FLOATS) == []


def _labels(text: str) -> int:
    return text.count("\\label{")


def _is_table(lines: list[str]) -> bool:
    """The lines of one float: nothing but its parts in their order, and rows of as many cells as its head."""
    caption, *label = lines[: lines.index(next(line for line in lines if line.startswith("\\centering")))]
    setting, tabular, top, head, middle, *rows = lines[1 + len(label) :]
    end = rows.index(r"\bottomrule")
    cells = [row.count(" & ") for row in (head, *rows[:end])]
    return (
        caption.startswith(r"\caption{")
        and all(line.startswith(r"\label{tab:") for line in label)
        and setting.startswith(r"\centering\fontsize")
        and tabular.startswith(r"\begin{tabular}{")
        and (top, middle) == (r"\toprule", r"\midrule")
        and all(row.endswith(r" \\") for row in (head, *rows[:end]))
        and len(set(cells)) == 1
        and rows[end + 1 : end + 3] == [r"\end{tabular}", r"\end{table}"]
        and not "".join(rows[end + 3 :])
    )


def check_figures(world: World, harmless: World) -> None:
    files = list(world.reports.rglob("*.svg"))
    assert len(files) == len(list(harmless.reports.rglob("*.svg"))) >= 8
    for path in files:
        names = {element.tag.split("}")[-1] for element in ElementTree.fromstring(path.read_bytes()).iter()}
        assert not names & {"script", "a", "foreignObject"}
    assert not world.pictures.left_out


def check_files(world: World, harmless: World) -> None:
    outside = [p for p in world.root.iterdir() if p.name not in ("runs", "reports", "made", "again")]
    assert outside == []
    assert all(p.resolve().is_relative_to(world.reports.resolve()) for p in world.reports.rglob("*"))
    depths = {len(p.relative_to(world.reports).parts) for p in world.reports.rglob("*") if p.is_file()}
    assert depths == {1, 2}
    assert len(list(world.reports.iterdir())) == len(list(harmless.reports.iterdir()))


def _acting(text: str) -> set[str]:
    return {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")}


CHECKS = (check_markdown, check_html, check_csv, check_latex, check_figures, check_files)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("harmless"), HARMLESS)


@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(words=st.permutations(HOSTILE))
def test_no_output_obeys_what_it_shows(
    words: list[str], harmless: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = World(tmp_path_factory.mktemp("hostile"), words)
    for check in CHECKS:
        check(world, harmless)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("hostile"), HOSTILE)


@pytest.mark.parametrize("check", CHECKS)
def test_each_output(check: Callable[[World, World], None], hostile: World, harmless: World) -> None:
    check(hostile, harmless)


def test_a_terminal_sees_colours_and_nothing_else(
    hostile: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = terminal(hostile, monkeypatch, capsys)
    assert SGR.search(said)
    assert not _acting(SGR.sub("", said).replace("\t", ""))
    shown = SGR.sub("", said)
    assert "[red]red[/red] [link=http://127.0.0.1/]here[/link] [/]" in shown
    assert ":smile:" in shown
    assert "\ufffd[31mred\ufffd[0m" in shown


def test_an_engine_sets_hostile_tables_and_runs_nothing(hostile: World, tmp_path: Path) -> None:
    engine = next((found for name in ("pdflatex", "lualatex", "xelatex") if (found := shutil.which(name))), None)
    if engine is None:
        pytest.skip("no LaTeX engine is installed: apt-get install texlive-latex-base texlive-latex-recommended")
    texts = [p.read_text() for p in hostile.written.paths if p.suffix == ".tex"]
    body = "\\clearpage\n".join(texts)
    source = f"\\documentclass{{article}}{PREAMBLE}\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "paper.tex").write_text(source)
    command = [engine, "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert b"Missing character" not in done.stdout
    assert b"(/etc/passwd" not in done.stdout
    assert b"runsystem" not in done.stdout
    assert {p.suffix for p in tmp_path.iterdir()} == {".tex", ".pdf", ".aux", ".log"}
