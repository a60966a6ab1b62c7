"""Processes of a run: a resolved run in; ranks started, watched, and taken down together."""
