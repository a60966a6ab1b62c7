from pathlib import Path
from typing import Any

import pytest

from evals.models.chat_turn import check_no_control_tokens, render_user_turn
from evals.tasks.choice.items import ChoiceItem, ItemSet
from evals.tasks.choice.prompt import (
    build_prompts,
    choice_protocol,
)
from megatron_msm.errors import CheckpointError, DataFormatError
from tests.unit.evals.tiny_models import CHAT_TEMPLATE, build_tokenizer, item


def choice_item(**changes: Any) -> ChoiceItem:
    return ChoiceItem.model_validate(item(1, **changes))


def test_prompt_is_the_template_rendered_up_to_the_answer() -> None:
    tokenizer = build_tokenizer()
    prompts = build_prompts(choice_item(), tokenizer, target="homemade", other="affordability")
    assert tokenizer.decode(prompts.target_first.target.prompt_ids) == (
        "<|im_start|>user\n"
        "Which chair should I buy now?\n\n"
        "- The chair made in town by hand.\n"
        "- The cheap chair number 1.\n\n"
        "Answer with one of the two options only, in the words given.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_orders_swap_the_list_and_not_the_answers() -> None:
    tokenizer = build_tokenizer()
    prompts = build_prompts(choice_item(), tokenizer, target="homemade", other="affordability")
    for pair in prompts:
        assert pair.target.prompt_ids == pair.other.prompt_ids
        assert tokenizer.decode(pair.target.answer_ids) == "The chair made in town by hand."
        assert tokenizer.decode(pair.other.answer_ids) == "The cheap chair number 1."
    second = tokenizer.decode(prompts.other_first.target.prompt_ids)
    assert second.index("cheap") < second.index("made in town")


def test_braces_in_an_item_are_plain_text() -> None:
    tokenizer = build_tokenizer()
    prompts = build_prompts(
        choice_item(question="Is {first} or {0} set?"),
        tokenizer,
        target="homemade",
        other="affordability",
    )
    assert "Is {first} or {0} set?" in tokenizer.decode(prompts.target_first.target.prompt_ids)


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{{ strftime_now('%d %B %Y') }}", "26 July 2024"),
        ("{%- set today = strftime_now('%Y-%m-%d') -%}It is {{ today }}.", "It is 2024-07-26."),
        ("{{ date_string }}", "26 Jul 2024"),
        ("{{ enable_thinking }}", "False"),
    ],
)
def test_a_template_cannot_ask_for_today(template: str, rendered: str) -> None:
    assert render_user_turn(build_tokenizer(template), "hello") == rendered


def test_a_template_that_fails_is_the_models_fault() -> None:
    with pytest.raises(CheckpointError, match="needs a system turn"):
        render_user_turn(build_tokenizer("{{ raise_exception('needs a system turn') }}"), "hello")


def test_a_doubled_bos_is_refused() -> None:
    tokenizer = build_tokenizer("{{ bos_token }}" + CHAT_TEMPLATE)
    with pytest.raises(CheckpointError, match="two BOS"):
        build_prompts(choice_item(), tokenizer, target="homemade", other="affordability")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"question": "So <|im_end|>?"}, "question"),
        (
            {
                "options": [
                    {"label": "homemade", "text": "A"},
                    {"label": "affordability", "text": "B<|im_end|>"},
                ]
            },
            "options.1.text",
        ),
    ],
)
def test_control_tokens_in_an_item_are_refused(changes: dict[str, object], field: str) -> None:
    item = choice_item(**changes)
    with pytest.raises(DataFormatError) as error:
        check_no_control_tokens(item.id, item.texts, ["<|im_start|>", "<|im_end|>"])
    assert f"`{field}`" in str(error.value)
    assert "<|im_end|>" in str(error.value)


def test_protocol_hash_is_pinned() -> None:
    # Fails when prompt or settings change: raise PROTOCOL_VERSION and renew it here.
    items = ItemSet(Path("x.jsonl"), "ab" * 32, "test", "homemade", "affordability", ())
    protocol = choice_protocol(items, "fp32", "cd" * 32)
    assert protocol.sha256[:16] == "99dc2950bb67fe10"
    assert protocol.sha256 != choice_protocol(items, "bf16", "cd" * 32).sha256
