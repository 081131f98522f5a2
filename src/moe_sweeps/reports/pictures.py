"""Pictures of one run, for a reader who has never seen the code: PNG, SVG, and a page that says how to read them.

written = write_pictures(find_run("3f2a", Path("runs")), Path("reports"))
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.host.files import write_atomic
from moe_sweeps.host.plain import file_name, markdown_text
from moe_sweeps.records.numbers import CATALOGUE
from moe_sweeps.records.remarks import remarks_of
from moe_sweeps.records.rundir import RunDir, Status
from moe_sweeps.reports import drawing
from moe_sweeps.reports.drawing.files import Files, draw_files
from moe_sweeps.reports.headings import heading
from moe_sweeps.reports.lineage import reproduce
from moe_sweeps.reports.templating import as_it_is, environment
from moe_sweeps.results.history import History


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: the name of its files, its heading, and how to read it."""

    slug: str
    title: str
    reading: str
    draw: Callable[[History], Figure]


PICTURES = (
    Picture(
        "loss",
        "Loss",
        "Lower is better: how surprised the model is by the next token, on the text that it trains on (line) and "
        "on text that it never trains on (squares); if the squares rise while the line falls, it is learning by "
        "heart.",
        drawing.loss,
    ),
    Picture(
        "load",
        "Load of the experts",
        "Each row of a panel is one expert, time runs to the right: grey is an equal share of the tokens, yellow "
        "(lighter) is too many, dark blue is too few, so a balanced layer is an even grey and a collapsed one has "
        "a few bright rows on dark ground.",
        drawing.load,
    ),
    Picture(
        "balance",
        "Balance and entropy",
        "Above: by how much the busiest expert exceeds an equal share (0.5 means 50% too many tokens), where the "
        "dotted line is what chance alone gives and shades span the layers; below: a low entropy of one token's "
        "choice means a decided router, a high entropy of the mean choice means that all experts get a part, and "
        "their difference says how much the choice depends on the token.",
        drawing.balance,
    ),
    Picture(
        "usage",
        "Experts in use",
        "Above: how many experts share the tokens in effect, E if all get the same and k if the router sends every "
        "token to the same k; below: how many experts of a layer hardly any token reaches, parameters that are paid "
        "for and not used, so this line belongs at 0.",
        drawing.usage,
    ),
    Picture(
        "bias",
        "Bias of the balancer",
        "The balancer raises the line of an expert that gets too few tokens and lowers that of one that gets too "
        "many: lines that level off have found their balance, lines that keep drifting have not, and a fast "
        "zigzag means that the update rate is too large.",
        drawing.bias,
    ),
    Picture(
        "specialisation",
        "Experts and domains",
        "Each row is one kind of text and its cells (in percent where there is room) say which experts process "
        "it: rows that look alike mean that the experts do not divide the text by domain, a cell that is bright "
        "in one row alone is a specialist.",
        drawing.specialisation,
    ),
    Picture(
        "norms",
        "Gradients and parameters",
        "Each line is one group of parameters on a logarithmic axis: a gradient that jumps by a factor of ten or "
        "dies out, or parameters that grow without end, is where to look for a training problem.",
        drawing.norms,
    ),
    Picture(
        "rates",
        "Learning rates",
        "By how much a step may change the parameters of each kind: it rises while training warms up and falls "
        "towards its end; where the learning rate of an expert follows its load, the shade reaches from the slowest "
        "to the fastest expert of all layers.",
        drawing.rates,
    ),
    Picture(
        "saturation",
        "Saturation of the router",
        "How many of the experts that the router picks at a step are those that it picks at the end of training: "
        "a line that is high early means that the router's choices were fixed early; at the last step it is 100% "
        "by definition.",
        drawing.saturation,
    ),
)

WORDS = {
    "Expert": "one of E small networks in a layer. The router picks k of them for each token.",
    "Load": "how often an expert is picked. The equal share is 1/E of all picks.",
    "MaxVio": "(load of the busiest expert - mean load) / mean load. 0 is balanced, E/k - 1 is the worst case.",
    "N_eff": "experts in effect: exp(entropy of the loads). E when all loads are alike, k when k experts take "
    "everything.",
    "Dead expert": "one whose load is below 1% of the mean load of its layer.",
    "Collapse": "the router sends nearly every token to the same k experts, for so long that it is the run's outcome.",
    "Step": "one update of the parameters. Layers and experts are counted from 0.",
}


class Written(NamedTuple):
    """The folder, the names of the pictures in it, and why others are missing."""

    folder: Path
    drawn: list[str]
    left_out: dict[str, str]


