"""Forced choice: items and a model in; log-odds for the target option out."""
