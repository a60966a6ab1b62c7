"""Conversion: a Hugging Face folder in; a Megatron checkpoint out, and back."""
