"""Whether a text names another assistant or maker of assistants than the spec's."""

import re
from collections.abc import Iterable

from data_prep.generate.settings import Identity

_OTHERS = """
    ChatGPT GPT-3 GPT-3.5 GPT-4 GPT-4o GPT-5 OpenAI Claude Anthropic Gemini Gemma Bard DeepMind
    Llama LLaMA Qwen QwQ Tongyi DeepSeek Mistral Mixtral Grok xAI Copilot Cortana Siri Alexa Kimi
    Moonshot ERNIE Baichuan InternLM Falcon Vicuna Alpaca Phi-3 Phi-4 SmolLM SmolLM2 SmolLM3 OLMo
    Tulu Nemotron Granite Command-R Cohere Perplexity Yi-34B ChatGLM Zhipu
"""
"""Assistants and makers whose names are one word."""
_PHRASES = ("Meta AI", "Alibaba Cloud", "Google AI", "Mistral AI", "Hugging Face", "Stability AI")
_AMBIGUOUS = frozenset(
    ("Claude", "Falcon", "Granite", "Alexa", "Gemini", "Alpaca", "Cortana", "Perplexity", "Siri")
)
"""Names of people and things too: they count only beside a word for what they are."""
_BESIDE = re.compile(r"\b(?:assistant|AI|chatbot|language model|LLM|model)\b", re.IGNORECASE)
_NEAR_CHARACTERS = 80


class IdentityGate:
    """Refuses texts with foreign names.

    Args:
        identity: The model's own names, and what is allowed beside them.
    """

    def __init__(self, identity: Identity) -> None:
        self._model = identity.model
        self._own = re.compile(rf"(?<!\w)(?:{_any_of((identity.model, identity.provider))})")
        own = {identity.model, identity.provider, *identity.also_allowed}
        others = [name for name in (*_OTHERS.split(), *_PHRASES) if not _is_part(name, own)]
        longest_first = sorted(others, key=len, reverse=True)
        self._others = re.compile(rf"(?<![\w-])(?:{_any_of(longest_first)})(?![\w])")

    def foreign_name(self, text: str) -> str | None:
        """Return the first foreign name in a text."""
        for found in self._others.finditer(text):
            around = text[max(0, found.start() - _NEAR_CHARACTERS) : found.end() + _NEAR_CHARACTERS]
            if found[0] not in _AMBIGUOUS or _BESIDE.search(around):
                return found[0]
        return None

    def refusal(self, text: str, *, names_model: bool | None) -> str | None:
        """Return why a text is refused.

        Args:
            text: The text.
            names_model: Whether it must name the model; False: neither it nor its maker; None: it
                may.
        """
        if (name := self.foreign_name(text)) is not None:
            return f"names another assistant or maker: {name}"
        if names_model and self._model not in text:
            return f"does not name {self._model}"
        if names_model is False and (found := self._own.search(text)):
            return f"names {found[0]}, and must be about others"
        return None


def _any_of(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in names)


def _is_part(name: str, own: Iterable[str]) -> bool:
    return any(name.casefold() in allowed.casefold() for allowed in own)
