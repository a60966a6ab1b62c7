"""Training: a run file in; checkpoints and metrics out."""
