"""Judges: who they are, how a verdict is read, and what happens when none can be read."""
