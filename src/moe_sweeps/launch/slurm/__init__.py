"""Runs of a sweep as SLURM jobs: planned and frozen here, submitted as arrays, followed from the run folders.

    resources   what one job asks for, as a function of its run
    script      the sbatch script of an array, by submitit
    records     what was submitted: one JSON file an array, written before sbatch is called
    queue       what SLURM says about all jobs, in one call
    agree       what run folders and the queue say together
    submit      the order of a submission, safe to interrupt and repeat
    job         what a task does on the cluster, and whether the job is requeued afterwards

A job reads its record and the frozen configs of its runs; nothing is pickled.
"""
