"""Trackers: mirrors of run folders in wandb and TensorBoard, each in a process of its own.

    python -m moe_sweeps.tracking FOLDER SETTINGS

follows the run folder until its standard input says how the run ended. records/mirror.py starts it.
"""
