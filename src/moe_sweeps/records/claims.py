"""Kinds of claims, and a claim about the arms of one sweep as the manifest holds it.

A kind has two halves: its entry here, which says what it means and which fields it has, and the judge that
results/claims.py registers for it. One without the other cannot be imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """What claims of this kind say, and the fields that they need or may have in a sweep file.

    Those come besides `claim`, `kind`, `metric` and `source`. `directed`: it speaks of better and worse, so the metric
    must have a better direction.
    """

    means: str
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()
    directed: bool = False


KINDS: dict[str, Kind] = {
    "better": Kind("arm is better than `than`, by at least `by` (0)", ("arm", "than"), ("by",), directed=True),
    "worse": Kind("arm is worse than `than`, by at least `by` (0)", ("arm", "than"), ("by",), directed=True),
    "not_worse": Kind("arm is not worse than `than` by more than `within`", ("arm", "than", "within"), directed=True),
    "no_difference": Kind("arm and `than` differ by at most `within`", ("arm", "than", "within")),
    "ratio_at_most": Kind("metric of arm divided by that of `than` is at most `bound`", ("arm", "than", "bound")),
    "ratio_at_least": Kind("metric of arm divided by that of `than` is at least `bound`", ("arm", "than", "bound")),
    "rises": Kind("the metric grows along `axis`, by at least `by` (0) in all", ("axis",), ("where", "by")),
    "falls": Kind("the metric shrinks along `axis`, by at least `by` (0) in all", ("axis",), ("where", "by")),
    "best_at": Kind("along `axis` the metric is best at one of `at`", ("axis", "at"), ("where",), directed=True),
    "turning_point": Kind("the same, and worse at both ends", ("axis", "at"), ("where",), directed=True),
    "spread_at_most": Kind("the standard deviation of arm over seeds is at most `bound`", ("arm", "bound")),
}
ALWAYS = ("claim", "kind", "metric")
NUMBERS = ("by", "within", "bound")


@dataclass(frozen=True, slots=True)
class Statement:
    """One claim, its selections of arms replaced by arm ids.

    `points` are the values of `axis` with their arms: by size where all values are numbers, else in the order of the
    grid. Values in `at` are spelt as in `points`. `cannot` says why the plan has no arm that the claim speaks of.
    """

    claim: str
    kind: str
    metric: str
    better: str | None = "lower"
    source: str | None = None
    cannot: str | None = None
    arm: str | None = None
    than: str | None = None
    axis: str | None = None
    points: tuple[tuple[str, str], ...] = ()
    at: tuple[str, ...] = ()
    by: float | None = None
    within: float | None = None
    bound: float | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Statement:
        """Read what `to_dict` wrote; fields that this version does not know are passed over.

        Raises:
            KeyError, TypeError, ValueError: it is no claim.
        """
        names = {f.name for f in fields(cls)} - {"points", "at", *NUMBERS}
        values: dict[str, Any] = {k: v for k, v in dict(content).items() if k in names and v is not None}
        if not all(isinstance(v, str) for v in values.values()):
            raise TypeError(f"{values!r:.200} is no claim: its fields are texts")
        for name in ALWAYS:
            if name not in values:
                raise KeyError(name)
        values["better"] = values.get("better")
        values["points"] = tuple((str(value), str(arm)) for value, arm in content.get("points") or ())
        values["at"] = tuple(map(str, content.get("at") or ()))
        values |= {k: float(content[k]) for k in NUMBERS if content.get(k) is not None}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for manifest.json. What the kind does not have is left out."""
        content: dict[str, Any] = {name: getattr(self, name) for name in (*ALWAYS, "better", "source", "cannot")}
        content |= {name: value for name in (*NUMBERS, "arm", "than") if (value := getattr(self, name)) is not None}
        if self.points:
            content |= {"axis": self.axis, "points": [list(point) for point in self.points], "at": list(self.at)}
        return content

    def asked(self) -> dict[str, Any]:
        """What is asked, however it is worded and whoever claimed it: equal for equal questions."""
        return self.to_dict() | {"claim": "", "source": "", "cannot": ""}

    def fault(self) -> str | None:
        """What keeps this version from judging the claim, whatever the numbers; None if nothing does."""
        if self.kind not in KINDS:
            return f"this version knows no kind {self.kind} of claims"
        values = {"axis": len(self.points) > 1, "at": set(self.at) <= {v for v, _ in self.points} and bool(self.at)}
        for name in KINDS[self.kind].needs:
            if not values.get(name, getattr(self, name) is not None):
                return f"the manifest has no {name} for it, which kind={self.kind} needs"
        return None
