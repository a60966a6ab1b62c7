"""Evaluations, a folder each: a model in, a result out."""
