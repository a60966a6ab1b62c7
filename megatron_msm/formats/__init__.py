"""Files on disk that several packages share: their names, types, readers, writers. No torch."""
