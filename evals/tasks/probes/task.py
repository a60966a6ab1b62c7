"""Probes of one model: knowledge of a spec by clause, recall of preferences, identity.

Nothing is generated. An answer's likelihood is the mean log-probability a token; the margin is the
right answer's over the likeliest wrong one. How likely an answer is in itself is part of it, so a
margin says little alone: compare it with that of the model before training.
"""

import time
from functools import partial

from evals.models.chat_turn import CHAT_SETTINGS, check_no_control_tokens
from evals.models.continuations import Continuation, Ids
from evals.models.hf import OpenModel, bos_of
from evals.models.local import LocalModel
from evals.models.log_probabilities import score_continuations
from evals.tasks.probes.items import ProbeItems, load_probe_items
from evals.tasks.probes.prompt import (
    FINISH_TEMPLATE,
    QUESTION_TEMPLATE,
    Form,
    chat_continuations,
    text_continuations,
)
from evals.tasks.probes.result import MARGIN, build_row, probe_metrics
from evals.tasks.scoring import ScoringSettings, counting, scored_result
from evals.tasks.task import Progress, Work
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import EvalResult, Protocol, Row

PROTOCOL_VERSION = 1
"""Raise it when prompts or scores change: results of different versions are not compared."""


class ProbeSettings(ScoringSettings):
    """A probe in a suite, asked in chat turns."""


class KnowledgeSettings(ProbeSettings):
    """A knowledge test in a suite."""

    form: Form = "text"
    """`text` as the documents were trained, with no chat template; `chat` as a user asks."""
    prepend_bos: bool = False
    """As text, begin with a BOS: where the documents were prepared with `--prepend-bos`."""


def prepare_knowledge(settings: KnowledgeSettings, model: LocalModel, name: str) -> Work:
    """Read the items of a knowledge test and check them against the model's tokenizer.

    Raises:
        MsmError: An input is broken; the message says which, where, and what to do.
    """
    if settings.form == "chat":
        return _prepare(settings, model, name, task="knowledge", asked=FINISH_TEMPLATE)
    start = bos_of(model.files) if settings.prepend_bos else ()
    return _prepare(settings, model, name, task="knowledge", asked=start)


def prepare_recall(settings: ProbeSettings, model: LocalModel, name: str) -> Work:
    """Read the items of a recall test and check them against the model's tokenizer.

    Raises:
        MsmError: An input is broken; the message says which, where, and what to do.
    """
    return _prepare(settings, model, name, task="recall", asked=QUESTION_TEMPLATE)


def prepare_identity(settings: ProbeSettings, model: LocalModel, name: str) -> Work:
    """Read the items of an identity probe and check them against the model's tokenizer.

    Raises:
        MsmError: An input is broken; the message says which, where, and what to do.
    """
    return _prepare(settings, model, name, task="identity", asked=QUESTION_TEMPLATE)


def _prepare(
    settings: ProbeSettings, model: LocalModel, name: str, *, task: str, asked: str | Ids
) -> Work:
    """Prepare a probe that asks in a chat turn of this template, or as text that starts so."""
    items = load_probe_items(settings.items)
    files = model.chat_files if isinstance(asked, str) else model.files
    for item in items.items:
        check_no_control_tokens(item.id, item.texts, files.control_tokens)
    in_chat = {"prompt_template": asked, **CHAT_SETTINGS}
    protocol = Protocol(
        task=task,
        version=PROTOCOL_VERSION,
        items_sha256=items.sha256,
        chat_template_sha256=files.chat_template_sha256 if isinstance(asked, str) else None,
        settings={
            "form": "chat" if isinstance(asked, str) else "text",
            "normalisation": "mean log-probability per token of the answer",
            "dtype": settings.dtype,
            **(in_chat if isinstance(asked, str) else {"prepend_bos": bool(asked)}),
        },
    )
    return partial(_ask, settings, items, model, name, protocol, asked)


def _ask(
    settings: ProbeSettings,
    items: ProbeItems,
    model: LocalModel,
    name: str,
    protocol: Protocol,
    asked: str | Ids,
    on_progress: Progress,
) -> EvalResult:
    started_s = time.monotonic()
    opened = model.opened(settings.dtype)
    rows = _rows(opened, items, asked, settings.batch_size, on_progress)
    return scored_result(
        rows,
        probe_metrics(rows),
        name=name,
        protocol=protocol,
        model=model,
        settings=settings,
        items=str(settings.items.resolve()),
        meaning="margin > 0 means that the right answer is likelier than every wrong one; "
        f"guessing gets {items.chance:.0%} right",
        headline=MARGIN,
        started_s=started_s,
    )


def _rows(
    opened: OpenModel,
    items: ProbeItems,
    asked: str | Ids,
    batch_size: int,
    on_progress: Progress,
) -> list[Row]:
    requests = [
        chat_continuations(item, opened.tokenizer, asked)
        if isinstance(asked, str)
        else text_continuations(item, opened.tokenizer, start=asked)
        for item in items.items
    ]
    _check_lengths(items, requests, opened.max_length)
    count = counting(on_progress, len(requests))
    scores = score_continuations(opened.model, requests, batch_size=batch_size, on_scored=count)
    return [build_row(item, of_item) for item, of_item in zip(items.items, scores, strict=True)]


def _check_lengths(
    items: ProbeItems, requests: list[list[Continuation]], max_length: int | None
) -> None:
    for item, of_item in zip(items.items, requests, strict=True):
        if not all(one.prompt_ids and one.answer_ids for one in of_item):
            raise DataFormatError(
                f"{items.path}: item {item.id!r}: the tokenizer makes no token of its text or of "
                "an answer. Write them longer, in characters that the model knows."
            )
        longest = max(one.num_tokens for one in of_item)
        if max_length is not None and longest > max_length:
            raise DataFormatError(
                f"{items.path}: item {item.id!r} is {longest} tokens long, and the model's "
                f"context is {max_length}. Shorten its text or answers."
            )
