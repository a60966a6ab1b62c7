"""Which architecture belongs to which Hugging Face `model_type`. No torch."""

from megatron_msm.models.architecture import Architecture
from megatron_msm.models.families.gemma3 import GEMMA3
from megatron_msm.models.families.granite import GRANITE
from megatron_msm.models.families.llama import LLAMA
from megatron_msm.models.families.mistral import MISTRAL
from megatron_msm.models.families.mixtral import MIXTRAL
from megatron_msm.models.families.olmo2 import OLMO2
from megatron_msm.models.families.olmo3 import OLMO3
from megatron_msm.models.families.qwen2 import QWEN2
from megatron_msm.models.families.qwen3 import QWEN3
from megatron_msm.models.families.qwen3_moe import QWEN3_MOE
from megatron_msm.models.families.smollm3 import SMOLLM3
from megatron_msm.models.shape import ModelShape
from megatron_msm.models.tensor_table import ModelTable

ARCHITECTURES: dict[str, Architecture] = {
    "gemma3_text": GEMMA3,
    "granite": GRANITE,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "mixtral": MIXTRAL,
    "olmo2": OLMO2,
    "olmo3": OLMO3,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "qwen3_moe": QWEN3_MOE,
    "smollm3": SMOLLM3,
}


def table_for(shape: ModelShape) -> ModelTable:
    """Return the tensor table of an architecture that `read_model_shape` has accepted."""
    return ARCHITECTURES[shape.model_type].table
