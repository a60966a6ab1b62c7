"""What the trainer reads: indexed datasets in; packed, masked, ordered batches out."""
