"""A Hugging Face folder that says how hard it finds a text.

torch is imported when a model is opened, as nothing else in data_prep needs it.
"""

from pathlib import Path

from data_prep.health.initial_loss import TextLoss
from megatron_msm.convert.huggingface.causal_lm import open_causal_lm
from megatron_msm.errors import CheckpointError

_MOST_TOKENS = 1024
_MOST_LOSS = 20.0
"""Nats of one token."""


class BaseModel:
    """A causal language model.

    Raises:
        CheckpointError: The folder is no model, or incomplete.
        MissingExtraError: transformers is not installed.
    """

    def __init__(self, folder: Path) -> None:
        import torch

        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise CheckpointError(
                f"{folder}: no Hugging Face model with safetensors. Give the folder that holds its "
                "config.json and *.safetensors; `msm convert export` makes one of a checkpoint."
            )
        self.name = folder.resolve().name
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # CPUs are slow in bf16.
        model, self._tokenizer = open_causal_lm(
            folder, dtype="auto" if device == "cuda" else torch.float32
        )
        self._model = model.to(device)

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
