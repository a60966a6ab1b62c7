"""LoRA adapters between PEFT's format and checkpoints, and merged into their base."""
