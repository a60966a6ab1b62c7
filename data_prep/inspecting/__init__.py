"""Finished datasets, looked at: a prefix in; rows, statistics, proofs and packing plans out."""
