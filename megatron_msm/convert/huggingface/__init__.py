"""Hugging Face folders: files in; tensors, configs and cards out, and back."""
