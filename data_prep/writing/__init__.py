"""Rows to a published dataset.

Encoded blocks in; files, hashes and a manifest out, all or nothing.
"""
