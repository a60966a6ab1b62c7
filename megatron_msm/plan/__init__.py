"""Estimates: a shape and a layout in; memory and time of a run out. No GPU needed."""
