"""A model computed twice: by Megatron's layers and by transformers, on the same tokens."""
