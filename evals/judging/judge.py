"""JUDGE.yaml: the model that reads replies and gives verdicts.

    model: anthropic/claude-sonnet-4-6            a provider, by Inspect's name
    ---
    model: Qwen/Qwen3-32B                         any server that speaks OpenAI's chat completions
    base_url: http://judge-node:8000/v1
    ---
    path: models/judge                            a Hugging Face folder, or a *.jsonl of replies

Relative paths start at the file's folder.
"""

import importlib.util
from pathlib import Path
from typing import Self

from inspect_ai.model import GenerateConfig, Model, get_model
from pydantic import Field, model_validator

from evals.models.hf import check_chat_template, check_folder, open_model, resolve_device
from evals.models.inspect_apis import load_script, name_for_opened, sha256_of_script
from evals.models.servers import server_key, server_model
from megatron_msm.config.load import load_config
from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.errors import ConfigError


class JudgeSettings(Section):
    """A whole JUDGE.yaml."""

    model: str | None = None
    """Inspect's name of a provider's model; with `base_url`, the name at that server."""
    base_url: str | None = None
    """Address of an OpenAI-compatible server."""
    api_key_env: str = "MSM_JUDGE_API_KEY"
    """Environment variable with the server's key; a provider's key has its usual name."""
    path: Path | None = None
    """A Hugging Face folder, or a script of replies."""
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: PositiveInt = 2048
    """Limit of a verdict with its reasons."""
    attempts: PositiveInt = 3
    """How often it is asked until a verdict can be read."""
    concurrency: PositiveInt = 16
    """Calls at once."""

    @model_validator(mode="after")
    def _is_one_judge(self) -> Self:
        if (self.model is None) == (self.path is None):
            raise ValueError("a judge is either `model` or `path`")
        if self.base_url is None and self.model is not None and "/" not in self.model:
            raise ValueError(
                f"`model: {self.model}` names no provider: write provider/name, or give `base_url`"
            )
        return self

    @property
    def is_script(self) -> bool:
        """Whether replies are read from a file."""
        return self.path is not None and self.path.suffix == ".jsonl"


class Judge:
    """An opened judge."""

    def __init__(self, settings: JudgeSettings, model: Model, name: str) -> None:
        self.settings = settings
        self.model = model
        self._name = name

    @property
    def identity(self) -> str:
        """Who it is and what else decides its verdicts: part of a result's protocol."""
        facts = self.settings.model_dump(include={"temperature", "max_tokens", "attempts"})
        return ", ".join([self._name, *(f"{name} {value}" for name, value in facts.items())])


def load_judge(path: Path) -> JudgeSettings:
    """Read JUDGE.yaml and check what it names, without loading weights or asking anybody.

    Raises:
        ConfigError: The file is broken, or a key is missing from the environment.
        CheckpointError: The folder is not a Hugging Face model with a chat template.
        DataFormatError: The script of replies is broken.
    """
    settings = load_config(path, JudgeSettings)
    if settings.path is not None:
        settings = settings.model_copy(update={"path": path.parent / settings.path})
        assert settings.path is not None
        if settings.is_script:
            load_script(settings.path)
        else:
            check_chat_template(settings.path, check_folder(settings.path))
    elif settings.base_url is not None:
        server_key(settings.api_key_env, settings.base_url)
    else:
        _check_provider(path, str(settings.model))
    return settings


def open_judge(settings: JudgeSettings, *, device: str) -> Judge:
    """Return the judge, loading it where it is a folder.

    Raises:
        CheckpointError: The folder is incomplete or does not fit together.
    """
    config = GenerateConfig(
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        max_connections=settings.concurrency,
    )
    if settings.path is None and settings.base_url is not None:
        name = str(settings.model)
        key = server_key(settings.api_key_env, settings.base_url)
        return Judge(settings, server_model(name, settings.base_url, key, config), name)
    if settings.path is None:
        name = str(settings.model)
        return Judge(settings, get_model(name, config=config), name)
    if settings.is_script:
        name = f"msm-script/{settings.path}"
        model = get_model(name, config=config, memoize=False)
        return Judge(settings, model, f"script {sha256_of_script(settings.path)}")
    opened = open_model(settings.path, dtype="bf16", device=resolve_device(device), label=None)
    name = name_for_opened(opened)
    model = get_model(name, config=config, memoize=False, batch_size=settings.concurrency)
    return Judge(settings, model, f"weights {opened.record.weights_sha256}")


def _check_provider(path: Path, model: str) -> None:
    """Find out before anything is generated that a judge cannot be asked."""
    provider = model.split("/")[0]
    packages = {"anthropic": "anthropic", "openai": "openai", "google": "google.genai"}
    package = packages.get(provider, "inspect_ai")
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError(f"{path}: `model: {model}` needs the package {package}: install it.")
    try:
        get_model(model, memoize=False)
    except Exception as error:  # Inspect names what is missing: a key, a provider
        raise ConfigError(f"{path}: `model: {model}` cannot be asked: {error}") from None
