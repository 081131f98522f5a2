"""How often one has looked: seeds may be added until something is decided, and errors stay within LEVEL.

Looking again after every batch of seeds, each time at 5%, calls one of six identical arms different in one table of
six within ten looks. So the budget is spent over the looks (alpha spending; Lan & DeMets, Biometrika 70, 1983,
p. 659): most of it at the first, where most people stop, and a little at each of nine later ones. Looks at nested seeds
are correlated, and the guard of own spreads is not exact, so what the levels spend was simulated with this very test
(benchmarks/evidence.py: ten looks, one or three seeds at a time, from two or three seeds on): with .04 and .002 up to
6.3% of tables of six arms whose spreads go from 1 to 27 err, with these levels about 5%.
"""

from __future__ import annotations

LEVEL = 0.05  # what all looks together may spend
FIRST, LATER, MOST_LOOKS = 0.035, 0.001, 10


def level_of_look(look: int) -> float:
    """The level that the test of this look (from 1) is held against; 0 after MOST_LOOKS: nothing is left."""
    if look < 1:
        raise ValueError(f"looks are counted from 1, not {look}")
    return FIRST if look == 1 else LATER if look <= MOST_LOOKS else 0.0
