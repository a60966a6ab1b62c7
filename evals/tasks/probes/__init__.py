"""Probes: a question or an unfinished text, one right answer and wrong ones; likelihoods decide."""
