"""Where runs are trained: this machine, or jobs of SLURM."""
