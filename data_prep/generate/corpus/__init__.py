"""Rows and rejects to a dataset folder: JSONL and Parquet, a card, a summary, a page."""
