"""Devices, process groups and library versions: the one place that adapts to them."""
