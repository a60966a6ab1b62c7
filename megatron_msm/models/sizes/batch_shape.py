"""What a phase's batches ask of a layout: sizes alone."""

from dataclasses import dataclass

from megatron_msm.config.parallel import ParallelConfig
from megatron_msm.config.run import PhaseConfig


@dataclass(frozen=True)
class BatchShape:
    """Sizes of a phase's batches."""

    name: str
    """The phase, for messages."""
    seq_length: int
    micro_batch_size: int
    global_batch_size: int
    """Packed sequences of one optimizer step."""
    align: int
    """Each document's positions are a multiple of this."""

    def positions(self, parallel: ParallelConfig) -> int:
        """Return the positions of a micro batch that a rank's attention and MLP see."""
        return self.micro_batch_size * self.seq_length // parallel.context


def batch_shape(phase: PhaseConfig) -> BatchShape:
    """Return what a phase's batches ask of a layout."""
    return BatchShape(
        name=phase.name,
        seq_length=phase.seq_length,
        micro_batch_size=phase.micro_batch_size,
        global_batch_size=phase.global_batch_size,
        align=phase.data.packing.align,
    )
