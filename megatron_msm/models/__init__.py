"""Models: a Hugging Face config in; a shape, a table of tensors, and a GPTModel out."""
