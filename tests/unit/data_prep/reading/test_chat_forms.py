"""The forms of conversations: what is read as what, and what is refused."""

from typing import Any

import pytest

from data_prep.reading.chat_forms import read_conversation
from data_prep.reading.records import RejectLineError
from megatron_msm.formats.json_types import JsonObject, JsonValue

USER: JsonObject = {"role": "user", "content": "a"}
ANSWER: JsonObject = {"role": "assistant", "content": "b"}
PLAIN: list[JsonValue] = [USER, ANSWER]
CALL: JsonObject = {
    "id": None,
    "function": {"name": "f", "arguments": {"x": 1, "y": None, "z": [{"w": None}]}},
}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": PLAIN},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"conversations": PLAIN},
        {"prompt": "a", "completion": "b"},
        {"prompt": [USER], "completion": [ANSWER]},
        {"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]},
    ],
    ids=str,
)
def test_the_same_conversation_in_every_form(row: dict[str, Any]) -> None:
    form = read_conversation(row)
    assert form.messages == PLAIN
    assert form.trained == [False, True]


def test_a_field_of_the_users_name() -> None:
    assert read_conversation({"talk": PLAIN}, field="talk").messages == PLAIN
    with pytest.raises(RejectLineError, match="--messages-field"):
        read_conversation({"talk": PLAIN})


def test_turns_of_the_prompt_carry_no_loss() -> None:
    form = read_conversation({"prompt": [USER, ANSWER, USER], "completion": [ANSWER]})
    assert form.trained == [False, False, False, True]


def test_a_system_field_goes_first_unless_there_is_one() -> None:
    assert read_conversation({"system": "s", "messages": PLAIN}).messages[0]["content"] == "s"
    both: JsonObject = {"system": "s", "messages": [{"role": "system", "content": "t"}, *PLAIN]}
    with pytest.raises(RejectLineError, match="keep one of them"):
        read_conversation(both)


@pytest.mark.parametrize(
    ("mark", "carries_loss"),
    [
        ({"loss": False}, False),
        ({"loss": True}, True),
        ({"weight": 0}, False),
        ({"weight": 1.0}, True),
        ({"train": False}, False),
        ({"loss_mask": 1}, True),
        ({"masked": True}, False),
        ({"masked": False}, True),
        ({"weight": 0, "train": False}, False),
    ],
    ids=str,
)
def test_other_tools_marks_of_loss(mark: dict[str, Any], carries_loss: bool) -> None:
    form = read_conversation({"messages": [USER, {**ANSWER, **mark}]})
    assert form.trained == [False, carries_loss]
    assert form.messages == PLAIN, "the template does not see them"


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        ({"weight": 0.5}, "weight is a number"),
        ({"masked": "no"}, "masked is a text"),
        ({"weight": 1, "train": False}, "contradict each other"),
    ],
    ids=str,
)
def test_marks_with_no_meaning(mark: dict[str, Any], reason: str) -> None:
    with pytest.raises(RejectLineError, match=reason):
        read_conversation({"messages": [USER, {**ANSWER, **mark}]})


def test_nulls_that_arrow_added_are_taken_out_and_counted() -> None:
    tools: list[JsonValue] = [
        {"function": {"name": "f", "parameters": {"properties": {"x": {"a": None}}}}}
    ]
    messages: list[JsonValue] = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL], "name": None},
    ]
    form = read_conversation({"messages": messages, "tools": tools})
    assert form.messages[1]["tool_calls"] == [
        {"function": {"name": "f", "arguments": {"x": 1, "z": [{}]}}}
    ]
    assert form.messages[1]["content"] is None, "a template may test it"
    assert form.tools == [{"function": {"name": "f", "parameters": {"properties": {"x": {}}}}}]
    assert form.changes == ("nulls in tool calls or tools taken out",)


def test_json_given_as_text_is_read_once() -> None:
    call: JsonObject = {"function": {"name": "f", "arguments": '{"x": "{\\"y\\": 1}"}'}}
    messages: list[JsonValue] = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]
    form = read_conversation({"messages": messages, "tools": '[{"name": "f"}]'})
    assert form.messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": '{"y": 1}'}
    assert form.tools == [{"name": "f"}]
    broken: JsonObject = {"function": {"name": "f", "arguments": "{x: 1}"}}
    with pytest.raises(RejectLineError, match="a text that is not JSON"):
        read_conversation({"messages": [USER, {**ANSWER, "tool_calls": [broken]}]})
