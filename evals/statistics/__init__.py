"""Numbers in, intervals out."""
