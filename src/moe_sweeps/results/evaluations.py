"""Which evaluations of a run are alike: the final one takes more and other windows than those on the way.

The final evaluation is a point of its own in every figure: no line joins it to the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable


def usual_size(tokens: Iterable[float]) -> float | None:
    """The number of tokens that most evaluations took; None where no number is known.

    Of several that occur equally often it is the smallest: a run with one evaluation on the way has a larger one at its
    end.
    """
    counts = Counter(float(size) for size in tokens if math.isfinite(size))
    return min(counts, key=lambda size: (-counts[size], size), default=None)
