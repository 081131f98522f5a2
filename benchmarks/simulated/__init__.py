"""What benchmarks/evidence.py simulates.

cases         what the runs of a table are drawn from
rivals        the test of the tables and other tests
rates         counts of tables that erred
calibration   family-wise error of the test of the tables
beside        the same and power, beside its rivals
looking       who looks ten times and adds seeds in between
promises      the power that --detect promises, and the power that is reached
proposals     proposals that change nothing, from archived runs and from runs of their own
scorecards    claims of the archived sweeps on runs without any difference
page          the blocks of docs/results.md, from the committed rows
"""
