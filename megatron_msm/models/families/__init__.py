"""Model families: a config.json in; a shape and a table of tensors out. No torch."""
