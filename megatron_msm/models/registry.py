"""Which table of tensors belongs to which Hugging Face `model_type`."""

from megatron_msm.models.architecture import ModelShape
from megatron_msm.models.llama import LLAMA
from megatron_msm.models.tensor_table import ModelTable

TABLES: dict[str, ModelTable] = {"llama": LLAMA}


def table_for(shape: ModelShape) -> ModelTable:
    """Return the tensor table of an architecture that `read_model_shape` has accepted."""
    return TABLES[shape.model_type]
