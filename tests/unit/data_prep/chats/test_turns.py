"""Where turns end, what may not vanish from them, and how chats are spelled for their template.

Each template here has the structure of a real family that was once masked wrongly.
"""

from pathlib import Path
from typing import Any

import orjson
import pytest

from data_prep.chats.encoders import encoder_for
from data_prep.reading.records import RejectLineError
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.manifest import read_manifest
from megatron_msm.formats.tokenizer_files import read_tokenizer_files
from tests.unit.data_prep.chats.chat_cases import TODAY, as_read, encode
from tests.unit.data_prep.chats.test_chat_shapes import reasons, rows_of
from tests.unit.data_prep.prep_cases import prepare_talks, write_lines
from tests.unit.data_prep.tiny_tokenizer import CHATML, CHATML_TOKENS, write_tokenizer

USER = {"role": "user", "content": "Price?"}
CALL: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"function": {"name": "get_price", "arguments": {"cheese": "brie"}}}],
}
RESULT = {"role": "tool", "content": "SECRET 3 euros"}
ANSWER = {"role": "assistant", "content": "It costs three."}
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
OPEN = "<|im_start|>{{ m.role }}\n"


def folder_of(root: Path, body: str, *, special: tuple[str, ...] = CHATML_TOKENS) -> Path:
    """Write a tokenizer whose template renders each message `m` with `body`."""
    template = "{% for m in messages %}" + body + "{% endfor %}" + PROMPT
    return write_tokenizer(root / "t", special=special, template=template)


def encoded(folder: Path, messages: list[dict[str, Any]], **options: Any) -> list[str]:
    """Return the trained texts of a conversation of which the last turn alone may carry loss."""
    files = read_tokenizer_files(folder)
    encoder = encoder_for(files, str(files.chat_template), today=TODAY, **options)
    trained = [False] * (len(messages) - 1) + [True]
    chat = encoder.encode(as_read(*messages), trained)
    ids = chat.tokens[chat.mask.astype(bool)].tolist()
    return [encoder._tokenizer.decode(ids, skip_special_tokens=False)]


def test_a_template_that_ignores_tool_calls_trains_no_empty_reply(chatml_folder: Path) -> None:
    with pytest.raises(RejectLineError, match=r"leaves out messages\[1\].tool_calls\[0\].function"):
        encode(chatml_folder, [USER, {**CALL, "content": ""}])


def test_the_tools_output_is_not_the_assistants(tmp_path: Path) -> None:
    """As DeepSeek-V3.1: a call is ended only where the conversation stops at it."""
    call = "<call>{{ m.tool_calls[0].function | tojson }}"
    folder = folder_of(
        tmp_path,
        OPEN + "{% if m.tool_calls %}" + call + "{% if loop.last %}<|im_end|>{% endif %}"
        "{% else %}{{ m.content }}{% if m.role != 'tool' %}<|im_end|>{% endif %}{% endif %}\n",
    )
    assert encoded(folder, [USER, CALL])[0].endswith('"brie"}}<|im_end|>')
    with pytest.raises(RejectLineError, match=r"as history otherwise.*--turns last"):
        encode(folder, [USER, CALL, RESULT, ANSWER])


def test_all_tokens_that_the_template_writes_behind_a_turn_are_trained(tmp_path: Path) -> None:
    body = OPEN + "{{ m.content }}<|im_end|>{% if m.role == 'assistant' %}<|endoftext|>{% endif %}"
    folder = folder_of(tmp_path, body, special=("<|im_start|>", "<|im_end|>", "<|endoftext|>"))
    assert encode(folder, [USER, ANSWER]).trained == ["It costs three.<|im_end|><|endoftext|>"]


def test_a_token_behind_the_conversation_is_not_needed_in_history(tmp_path: Path) -> None:
    """As Phi-3, whose turns end with <|end|>, and its conversations with the eos token too."""
    body = OPEN + "{{ m.content }}<|im_end|>\n{% if loop.last and not add_generation_prompt %}"
    body += "<|endoftext|>{% endif %}"
    folder = folder_of(tmp_path, body, special=("<|im_start|>", "<|im_end|>", "<|endoftext|>"))
    with pytest.raises(RejectLineError, match="on which generation does not stop"):
        encode(folder, [USER, ANSWER, USER, ANSWER])
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    files = read_tokenizer_files(folder)
    encoder = encoder_for(files, str(files.chat_template), today=TODAY)
    chat = encoder.encode(as_read(USER, ANSWER, USER, ANSWER), [False, True, False, True])
    assert chat.mask.sum() == 2 * (len(files_ids(encoder, "It costs three.")) + 1) + 2


