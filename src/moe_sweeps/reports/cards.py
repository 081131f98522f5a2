"""What a sweep answers, on one card: the answer with effect, interval and n, how sure it is, and what would help.

Cards are sorted: what is decided first, then by how close the rest is to a decision.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.records.numbers import PRIMARY, Metric
from moe_sweeps.records.words import BETTER, EQUIVALENT, NO_RESULT, UNDECIDED, WORSE, tone
from moe_sweeps.reports.charts.along import MAXVIO, compared, reach
from moe_sweeps.reports.charts.canvas import names_of
from moe_sweeps.reports.layout import interval_text, p_text
from moe_sweeps.reports.notes import warning
from moe_sweeps.results.compare import SINGLE, Comparison
from moe_sweeps.results.findings import VERDICTS, Verdict
from moe_sweeps.results.judging import Judgement, judge_sides
from moe_sweeps.results.looks import level_of_look
from moe_sweeps.results.noise import Noise
from moe_sweeps.results.power import MOST_SEEDS
from moe_sweeps.results.tables import Arm, Table

MOST_BARS = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """One arm of a small forest plot; places are in percent of its width."""

    name: str
    text: str
    at: float
    low: float
    high: float
    tone: str


@dataclass(frozen=True, slots=True)
class Forest:
    """A small forest plot. `zero` is where no difference is; `ends` are the values at its edges.

    `cut`: some bars reach beyond them.
    """

    title: str
    bars: tuple[Bar, ...]
    zero: float
    ends: tuple[str, str]
    more: int  # arms that are not shown
    cut: bool


@dataclass(frozen=True, slots=True)
class Card:
    """One question and its answer. `rank` sorts cards: decided or not, then how close to a decision."""

    slug: str
    question: str
    word: str
    answer: str
    also: tuple[str, ...]
    sure: str
    rests: str
    next: str
    forest: Forest | None
    rank: tuple[int, float]

    @property
    def lead(self) -> str:
        """The first words of the answer; "worse" alone would leave open what is worse than what."""
        return "none is shown to be better" if self.word == WORSE else self.word

    @property
    def tone(self) -> str:
        """How they are set."""
        return tone(self.word)


def card(table: Table, verdicts: Sequence[Verdict], next_runs: str) -> Card | None:
    """The card of a sweep; None for one without a finished run that compares nothing."""
    if table.baseline is None or len(table.arms) < 2:
        return _spread_card(table, verdicts)
    names = names_of(table.arms)
    found = table.differences
    word, answer, first = _answer(PRIMARY, found, names, names[table.baseline])
    return Card(
        table.manifest.slug, table.manifest.file.question or table.definition.title or table.title, word, answer,
        (*_balance(table, names), *_statements(verdicts)), _sure(table, first), _rests(table, first), next_runs,
        _forest(table, found, names), _rank(found),
    )  # fmt: skip


def _spread_card(table: Table, verdicts: Sequence[Verdict]) -> Card | None:
    """The card of a sweep of one arm: what its seeds do."""
    arm = next((arm for arm in table.arms if arm.cells[PRIMARY.column].mean is not None), None)
    if arm is None:
        return None
    floor = ""
    if table.floor:
        floor = f"; two single runs differ by up to {PRIMARY.spell(table.floor.difference)} in 19 of 20 cases"
    answer = " ".join(filter(None, (_level_text(arm, PRIMARY, floor), _level_text(arm, MAXVIO))))
    question = table.manifest.file.question or table.definition.title or table.title
    return Card(
        table.manifest.slug, question, "", answer, tuple(_statements(verdicts)),
        "" if verdicts else "A description; nothing is tested.",
        _rests(table, None), "", None, (1, 2.0),
    )  # fmt: skip


def _level_text(arm: Arm, metric: Metric, more: str = "") -> str:
    """Mean and spread of an arm in a number; empty where it has none."""
    cell = arm.cells[metric.column]
    if cell.mean is None:
        return ""
    name = metric.axis.split(" (")[0]
    spread = "one seed has no spread" if cell.sd is None else f"standard deviation over seeds {metric.spell(cell.sd)}"
    return f"{name[0].upper()}{name[1:]} {metric.spell(cell.mean)} (mean, n = {cell.n}); {spread}{more}."


def by_answer(cards: Sequence[Card]) -> list[Card]:
    """Decided ones first, then by how close they are to a decision, those without a result last."""
    return sorted(cards, key=lambda card: card.rank)


# --- sentences --------------------------------------------------------------------------------------------------------


def _answer(
    metric: Metric, found: Mapping[str, Comparison], names: Mapping[str, str], base: str
) -> tuple[str, str, Comparison | None]:
    """The word, the sentence, and the difference that it speaks of."""
    if not found:
        return NO_RESULT, f"{base} and the other arms have no finished runs in common yet.", None
    good = {arm: c for arm, c in found.items() if c.decided and c.better}
    bad = {arm: c for arm, c in found.items() if c.decided and not c.better}
    if good:
        arm = max(good, key=lambda a: abs(good[a].difference))
        more = f" So {_are(len(good) - 1, len(found))}." if len(good) > 1 else ""
        return BETTER, f"{names[arm]} is better than {base}: {effect_text(good[arm])}.{more}", good[arm]
    nearest = closest(found)
    if bad:
        arm = max(bad, key=lambda a: abs(bad[a].difference))
        told = f"{len(bad)} of {len(found)} other arms are worse than {base}" if len(bad) > 1 else ""
        told = f"{told}, most of all {names[arm]}" if told else f"{names[arm]} is worse than {base}"
        return WORSE, f"{told}: {effect_text(bad[arm])}.", bad[arm]
    if nearest is None:
        return NO_RESULT, f"No arm can be tested against {base}: {next(iter(found.values())).verdict}.", None
    text = f"No arm is shown to differ from {base} in {metric.axis.split(' (')[0]}. Closest to a decision is"
    return UNDECIDED, f"{text} {names[nearest]}: {effect_text(found[nearest])}.", found[nearest]


def _are(others: int, of: int) -> str:
    return f"{'is 1 other arm' if others == 1 else f'are {others} other arms'} of {of}"


def effect_text(found: Comparison) -> str:
    """Effect, interval and n in a sentence."""
    name = found.metric.axis.split(" (")[0]
    interval = f" (interval {interval_text(found)})" if found.low is not None else ""
    n = " and ".join(map(str, found.n))
    return f"{name} {found.metric.spell_effect(found.difference)}{interval}, n = {n}"


def _balance(table: Table, names: Mapping[str, str]) -> list[str]:
    """What was found about balance, in one sentence."""
    found = compared(table, MAXVIO)
    decided = {arm: c for arm, c in found.items() if c.decided}
    if not decided:
        return ["Balance: undecided."] if any(c.p_family is not None for c in found.values()) else []
    arm = max(decided, key=lambda a: abs(decided[a].difference))
    counts = Counter(BETTER if c.better else WORSE for c in decided.values())
    told = " and ".join(f"{counts[word]} {word}" for word in (BETTER, WORSE) if counts[word])
    return [f"Balance: {told} of {len(found)} arms, most of all {names[arm]}: {effect_text(decided[arm])}."]


def _statements(verdicts: Sequence[Verdict]) -> list[str]:
    counts = Counter(v.verdict for v in verdicts)
    told = ", ".join(f"{counts[word]} {word}" for word in VERDICTS if counts[word])
    return [f"Statements about it: {told}."] if told else []


def _sure(table: Table, first: Comparison | None) -> str:
    level = level_of_look(table.looks)
    if first is None or first.p_family is None:
        return "Nothing can be said: there is no test."
    arms = sum(c.p_family is not None for c in table.differences.values())
    family = f"corrected for {arms} comparisons" if arms > 1 else "one comparison"
    text = f"p {p_text(first.p_family)} ({family}), held against {level:g} at look {table.looks}."
    if first.kind == SINGLE:
        text += " One seed on a side: its spread is taken from alike runs, which nothing here can check."
    return text


def _rests(table: Table, first: Comparison | None) -> str:
    done, extra = table.counts["done"], sum(len(arm.elsewhere) for arm in table.arms)
    arms = f"{len(table.arms)} arm{'s' * (len(table.arms) != 1)}"
    parts = [f"{done} finished runs of {arms} at scale {', '.join(table.scales) or 'unknown'}"]
    parts += [f"{extra} runs of the same arms from other sweeps"] if extra else []
    parts += [first.kind] if first is not None else []
    parts += [f"spread of {table.floor.runs} alike runs"] if table.floor else []
    return " ".join(filter(None, ("; ".join(parts) + ".", warning(table))))


# --- what is next -----------------------------------------------------------------------------------------------------


def closest(found: Mapping[str, Comparison]) -> str | None:
    """The undecided arm with the smallest corrected p; None where nothing is undecided that was tested."""
    tested = {a: c for a, c in found.items() if c.p_family is not None and c.comparable and not c.decided}
    return min(tested, key=lambda a: (tested[a].p_family, tested[a].p)) if tested else None


def next_runs(table: Table, noise: Noise | None) -> str:
    """What the next core-hours buy: the fewest runs that decide what is closest to a decision."""
    arm = closest(table.differences)
    if noise is None or table.baseline is None or arm is None:
        return "" if any(c.decided for c in table.differences.values()) else "Train the runs that are missing first."
    one, base = table.arm(arm), table.arm(table.baseline)
    name = names_of(table.arms)[arm]
    try:
        judged = judge_sides(_rows(one), _rows(base), PRIMARY, noise, look=table.looks)
    except MoeSweepsError as error:
        return f"{name} cannot be judged alone: {error}."
    return _next_text(name, judged)


def _rows(arm: Arm) -> list[Mapping[str, object]]:
    return list(arm.every_row)


def _next_text(name: str, judged: Judgement) -> str:
    if judged.verdict == EQUIVALENT and judged.margin is not None:
        margin = " to ".join(map(PRIMARY.spell_effect, judged.margin))
        return f"As a question of its own {name} is equivalent to the baseline, within {margin}, which no table tests."
    if judged.verdict != UNDECIDED:
        return f"As a question of its own {name} is {judged.verdict}; only the correction for all arms leaves it open."
    found = judged.next
    if judged.comparison.lost:
        return f"No further seed decides {name}: {judged.comparison.lost} diverged or stopped, which flatters the rest."
    if found is None:
        return f"How many runs decide {name} is not known: their spread is not."
    if found.core_hours is None:
        return f"No number of seeds up to {MOST_SEEDS:,} decides {name}: its difference lies too near to the margin."
    hours = f"{found.core_hours:.2g} core-hours"
    each = (found.a + found.b) / found.core_hours if found.core_hours else math.inf
    pace = f" One core-hour buys {each:.1f} such runs." if math.isfinite(each) else ""
    return (
        f"{found.a} more seeds of {name} and {found.b} of the baseline ({hours}) decide that pair, one way or the "
        f"other, with a chance of 80%, if the difference is what it looks like.{pace}"
    )


# --- the small forest plot --------------------------------------------------------------------------------------------


def _forest(table: Table, found: Mapping[str, Comparison], names: Mapping[str, str]) -> Forest | None:
    known = {arm: c for arm, c in found.items() if c.low is not None and c.high is not None}
    if not known:
        return None
    first = sorted(known, key=lambda a: (not known[a].decided, known[a].p_family or 0.0, -abs(known[a].difference)))
    shown = {arm: known[arm] for arm in known if arm in first[:MOST_BARS]}
    low, high, cut = reach([*shown.values()], 0.0)
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)

    def place(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value - low) / ((high - low) or 1.0))), 2)

    def bar(name: str, c: Comparison) -> Bar:
        text = f"{c.metric.spell_effect(c.difference)} ({interval_text(c)}), {c.verdict}"
        low, high = place(c.low or 0.0), place(c.high or 0.0)
        return Bar(name, text, place(c.difference), low, high, tone(c.verdict))

    bars = tuple(bar(names[arm], c) for arm, c in shown.items())
    base = names[table.baseline or ""]
    title = f"Difference in {PRIMARY.axis} to {base}"
    ends = PRIMARY.spell(low, sign=True), PRIMARY.spell(high, sign=True)
    return Forest(title, bars, place(0.0), ends, len(known) - len(bars), cut)


def _rank(found: Mapping[str, Comparison]) -> tuple[int, float]:
    tested = [c.p_family for c in found.values() if c.p_family is not None]
    if any(c.decided for c in found.values()):
        return 0, min(tested)
    return (1, min(tested)) if tested else (2, 0.0)
