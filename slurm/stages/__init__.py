"""Stages of a graph.

Commands with their inputs in; records of what they left behind, and status, out.
"""
