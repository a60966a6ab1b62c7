"""Tool calls as an evaluation of a suite; nothing is sampled, and no judge is needed.

    tools: {task: tool_calls}

18 questions are shipped: one tool that fits, one of several, none. The chat template shows the
tools and the model answers greedily; a template that shows none is refused, since every reply under
it would look like a model that has forgotten how to call.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from evals.models.chat_turn import CHAT_SETTINGS, check_no_control_tokens, render_tools
from evals.models.continuations import Ids
from evals.models.greedy import continue_greedily
from evals.models.hf import OpenModel, load_tokenizer
from evals.models.local import LocalModel
from evals.statistics.summaries import metric_of, rate_summary
from evals.tasks.scoring import counting, scored_result
from evals.tasks.task import Progress, Work
from evals.tasks.tool_calls.calls import read_calls
from evals.tasks.tool_calls.items import ToolItem, load_tool_items
from megatron_msm.config.section import PositiveInt, Section
from megatron_msm.formats.eval_result import EvalResult, Metric, Protocol, Row
from megatron_msm.formats.files import sha256_of_json

VERSION = 1
"""Raise it when prompts or scoring change: results of different versions are not compared."""

HEADLINE = "right"
TITLES = {
    HEADLINE: "right",
    "readable": "readable call",
    "right_tool": "right tool",
    "needless": "needless call",
}


class ToolCallSettings(Section):
    """Tool calls in a suite."""

    items: Path = Path(__file__).parent / "items.jsonl"
    """Items (JSONL): id, group, question, tools, call."""
    new_tokens: PositiveInt = 128
    """Limit of a reply."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Number format of the weights."""
    batch_size: PositiveInt = 8
    """Questions that are computed together."""


def prepare_tool_calls(settings: ToolCallSettings, model: LocalModel, name: str) -> Work:
    """Read the items, and see that the chat template shows their tools.

    Raises:
        MsmError: An input is broken, or the template shows no tools.
    """
    files = model.chat_files
    items = load_tool_items(settings.items)
    tokenizer = load_tokenizer(model.folder)
    for item in items:
        check_no_control_tokens(item.id, {"question": item.question}, files.control_tokens)
        _rendered(tokenizer, item)
    return partial(_ask, settings, items, model, name)


def _rendered(tokenizer: object, item: ToolItem) -> Ids:
    return render_tools(tokenizer, item.question, [tool.model_dump() for tool in item.tools])


def _ask(
    settings: ToolCallSettings,
    items: Sequence[ToolItem],
    model: LocalModel,
    name: str,
    on_progress: Progress,
) -> EvalResult:
    started, opened = time.monotonic(), model.opened(settings.dtype)
    rows = _rows(opened, items, settings, on_progress)
    protocol = Protocol(
        task="tool-calls",
        version=VERSION,
        items_sha256=sha256_of_json([item.model_dump(mode="json") for item in items]),
        chat_template_sha256=opened.record.chat_template_sha256,
        settings={**CHAT_SETTINGS, "new_tokens": settings.new_tokens, "dtype": settings.dtype},
    )
    return scored_result(
        rows,
        tool_call_metrics(rows),
        name=name,
        protocol=protocol,
        model=model,
        settings=settings,
        items=str(settings.items.resolve()),
        meaning="the share of questions with the right call, or with none where none fits: higher "
        "is better",
        headline=HEADLINE,
        started_s=started,
    )


def _rows(
    opened: OpenModel, items: Sequence[ToolItem], settings: ToolCallSettings, on_progress: Progress
) -> list[Row]:
    written = continue_greedily(
        opened,
        [_rendered(opened.tokenizer, item) for item in items],
        new_tokens=settings.new_tokens,
        batch_size=settings.batch_size,
        on_written=counting(on_progress, len(items)),
    )
    replies = [opened.tokenizer.decode(ids, skip_special_tokens=False) for ids in written]
    return [build_row(item, reply) for item, reply in zip(items, replies, strict=True)]


def build_row(item: ToolItem, reply: str) -> Row:
    """Return an item's numbers; None for what its kind of question cannot tell."""
    calls = read_calls(reply)
    wanted, is_any = item.call, bool(calls.read or calls.num_malformed)
    numbers: dict[str, float | None] = dict.fromkeys(TITLES)
    if wanted is None:
        numbers |= {HEADLINE: float(not is_any), "needless": float(is_any)}
    else:
        is_right = len(calls.read) == 1 and not calls.num_malformed
        numbers |= {
            HEADLINE: float(is_right and calls.read[0].is_like(wanted)),
            "readable": float(bool(calls.read)),
            "right_tool": float(any(call.name == wanted.name for call in calls.read)),
        }
    details = {
        "question": item.question,
        "wanted": None if wanted is None else wanted.model_dump(),
        "reply": reply,
        "verdict": "right" if numbers[HEADLINE] else "wrong",
    }
    return Row(id=item.id, group=item.group, cluster=item.id, numbers=numbers, details=details)


def tool_call_metrics(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """Return the metrics over all items and by group."""
    return tuple(
        metric_of(
            rows,
            name,
            rate_summary,
            title=title,
            unit="share",
            better="lower" if name == "needless" else "higher",
        )
        for name, title in TITLES.items()
    )
