"""A Hugging Face folder that answers chats, one at a time."""

from collections.abc import Sequence
from pathlib import Path

from evals.models.chat_turn import render_chat
from evals.models.generation import Prompt, SampledReply, sample_replies
from evals.models.local import LocalModel


class Talker:
    """Answers under the folder's own chat template."""

    def __init__(self, folder: Path, *, device: str, temperature: float, max_tokens: int) -> None:
        """Load the model.

        Raises:
            CheckpointError: The folder is no Hugging Face model with a chat template.
            ConfigError: There is no such device.
        """
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._model = LocalModel(folder, device=device)
        self._opened = self._model.opened("bf16")

    def reply(self, messages: Sequence[dict[str, str]], *, seed: int) -> SampledReply:
        """Return the reply to a chat.

        Raises:
            CheckpointError: The template cannot render it, or it is too long for the model.
        """
        ids = render_chat(self._opened.tokenizer, messages)
        prompt = Prompt(ids, seed, self._temperature, self._max_tokens)
        return sample_replies(self._opened, [prompt])[0]

    def close(self) -> None:
        """Free what the model holds."""
        self._model.close()
