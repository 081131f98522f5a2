"""Find out, with evidence, which optimisation recipe trains a Mixture-of-Experts language model best."""

import os

__version__ = "0.1.0"  # pyproject.toml reads it here

# Threads that wait by spinning starve the ones they wait for as soon as anything else wants the cores: beside two busy
# processes a run of two threads was 2.5 times as fast with this (docs/LOG.md). It counts only before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
