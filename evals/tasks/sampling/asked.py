"""The judged model as Inspect asks it: a folder in process, a server, or written replies."""

from typing import NamedTuple

from inspect_ai.model import GenerateConfig, Model, get_model

from evals.models.hf import describe_folder
from evals.models.inspect_apis import name_for_opened, sha256_of_script
from evals.models.local import LocalModel
from evals.models.own_server import load_server
from evals.models.servers import check_rendering, server_key, server_model
from evals.tasks.sampling.settings import SamplingSettings
from megatron_msm.errors import ConfigError
from megatron_msm.formats.eval_result import ModelRecord
from megatron_msm.formats.files import sha256_of_text


class Asked(NamedTuple):
    """Who answers."""

    model: Model
    record: ModelRecord
    key: str
    """Content hash of the weights; of server and name where only a server has them."""
    way: str
    """How it was asked; part of the protocol, since precision and sampler differ."""


def check_asked(model: LocalModel, settings: SamplingSettings) -> None:
    """Find out before the first evaluation that the model cannot be asked.

    Raises:
        MsmError: The folder has no chat template, or SERVER.yaml is broken or has no use here.
    """
    model.check_can_reply()
    if settings.server is None:
        return
    load_server(settings.server)
    if model.server is not None:
        raise ConfigError(
            f"--server {model.server}: the evaluation starts a server of its own by "
            f"{settings.server}. Leave out one of them."
        )
    if not model.folder.is_dir():
        raise ConfigError(f"{model.folder}: is no folder, and `server` starts one for a folder.")


def open_asked(model: LocalModel, settings: SamplingSettings) -> Asked:
    """Return the model, loading it where it runs in this process, or starting its server.

    Raises:
        MsmError: The folder is incomplete, or the server cannot be asked as the model was trained.
    """
    if model.is_script:
        return _scripted(model)
    if settings.server is not None:
        config = load_server(settings.server)
        return _served(model, settings, model.served_by(config), config.way)
    if model.server is not None:
        return _served(model, settings, model.server, "server")
    opened = model.opened(settings.dtype)
    asked = get_model(
        name_for_opened(opened),
        memoize=False,
        batch_size=settings.batch_size,
        thinking=settings.thinking,
    )
    return Asked(asked, opened.record, key_of(opened.record), f"in process, {settings.dtype}")


def key_of(record: ModelRecord) -> str:
    """Return what tells a model's samples from another's: its weights where they are known."""
    return record.weights_sha256 or sha256_of_text(record.path)


def record_of(model: LocalModel) -> ModelRecord:
    """Return which model is judged, without loading it."""
    if model.is_script:
        return ModelRecord(
            label=model.label or model.folder.stem,
            path=str(model.folder.resolve()),
            weights_sha256=sha256_of_script(model.folder),
            chat_template_sha256=None,
            lineage=None,
        )
    if model.server is None or model.folder.is_dir():
        return describe_folder(model.folder, model.files, model.label)
    return ModelRecord(
        label=model.label or str(model.folder),
        path=f"{model.server} {model.folder}",
        weights_sha256=None,
        chat_template_sha256=None,
        lineage=None,
    )


def _served(model: LocalModel, settings: SamplingSettings, url: str, way: str) -> Asked:
    key = server_key(url)
    if model.folder.is_dir():
        check_rendering(model.folder, url, key, thinking=settings.thinking)
    extra = {} if settings.thinking is None else {"enable_thinking": settings.thinking}
    config = GenerateConfig(
        max_connections=settings.concurrency,
        extra_body={"chat_template_kwargs": extra} if extra else None,
    )
    record = record_of(model)
    asked = server_model(str(model.folder), url, key, config)
    return Asked(asked, record, key_of(record), way)


def _scripted(model: LocalModel) -> Asked:
    record = record_of(model)
    asked = get_model(f"msm-script/{model.folder.resolve()}", memoize=False)
    return Asked(asked, record, key_of(record), "script")
