"""Grids of arms: a grid file in; a graph of stages, tables and a report out."""
