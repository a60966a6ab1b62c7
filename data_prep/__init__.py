"""Corpora to Megatron indexed datasets.

JSON lines and tables in; .bin/.idx, masks, provenance and a manifest out.
"""
