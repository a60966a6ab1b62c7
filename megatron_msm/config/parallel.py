"""How the model and the batch are split over ranks: sizes, and all that follows from them alone.

What a model and a batch allow is checked in models/sizes/layout.py.
"""

from typing import Self

from pydantic import model_validator

from megatron_msm.config.section import PositiveInt, Section


class ParallelConfig(Section):
    """How the model and the batch are split over ranks.

    tensor x pipeline x context x data is the number of ranks.
    """

    tensor: PositiveInt = 1
    """Ranks that share each layer's matrices; divides the attention and the key/value heads."""
    sequence: bool = False
    """Split norms and residuals over the tensor parallel ranks too: less memory, same traffic."""
    pipeline: PositiveInt = 1
    """Ranks that the layers are assigned to, first to last."""
    virtual_pipeline: PositiveInt = 1
    """Model chunks of each pipeline rank (interleaved schedule): shorter bubbles, more messages."""
    layers_per_stage: tuple[PositiveInt, ...] | None = None
    """Layers of each of the pipeline x virtual_pipeline stages, from the embedding to the logits.
    Left out: as many in each."""
    context: PositiveInt = 1
    """Ranks that share each document's positions; needs documents padded to a multiple of twice it
    (`data.packing.align`)."""
    expert: PositiveInt = 1
    """Ranks that share a layer's experts, taken from tensor x context x data; only for models that
    have experts."""
    data: PositiveInt = 1
    """Copies of the model, each with its share of the global batch."""

    @model_validator(mode="after")
    def _sizes_fit_together(self) -> Self:
        if self.sequence and self.tensor == 1:
            raise ValueError("sequence: true needs tensor > 1: it splits over the same ranks")
        if self.virtual_pipeline > 1 and self.pipeline == 1:
            raise ValueError(
                f"virtual_pipeline: {self.virtual_pipeline} needs pipeline > 1, found 1: "
                "chunks alternate between ranks"
            )
        if (
            self.layers_per_stage is not None
            and len(self.layers_per_stage) != self.num_pipeline_stages
        ):
            raise ValueError(
                f"layers_per_stage: {len(self.layers_per_stage)} numbers, but pipeline "
                f"{self.pipeline} x virtual_pipeline {self.virtual_pipeline} = "
                f"{self.num_pipeline_stages} stages"
            )
        if self.expert_pool % self.expert:
            raise ValueError(
                f"expert: {self.expert} does not divide tensor {self.tensor} x context "
                f"{self.context} x data {self.data} = {self.expert_pool}, the ranks of one "
                "pipeline stage"
            )
        return self

    @property
    def num_pipeline_stages(self) -> int:
        """Stages that a micro batch goes through."""
        return self.pipeline * self.virtual_pipeline

    @property
    def model_size(self) -> int:
        """Ranks of one copy of the model."""
        return self.tensor * self.pipeline * self.context

    @property
    def world_size(self) -> int:
        """Number of ranks that the layout needs."""
        return self.model_size * self.data

    @property
    def expert_pool(self) -> int:
        """Ranks of one pipeline stage, over which experts can be assigned."""
        return self.tensor * self.context * self.data

    @property
    def document_multiple(self) -> int:
        """Every document's positions are a multiple of this.

        A document is cut into twice as many pieces as context parallel ranks and each rank gets an
        early and a late one, so that causal attention costs all the same.
        """
        return 2 * self.context if self.context > 1 else 1

    @property
    def summary(self) -> str:
        """The layout in one line: `tensor 2 x pipeline 1 x context 1 x data 4 = 8 ranks`."""
        tensor = f"tensor {self.tensor}" + (" (sequence)" if self.sequence else "")
        pipeline = f"pipeline {self.pipeline}"
        if self.virtual_pipeline > 1:
            pipeline += f" ({self.virtual_pipeline} chunks each)"
        experts = f", experts over {self.expert}" if self.expert > 1 else ""
        return (
            f"{tensor} x {pipeline} x context {self.context} x data {self.data} = "
            f"{self.world_size} ranks{experts}"
        )