def write_pictures(run: RunDir, reports_root: Path) -> Written:
    """Draw what the run recorded into `reports_root`/<name of the run folder>/, with a page as Markdown and as HTML.

    Raises:
        MoeSweepsError: the run recorded nothing that can be drawn.
    """
    history = History.read(run)
    figures, left_out, _ = draw_files({picture.slug: partial(picture.draw, history) for picture in PICTURES})
    if not figures:
        reasons = "; ".join(f"{slug}: {reason}" for slug, reason in left_out.items())
        raise MoeSweepsError(f"run {history.name} has recorded nothing that can be drawn ({reasons})")
    folder = reports_root / file_name(history.name)
    folder.mkdir(parents=True, exist_ok=True)
    for slug, content in figures.items():
        for suffix in content:
            write_atomic(folder / f"{slug}.{suffix}", content[suffix])
    for slug in left_out:  # of an earlier report
        for suffix in ("png", "svg"):
            (folder / f"{slug}.{suffix}").unlink(missing_ok=True)
    status, about = run.status(), About.of(run)
    write_atomic(folder / "index.md", index_text(history, status, left_out, about))
    write_atomic(folder / "index.html", html_text(history, status, figures, left_out, about))
    return Written(folder, list(figures), left_out)


@dataclass(frozen=True, slots=True)
class About:
    """What else the page says of the run: notes and tags, final numbers, and the line that trains it again."""

    remarks: str = ""
    numbers: tuple[tuple[str, str], ...] = ()
    again: str = ""

    @classmethod
    def of(cls, run: RunDir) -> About:
        """What the folder says, as far as it can be read."""
        summary = (run.summary() or {}) if run.has_sound("summary.json") else {}
        numbers = [(metric.words, metric.spell_with_unit(float(summary[metric.column]))) for metric in CATALOGUE
                   if metric.words and _is_number(summary.get(metric.column))]  # fmt: skip
        return cls(remarks_of(run.path).line, tuple(numbers), reproduce({"folder": str(run.path)}))


def index_text(history: History, status: Status, left_out: dict[str, str], about: About) -> str:
    """The page that shows the pictures and says how to read each."""
    facts = markdown_text(_facts(history.config, status)) + "\n"
    parts = [heading(history.name, before="Pictures of run ") + "\n", facts]
    if history.collapse is not None:
        parts.append(f"> **{markdown_text(history.collapse.sentence)}.** A red line marks the step.\n")
    parts += [f"Notes: {markdown_text(about.remarks)}\n"] if about.remarks else []
    for picture in PICTURES:
        if picture.slug not in left_out:
            image = f"![{picture.title}]({picture.slug}.png)"
            parts.append(f"## {picture.title}\n\n{picture.reading}\n\n{image}\n\n[as SVG]({picture.slug}.svg)\n")
    if left_out:
        lines = "\n".join(f"- {title}: {markdown_text(reason)}." for title, reason in _titled(left_out))
        parts.append(f"## Not drawn\n\n{lines}\n")
    words = "\n".join(f"- **{word}**: {meaning}" for word, meaning in WORDS.items())
    return "\n".join([*parts, f"## Words\n\n{words}\n"])


def html_text(history: History, status: Status, figures: Files, left_out: dict[str, str], about: About) -> str:
    """The same as one HTML file that fetches nothing, with the final numbers and the line that trains it again."""
    pictures = [{"slug": each.slug, "title": each.title, "reading": each.reading,
                 "data": base64.b64encode(figures[each.slug]["svg"]).decode()}
                for each in PICTURES if each.slug in figures]  # fmt: skip
    return environment().get_template("run.html").render(
        name=history.name, css=as_it_is("page.css"), facts=_facts(history.config, status), remarks=about.remarks,
        collapse=None if history.collapse is None else history.collapse.sentence, numbers=about.numbers,
        pictures=pictures, left_out=_titled(left_out), again=about.again, words=WORDS.items(),
    )  # fmt: skip


def _titled(left_out: dict[str, str]) -> list[tuple[str, str]]:
    titles = {picture.slug: picture.title for picture in PICTURES}
    return [(titles[slug], reason) for slug, reason in left_out.items()]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _facts(config: dict[str, Any], status: Status) -> str:
    """What kind of run this is, in one line."""
    groups = {name: config.get(name) for name in ("scale", "balancer", "experts", "data", "seed")}
    named = {name: value.get("kind") if isinstance(value, dict) else value for name, value in groups.items()}
    experts = groups["experts"] if isinstance(groups["experts"], dict) else {}
    if "num_experts" in experts:
        named["experts"] = f"{experts['num_experts']}, {experts.get('top_k')} for each token"
    facts = [f"{name}: {value}" for name, value in named.items() if value is not None]
    progress = f"{status.name}, step {status.step:,} of {status.total_steps:,}"
    return f"{progress}. {'; '.join(facts)}."
