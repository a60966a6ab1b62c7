"""Arithmetic of models: shapes and layouts in; sizes, splits and FLOPs out. No torch."""
