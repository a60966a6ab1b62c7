"""The judged model as Inspect asks it: a folder in process, a server, or written replies."""

from typing import NamedTuple

from inspect_ai.model import GenerateConfig, Model, get_model

from evals.models.hf import describe_folder
from evals.models.inspect_apis import name_for_opened, sha256_of_script
from evals.models.local import LocalModel
from evals.models.servers import SERVER_KEY_ENV, server_key, server_model
from evals.tasks.sampling.settings import SamplingSettings
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


def open_asked(model: LocalModel, settings: SamplingSettings) -> Asked:
    """Return the model, loading it where it runs in this process.

    Raises:
        MsmError: The folder is incomplete, or the server's address is none.
    """
    if model.is_script:
        return _scripted(model)
    if model.server is not None:
        return _served(model, settings)
    opened = model.opened(settings.dtype)
    asked = get_model(
        name_for_opened(opened),
        memoize=False,
        batch_size=settings.batch_size,
        thinking=settings.thinking,
    )
    key = str(opened.record.weights_sha256)
    return Asked(asked, opened.record, key, f"in process, {settings.dtype}")


def _served(model: LocalModel, settings: SamplingSettings) -> Asked:
    assert model.server is not None
    name = str(model.folder)
    key = server_key(SERVER_KEY_ENV, model.server)
    extra = {} if settings.thinking is None else {"enable_thinking": settings.thinking}
    config = GenerateConfig(
        max_connections=settings.concurrency,
        extra_body={"chat_template_kwargs": extra} if extra else None,
    )
    asked = server_model(name, model.server, key, config)
    if model.folder.is_dir():
        record = describe_folder(model.folder, model.files, model.label)
        return Asked(asked, record, str(record.weights_sha256), "server")
    path = f"{model.server} {name}"
    record = ModelRecord(
        label=model.label or name,
        path=path,
        weights_sha256=None,
        chat_template_sha256=None,
        lineage=None,
    )
    return Asked(asked, record, sha256_of_text(path), "server")


def _scripted(model: LocalModel) -> Asked:
    key = sha256_of_script(model.folder)
    record = ModelRecord(
        label=model.label or model.folder.stem,
        path=str(model.folder.resolve()),
        weights_sha256=key,
        chat_template_sha256=None,
        lineage=None,
    )
    asked = get_model(f"msm-script/{model.folder.resolve()}", memoize=False)
    return Asked(asked, record, key, "script")
