"""Model Spec Midtraining at Megatron scale: the library and the trainer."""

__version__ = "0.1.0"
