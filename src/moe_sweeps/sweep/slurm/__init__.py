"""Runs of a sweep as SLURM jobs: planned and frozen here, submitted as arrays, followed from the run folders.

    resources   what one job asks for, as a function of its run
    script      the sbatch script of an array, by submitit
    records     what was submitted: one JSON file an array, written before sbatch is called
    queue       what SLURM says, in one call for everything
    submit      the order of it all, and what happens when a submission dies half-way
    job         what a task does on the cluster, and what becomes of the job afterwards

A job reads its record and the frozen configs of its runs; nothing is pickled.
"""