def files_ids(encoder: Any, text: str) -> list[int]:
    ids: list[int] = encoder._tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_that_the_template_drops_is_a_reject(chatml_folder: Path, name: str) -> None:
    with pytest.raises(RejectLineError, match=rf"leaves out messages\[1\].{name}, or writes"):
        encode(chatml_folder, [USER, {**ANSWER, name: "Let me look it up."}])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param("{{ f.arguments | tojson }}", '{"cheese": "brie"}', id="object"),
        pytest.param("{{ 'a' + f.arguments }}", 'a{"cheese": "brie"}', id="text"),
        pytest.param("{{ f.arguments }}", '{"cheese": "brie"}', id="not as Python prints it"),
    ],
)
def test_arguments_are_spelled_as_the_template_needs_them(
    tmp_path: Path, written: str, expected: str
) -> None:
    call = "{% set f = m.tool_calls[0].function %}{{ f.name }}" + written
    body = OPEN + "{% if m.tool_calls %}" + call + "{% else %}{{ m.content }}{% endif %}<|im_end|>"
    assert encoded(folder_of(tmp_path, body), [USER, CALL]) == [f"get_price{expected}<|im_end|>"]


def test_no_content_is_not_the_word_none(tmp_path: Path) -> None:
    body = OPEN + "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}"
    folder = folder_of(tmp_path, body + "{% endfor %}<|im_end|>")
    assert encoded(folder, [USER, CALL])[0].startswith('{"name": "get_price"')


def test_contents_in_parts_for_templates_that_want_them(tmp_path: Path) -> None:
    body = OPEN + "{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>"
    folder = folder_of(tmp_path, body)
    assert encode(folder, [USER, ANSWER]).trained == ["It costs three.<|im_end|>"]


def test_own_markup_is_tokens_and_that_of_others_is_text(tmp_path: Path) -> None:
    template = CHATML + "{# <tool_call> #}"
    folder = write_tokenizer(tmp_path / "t", ordinary=("<tool_call>",), template=template)
    said = '<tool_call>\n{"name": "f"}'
    chat = encode(folder, [{**USER, "content": f"say {said}"}, {**ANSWER, "content": said}])
    token = read_tokenizer_files(folder).added_tokens["<tool_call>"]
    assert chat.ids.count(token) == 1
    assert chat.trained == [f"{said}<|im_end|>"]


UNENDED = "{% if m.role == 'assistant' %}<|im_start|>assistant\n{% else %}<|user|>{% endif %}"
UNENDED += "{{ m.content }}"


def test_turns_that_end_in_the_next_message(tmp_path: Path) -> None:
    """As GLM-4: a turn has no end of its own, and the model stops on the user's opener."""
    folder = folder_of(tmp_path, UNENDED, special=(*CHATML_TOKENS, "<|user|>"))
    with pytest.raises(RejectLineError, match=r"without a special token; --end-of-turn TOKEN"):
        encode(folder, [USER, ANSWER])
    files = read_tokenizer_files(folder)
    encoder = encoder_for(files, str(files.chat_template), today=TODAY, end_of_turn="<|user|>")
    chat = encoder.encode(as_read(USER, ANSWER, USER, ANSWER), [False, True, False, True])
    assert chat.text.endswith("It costs three.<|user|>")
    assert chat.mask.tolist()[-1] == 1
    assert chat.tokens[chat.mask.astype(bool)].tolist().count(files.added_tokens["<|user|>"]) == 2


