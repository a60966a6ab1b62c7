"""Text to token ids.

Texts in, ids out, by the fastest back end that provably agrees with the reference.
"""
