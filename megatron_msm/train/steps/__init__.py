"""Optimizer steps: a batch in; updated weights and what the step showed out."""
