"""torch_dist checkpoints, ours and other tools': folders in; tensors out, and back."""
