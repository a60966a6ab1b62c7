"""Texts compared with each other and with evaluation items: corpora in; repeated rows out."""
