"""Models under judgement: a folder or a server in; log-probabilities and replies out."""
