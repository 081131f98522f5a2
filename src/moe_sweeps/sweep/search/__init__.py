"""Search: trials that a sampler suggests, trained by rungs.

    space     what is searched, and what is fixed
    suggest   the next trial, by Optuna
    halving   which trial is promoted from a rung
    trials    what the run folders say about a trial
    plan      a search before it runs;  cost  what it can cost
    record    its manifest
    drive     the search itself;  stop  a request to start no further run

All state is in the manifest and the run folders.
"""
