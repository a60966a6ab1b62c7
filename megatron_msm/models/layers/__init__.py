"""What megatron-core's layers lack or do elsewhere: attention, norms, rope, loss, LoRA."""
