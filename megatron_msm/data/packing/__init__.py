"""Packing: lengths of documents in; which segments share a sequence out, stored beside the data."""
