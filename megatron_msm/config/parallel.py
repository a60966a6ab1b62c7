"""How the model and the batch are split over ranks."""

from megatron_msm.config.section import PositiveInt, Section


class ParallelConfig(Section):
    """How the model and the batch are split over ranks."""

    tensor: PositiveInt = 1
    """Tensor parallel size; divides the attention heads and the key/value heads."""
    pipeline: PositiveInt = 1
    """Pipeline parallel size; divides the layers."""
    data: PositiveInt = 1
    """Data parallel size: copies of the model, each with its share of the global batch."""

    @property
    def world_size(self) -> int:
        """Number of ranks that the layout needs."""
        return self.tensor * self.pipeline * self.data
