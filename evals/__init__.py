"""Checkpoints judged: Hugging Face folders in; results with intervals and a report out."""
