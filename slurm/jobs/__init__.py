"""SLURM and nothing else: a job file and a site in; a queued job, its attempts and its logs out."""
