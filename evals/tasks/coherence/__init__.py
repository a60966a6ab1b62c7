"""Coherence: how well a model predicts running text, and whether its own repeats itself."""
