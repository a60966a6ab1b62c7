"""Checkpoints of a run: the state of a rank in; folders on disk out, and back."""
