"""Search: trials that a sampler suggests, trained by rungs.

    space     what is searched, and what is fixed
    suggest   the next trial, by Optuna
    halving   who goes on from a rung
    trials    what run folders say about a trial
    plan      a search before it runs;  cost  what it can cost
    record    its manifest
    drive     the search itself;  stop  a request to begin nothing further

Nothing is remembered but the manifest and the run folders.
"""