OPENED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{{ m.content.split('</think>')[-1].lstrip() }}<|im_end|>{% else %}<|im_start|>user\n"
    "{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def test_turns_apart_are_written_behind_the_prompt(tmp_path: Path) -> None:
    """As R1: reasoning is opened by the generation prompt, and left out of every rendered turn."""
    folder = write_tokenizer(tmp_path / "t", template=OPENED)
    thoughtful = [
        USER,
        {"role": "assistant", "content": "<think>\nCheap one.\n</think>\n\nThree."},
        {"role": "user", "content": "And brie?"},
        {"role": "assistant", "content": "<think>\nDear one.\n</think>\n\nFour."},
    ]
    source = write_lines(tmp_path / "c.jsonl", [{"messages": thoughtful}])
    prepare_talks([source], folder, tmp_path / "a", turns="last")
    assert rows_of(tmp_path / "a") == [
        "<|im_start|>user\nPrice?<|im_end|><|im_start|>assistant\n<think>\n"
        "[[Cheap one.\n</think>\n\nThree.<|im_end|>",
        "<|im_start|>user\nPrice?<|im_end|><|im_start|>assistant\nThree.<|im_end|>"
        "<|im_start|>user\nAnd brie?<|im_end|><|im_start|>assistant\n<think>\n"
        "[[Dear one.\n</think>\n\nFour.<|im_end|>",
    ]
    counts = read_manifest(tmp_path / "a").counts
    assert (counts.lines, counts.kept, counts.extra_rows) == (1, 2, 1)


def test_a_refusal_names_the_argument_that_would_let_it_pass(tmp_path: Path) -> None:
    opened = "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
    template = CHATML.replace(
        "{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n' }}" + opened
    )
    folder = write_tokenizer(tmp_path / "t", template=template)
    good = {"messages": [USER, {"role": "assistant", "content": "<think>\nso\n</think>yes"}]}
    source = write_lines(tmp_path / "c.jsonl", [good, {"messages": [USER, ANSWER]}])
    prepare_talks([source], folder, tmp_path / "a", max_rejects=1)
    assert reasons(tmp_path / "a")[0].endswith(
        "It passes with --template-arg enable_thinking=false"
    )


def test_a_key_that_nobody_reads_is_refused_by_name(tmp_path: Path, chatml_folder: Path) -> None:
    lines = [
        {"messages": [USER, {**ANSWER, "thought_signature": "x"}]},
        {"messages": [USER, ANSWER]},
    ]
    source = write_lines(tmp_path / "c.jsonl", lines)
    prepare_talks([source], chatml_folder, tmp_path / "a", max_rejects=1)
    assert "messages[1].thought_signature is read by nobody" in reasons(tmp_path / "a")[0]


def test_changes_are_counted_in_the_manifest(tmp_path: Path, chatml_folder: Path) -> None:
    lines = [
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": "a", "completion": "b"},
        {"messages": [USER, ANSWER]},
    ]
    source = write_lines(tmp_path / "c.jsonl", lines)
    prepared = prepare_talks([source], chatml_folder, tmp_path / "a")
    assert prepared.manifest.counts.changes == {
        "ShareGPT conversations read as messages": 1,
        "prompt and completion read as messages": 1,
    }
    assert rows_of(tmp_path / "a")[0].endswith("assistant\n[[b<|im_end|>]]\n")
    assert orjson.loads(Path(f"{tmp_path / 'a'}.manifest.json").read_bytes())["counts"]["changes"]


def test_an_end_on_which_generation_goes_on_is_refused(tmp_path: Path) -> None:
    """As a base model's tokenizer, whose eos_token is not what its ChatML turns end with."""
    config = {"eos_token": "<|endoftext|>"}
    folder = write_tokenizer(tmp_path / "t", template=CHATML, config=config)
    line = {"messages": [USER, ANSWER]}
    source = write_lines(tmp_path / "c.jsonl", [line])
    with pytest.raises(DataFormatError, match=r"does not stop(.|\n)*--end-of-turn TOKEN"):
        prepare_talks([source], folder, tmp_path / "a")
    prepare_talks([source], folder, tmp_path / "b", end_of_turn="<|im_end|>")
    (folder / "generation_config.json").write_text('{"eos_token_id": [2]}')
    prepare_talks([source], folder, tmp_path / "c")
    assert rows_of(tmp_path / "b") == rows_of(tmp_path / "c")
