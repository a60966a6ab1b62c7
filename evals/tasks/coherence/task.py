"""Coherence of one model: has training broken its language?

Two numbers a text: how well the model predicts it, in bits per byte of UTF-8 (tokenizers of any
kind are then comparable), and whether it repeats itself where it goes on from the text's beginning
by itself, greedily. Low is good in both; neither says whether what it writes is true.
"""

import time
from functools import partial
from importlib.resources import files
from pathlib import Path

from evals.models.chat_turn import check_no_control_tokens, encode
from evals.models.continuations import Continuation, Ids
from evals.models.greedy import continue_greedily
from evals.models.hf import OpenModel, bos_of
from evals.models.local import LocalModel
from evals.models.log_probabilities import score_continuations
from evals.tasks.coherence.result import BITS_PER_BYTE, build_row, coherence_metrics
from evals.tasks.coherence.texts import RunningText, load_texts
from evals.tasks.item_file import ItemFile
from evals.tasks.scoring import ScoringSettings, counting, scored_result
from evals.tasks.task import Progress, Work
from megatron_msm.config.section import PositiveInt
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import EvalResult, Protocol, Row

PROTOCOL_VERSION = 1
"""Raise it when texts or scores change: results of different versions are not compared."""

SHIPPED_TEXTS = Path(str(files("evals.tasks.coherence").joinpath("texts.jsonl")))


class CoherenceSettings(ScoringSettings):
    """A coherence test in a suite."""

    items: Path = SHIPPED_TEXTS
    """Texts (JSONL); those shipped with the package without it."""
    start_tokens: PositiveInt = 32
    """Tokens of a text that the model goes on from."""
    new_tokens: PositiveInt = 64
    """Tokens that it writes at most."""
    prepend_bos: bool = False
    """Begin with a BOS: where the documents were prepared with `--prepend-bos`."""
    batch_size: PositiveInt = 8
    """Texts in one forward pass; it changes results by rounding only."""


def prepare_coherence(settings: CoherenceSettings, model: LocalModel, name: str) -> Work:
    """Read the texts and check them against the model's tokenizer.

    Raises:
        MsmError: An input is broken; the message says which, where, and what to do.
    """
    texts = load_texts(settings.items)
    for text in texts.items:
        check_no_control_tokens(text.id, {"text": text.text}, model.files.control_tokens)
    start = bos_of(model.files) if settings.prepend_bos else ()
    return partial(_measure, settings, texts, model, name, start)


def _measure(
    settings: CoherenceSettings,
    texts: ItemFile[RunningText],
    model: LocalModel,
    name: str,
    start: Ids,
    on_progress: Progress,
) -> EvalResult:
    started_s = time.monotonic()
    opened = model.opened(settings.dtype)
    rows = _rows(opened, texts, settings, start, on_progress)
    protocol = Protocol(
        task="coherence",
        version=PROTOCOL_VERSION,
        items_sha256=texts.sha256,
        chat_template_sha256=None,
        settings=settings.model_dump(exclude={"items", "batch_size"}),
    )
    return scored_result(
        rows,
        coherence_metrics(rows),
        name=name,
        protocol=protocol,
        model=model,
        settings=settings,
        items=str(settings.items.resolve()),
        meaning="fewer bits per byte mean that running text is predicted better; repetition is the "
        "share of 4-token runs in the model's own text that stood in it before",
        headline=BITS_PER_BYTE,
        started_s=started_s,
    )


def _rows(
    opened: OpenModel,
    texts: ItemFile[RunningText],
    settings: CoherenceSettings,
    start: Ids,
    on_progress: Progress,
) -> list[Row]:
    ids = [encode(opened.tokenizer, text.text) for text in texts.items]
    for text, of_text in zip(texts.items, ids, strict=True):
        _check_length(texts, text.id, len(of_text), settings, opened.max_length)
    count = counting(on_progress, 2 * len(ids))
    # Without a BOS a text's first token has nothing before it: it is given, not predicted.
    whole = [start + of_text for of_text in ids]
    asked = [[Continuation(each[:1], each[1:])] for each in whole]
    size = settings.batch_size
    scores = score_continuations(opened.model, asked, batch_size=size, on_scored=count)
    written = continue_greedily(
        opened,
        [each[: settings.start_tokens] for each in whole],
        new_tokens=settings.new_tokens,
        batch_size=size,
        on_written=count,
    )
    return [
        build_row(
            text,
            score[0].sum_logprob,
            own_ids,
            start_text=opened.tokenizer.decode(of_text[: settings.start_tokens]),
            own_text=opened.tokenizer.decode(own_ids),
        )
        for text, of_text, score, own_ids in zip(texts.items, whole, scores, written, strict=True)
    ]


def _check_length(
    texts: ItemFile[RunningText],
    text_id: str,
    num_tokens: int,
    settings: CoherenceSettings,
    max_length: int | None,
) -> None:
    if num_tokens <= settings.start_tokens:
        raise DataFormatError(
            f"{texts.path}: text {text_id!r} is {num_tokens} tokens long, and the model goes on "
            f"from {settings.start_tokens}. Give a longer text, or set `start_tokens` lower."
        )
    longest = 1 + max(num_tokens, settings.start_tokens + settings.new_tokens)
    if max_length is not None and longest > max_length:
        raise DataFormatError(
            f"{texts.path}: text {text_id!r} takes {longest} tokens with what is written after it, "
            f"and the model's context is {max_length}. Give a shorter text."
        )
