"""JUDGE.yaml: the model that reads replies and gives verdicts.

    endpoint: {kind: anthropic, model: claude-sonnet-4-6}
    budget: {max_cost_usd: 40}
    ---
    endpoint: {kind: openai, model: Qwen/Qwen3-32B, base_url: http://judge-node:8000/v1}
    ---
    path: models/judge                            a Hugging Face folder, or a *.jsonl of replies

An endpoint is what `msm generate` takes for one, and its replies are journalled and paid in the
same way. Relative paths start at the file's folder.
"""

from pathlib import Path
from typing import Any, Self

from inspect_ai.model import GenerateConfig, Model, get_model
from pydantic import Field, model_validator

from evals.judging.journalled_api import JournalledAPI, model_of
from evals.models.hf import check_chat_template, check_folder, open_model, resolve_device
from evals.models.inspect_apis import load_script, name_for_opened, sha256_of_script
from evals.models.servers import check_address
from megatron_msm.config.load import load_config
from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.formats.files import sha256_of_file
from megatron_msm.llm.budget import Budget
from megatron_msm.llm.clients import new_client
from megatron_msm.llm.endpoints import Endpoint
from megatron_msm.llm.journalled import JournalledEndpoint


class JudgeSettings(Section):
    """A whole JUDGE.yaml."""

    endpoint: Endpoint | None = None
    """A server; `megatron_msm/llm/endpoints.py` has all fields."""
    budget: Budget = Budget()
    """What all evaluations of one folder of results may spend on an endpoint."""
    path: Path | None = None
    """A Hugging Face folder, or a script of replies."""
    temperature: float = Field(default=0.0, ge=0)
    """0 takes the likeliest token each time."""
    max_tokens: PositiveInt = 2048
    """Limit of a verdict with its reasons."""
    attempts: PositiveInt = 3
    """How often it is asked until a verdict can be read."""
    batch_size: PositiveInt = 16
    """Verdicts at once, where the judge runs in this process."""

    @model_validator(mode="before")
    @classmethod
    def _servers_are_endpoints(cls, content: Any) -> Any:
        if isinstance(content, dict) and "model" in content:
            raise ValueError(
                "a server's `model` and `base_url` are written as for `msm generate`: "
                "endpoint: {kind: anthropic, model: NAME}, or {kind: openai, model: NAME, "
                "base_url: http://HOST:PORT/v1}"
            )
        return content

    @model_validator(mode="after")
    def _is_one_judge(self) -> Self:
        if (self.endpoint is None) == (self.path is None):
            raise ValueError("a judge is either `endpoint` or `path`")
        if self.endpoint is not None and self.endpoint.kind != "journal" and self.endpoint.batch:
            raise ValueError("endpoint.batch: a judge is asked call by call; leave it out")
        return self

    @property
    def is_script(self) -> bool:
        """Whether replies are read from a file."""
        return self.path is not None and self.path.suffix == ".jsonl"

    @property
    def concurrency(self) -> int:
        """Calls at once."""
        return self.batch_size if self.endpoint is None else self.endpoint.concurrency


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
        endpoint = self.settings.endpoint
        if endpoint is not None and endpoint.kind != "journal" and endpoint.extra_body:
            facts["extra_body"] = endpoint.extra_body
        return ", ".join([self._name, *(f"{name} {value}" for name, value in facts.items())])

    @property
    def journalled(self) -> JournalledEndpoint | None:
        """The endpoint behind it; None where it runs in this process."""
        api = self.model.api
        return api.endpoint if isinstance(api, JournalledAPI) else None

    def close(self) -> None:
        """Close its journal."""
        if self.journalled is not None:
            self.journalled.close()


def load_judge(path: Path) -> JudgeSettings:
    """Read JUDGE.yaml and check what it names, without loading weights or asking anybody.

    Raises:
        ConfigError: The file is broken, or a key is missing from the environment.
        CheckpointError: The folder is not a Hugging Face model with a chat template.
        DataFormatError: The script of replies is broken.
    """
    settings = load_config(path, JudgeSettings)
    endpoint = settings.endpoint
    if endpoint is not None:
        if endpoint.kind == "journal":
            endpoint = endpoint.model_copy(update={"path": path.parent / endpoint.path})
        elif endpoint.base_url is not None:
            check_address(endpoint.base_url, where=f"{path}: endpoint.base_url")
        new_client(endpoint)
        return settings.model_copy(update={"endpoint": endpoint})
    assert settings.path is not None
    folder = path.parent / settings.path
    if settings.is_script:
        load_script(folder)
    else:
        check_chat_template(folder, check_folder(folder))
    return settings.model_copy(update={"path": folder})


def open_judge(settings: JudgeSettings, *, device: str, step: str, journal: Path) -> Judge:
    """Return the judge, loading it where it is a folder.

    Args:
        settings: Who it is.
        device: Where a folder runs.
        step: The evaluation: spending is counted by it.
        journal: Where an endpoint's replies are kept.

    Raises:
        CheckpointError: The folder is incomplete or does not fit together.
        ConfigError: The journal is in use, or a key is missing from the environment.
    """
    config = GenerateConfig(
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        max_connections=settings.concurrency,
    )
    if settings.endpoint is not None:
        endpoint = JournalledEndpoint(
            settings.endpoint, journal=journal, budget=settings.budget, step=step
        )
        name = settings.endpoint.model
        if settings.endpoint.kind == "journal":
            name = f"recording {sha256_of_file(settings.endpoint.path)}"
        return Judge(settings, model_of(endpoint, config), name)
    assert settings.path is not None
    if settings.is_script:
        model = get_model(f"msm-script/{settings.path}", config=config, memoize=False)
        return Judge(settings, model, f"script {sha256_of_script(settings.path)}")
    opened = open_model(settings.path, dtype="bf16", device=resolve_device(device), label=None)
    name = name_for_opened(opened)
    model = get_model(name, config=config, memoize=False, batch_size=settings.batch_size)
    return Judge(settings, model, f"weights {opened.record.weights_sha256}")
