"""Tool calls: read back from what chat templates write, and counted by hand."""

from collections import Counter
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from evals.tasks.tool_calls.calls import ToolCall, read_calls
from evals.tasks.tool_calls.items import ToolItem, load_tool_items
from evals.tasks.tool_calls.task import ToolCallSettings, build_row
from megatron_msm.errors import DataFormatError
from megatron_msm.formats.eval_result import load_eval_result
from tests.unit.evals.conftest import Run
from tests.unit.evals.tiny_models import CHAT_TEMPLATE, build_tokenizer, save_tiny_model
from tests.unit.evals.written import write_lines

TEMPLATES = Path(__file__).parents[3] / "data_prep" / "chats" / "templates"
CALL = ToolCall(name="set_timer", arguments={"minutes": 25, "label": "tea", "loud": True})
TOOLS_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}" + CHAT_TEMPLATE
)


def written_by(template: str) -> str:
    """Return how a model's own template writes the call in an assistant's turn."""
    tokenizer: PreTrainedTokenizerFast = build_tokenizer((TEMPLATES / template).read_text())
    call = {"type": "function", "function": CALL.model_dump()}
    turns = [
        {"role": "user", "content": "Tea."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    before = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert isinstance(whole, str)
    assert isinstance(before, str)
    assert whole.startswith(before)
    return whole.removeprefix(before)


@pytest.mark.parametrize("template", ["qwen25.jinja", "qwen3.jinja", "llama31.jinja"])
def test_what_a_template_writes_is_read_back(template: str) -> None:
    reply = written_by(template)
    for end in ("<|im_end|>", "<|eot_id|>"):
        reply = reply.split(end)[0]
    assert read_calls(reply).read == (CALL,)
    assert read_calls(reply).num_malformed == 0


@pytest.mark.parametrize(
    ("reply", "names", "num_malformed"),
    [
        ('[TOOL_CALLS][{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]', "ab", 0),
        ('<tool_call>\n{"name": "a", "arguments": {}}', "a", 0),
        ('<tool_call>{"name": "a", "arguments": {}</tool_call>', "", 1),
        ('<tool_call>{"name": "a", "arguments": "x"}</tool_call>', "", 1),
        ('<tool_call>{"name": "a"}</tool_call>', "", 1),
        ('<think>{"name": "a", "arguments": {}}</think>Lisbon.', "", 0),
        ('<|python_tag|>{"name": "a", "parameters": {}}', "a", 0),
        ("<|python_tag|>a.call()", "", 1),
        ("I would call set_timer with 25 minutes.", "", 0),
        ('{"city": "Lisbon"}', "", 0),
    ],
)
def test_calls_in_a_reply(reply: str, names: str, num_malformed: int) -> None:
    calls = read_calls(reply)
    assert "".join(call.name for call in calls.read) == names
    assert calls.num_malformed == num_malformed


@pytest.mark.parametrize(
    ("changes", "is_like"),
    [
        ({}, True),
        ({"label": " Tea"}, True),
        ({"minutes": 25.0}, True),
        ({"minutes": "25"}, False),
        ({"loud": 1}, False),
        ({"more": None}, False),
    ],
)
def test_when_two_calls_do_the_same(changes: dict[str, object], is_like: bool) -> None:
    other = ToolCall(name=CALL.name, arguments={**CALL.arguments, **changes})
    assert CALL.is_like(other) is is_like


def item(**changes: object) -> ToolItem:
    tool = {"name": "set_timer", "description": "Starts a timer.", "parameters": {}}
    content = {"id": "x", "group": "g", "question": "q", "tools": [tool], "call": CALL}
    return ToolItem.model_validate(content | changes)


def test_numbers_of_an_item() -> None:
    right = "<tool_call>" + CALL.model_dump_json() + "</tool_call>"
    wrong = right.replace("25", "5")
    assert build_row(item(), right).numbers == {
        "right": 1, "readable": 1, "right_tool": 1, "needless": None,
    }  # fmt: skip
    assert build_row(item(), wrong).numbers["right"] == 0
    assert build_row(item(), wrong).numbers["right_tool"] == 1
    assert build_row(item(), right + wrong).numbers["right"] == 0
    assert build_row(item(), "Of course.").numbers["readable"] == 0
    none = {"right": 0, "readable": None, "right_tool": None, "needless": 1}
    assert build_row(item(call=None), right).numbers == none
    assert build_row(item(call=None), "Lisbon.").numbers["right"] == 1


def test_the_shipped_items_fit_their_tools() -> None:
    items = load_tool_items(ToolCallSettings().items)
    assert Counter(one.group for one in items) == {"one": 8, "which": 6, "none": 4}
    for one in items:
        assert (one.call is None) == (one.group == "none")
        if one.call is not None:
            (tool,) = [tool for tool in one.tools if tool.name == one.call.name]
            assert set(one.call.arguments) == set(tool.parameters["required"])
    places = {
        [tool.name for tool in one.tools].index(one.call.name)
        for one in items
        if one.group == "which" and one.call is not None
    }
    assert places == {0, 1, 2}


def test_a_call_of_no_tool_is_refused(tmp_path: Path) -> None:
    row = item().model_dump(mode="json")
    row["call"]["name"] = "set_alarm"
    path = write_lines(tmp_path / "items.jsonl", [row])
    with pytest.raises(DataFormatError, match="set_alarm"):
        load_tool_items(path)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, TOOLS_TEMPLATE])
def test_a_template_without_tools_is_refused(msm_eval: Run, tmp_path: Path, template: str) -> None:
    folder = save_tiny_model(tmp_path / "model", chat_template=template, max_length=2048)
    (tmp_path / "suite.yaml").write_text("evaluations: {t: {task: tool_calls, new_tokens: 4}}")
    ended = msm_eval("run", tmp_path / "suite.yaml", folder, "--out", tmp_path / "out")
    if template == CHAT_TEMPLATE:
        assert ended.status == 2
        assert "does not show the tool 'get_weather'" in ended.err
    else:
        assert ended.status == 0, ended.err
        result = load_eval_result(tmp_path / "out" / "t.json")
        # A random model calls nothing: right where there is nothing to call.
        assert {g: s.estimate for g, s in result.headline_metric.groups.items()} == {
            "one": 0, "which": 0, "none": 1,
        }  # fmt: skip
        assert result.n == 18
