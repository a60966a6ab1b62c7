"""Jobs, the graph of stages, and experiments.

Run and grid files in; finished stages and a report out.
"""
