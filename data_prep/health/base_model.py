"""A Hugging Face folder that says how hard it finds a text.

torch and transformers are imported when a model is opened, as nothing else in data_prep needs them.
"""

from pathlib import Path
from typing import Any

from data_prep.health.initial_loss import TextLoss
from megatron_msm.errors import CheckpointError

_MOST_TOKENS = 1024
_MOST_LOSS = 20.0
"""Nats of one token."""


class BaseModel:
    """A causal language model.

    Raises:
        CheckpointError: The folder is no model, or incomplete.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise CheckpointError(
                f"{folder}: no Hugging Face model with safetensors. Give the folder that holds its "
                "config.json and *.safetensors; `msm convert export` makes one of a checkpoint."
            )
        self.name = folder.resolve().name
        self._model, self._tokenizer = _open(folder)

    def loss(self, text: str) -> TextLoss:
        """Return the loss of the text's first 1,024 tokens, each cut at 20 nats."""
        import torch

        ids = self._tokenizer(text, return_tensors="pt", truncation=True, max_length=_MOST_TOKENS)
        tokens = ids["input_ids"].to(self._model.device)
        if tokens.shape[1] < 2:
            return TextLoss(0.0, 0)
        with torch.inference_mode():
            logits = self._model(input_ids=tokens).logits[0, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
        return TextLoss(float(losses.clamp(max=_MOST_LOSS).double().sum()), len(losses))


def _open(folder: Path) -> tuple[Any, Any]:
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype="auto" if device == "cuda" else torch.float32,  # CPUs are slow in bf16
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    except Exception as error:  # whatever a broken file makes of transformers
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{folder}: transformers cannot load it ({type(error).__name__}: {reason}). "
            "Check that the download or export is complete."
        ) from error
    lacking = sorted(str(key) for key in (*loading["missing_keys"], *loading["mismatched_keys"]))
    if lacking:
        raise CheckpointError(
            f"{folder}: {len(lacking)} weights are missing or of another shape ({lacking[0]}), and "
            "would be random. Check that the folder is whole."
        )
    return model.to(device).eval(), tokenizer
