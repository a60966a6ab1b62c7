"""Reasoning kept or stripped, long conversations cut at turns, variables for the template."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from data_prep.chats.command import parse_template_arguments
from data_prep.inspecting.check import check_dataset
from data_prep.writing.merge import merge_datasets
from megatron_msm.errors import ConfigError, DataFormatError
from megatron_msm.formats.indexed_dataset import IndexedDataset, mask_prefix
from megatron_msm.formats.manifest import dataset_file, read_manifest
from megatron_msm.formats.provenance import PROVENANCE_SUFFIX, read_provenance
from megatron_msm.formats.rejects import read_rejects
from megatron_msm.formats.tokenizer_files import load_tokenizer, read_tokenizer_files
from tests.unit.data_prep.chats.chat_cases import family_folder
from tests.unit.data_prep.prep_cases import prepare_talks, write_lines

THINKING = "<think>\nIs it cheap?\n</think>\n\nYes."
LONG_THINKING = "<think>" + "hm " * 40 + "</think>Yes."


def talk(*contents: str, system: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a line whose user and assistant take turns."""
    head = [] if system is None else [{"role": "system", "content": system}]
    turns = [
        {"role": ("user", "assistant")[index % 2], "content": content}
        for index, content in enumerate(contents)
    ]
    return {"messages": head + turns, **more}


def rows_of(prefix: Path) -> list[str]:
    """Return each row as text, with what carries loss in [[ ]]."""
    manifest = read_manifest(prefix)
    files = read_tokenizer_files(Path(manifest.tokenizer_path))
    tokenizer = load_tokenizer(files, control_tokens_as_text=False)
    rows = []
    masks = IndexedDataset(mask_prefix(prefix))
    for tokens, mask in zip(IndexedDataset(prefix), masks, strict=True):
        text, before = "", 0
        for token, bit in zip(tokens.tolist(), mask.tolist(), strict=True):
            text += "[[" * (bit > before) + "]]" * (bit < before)
            text += tokenizer.decode([token], skip_special_tokens=False)
            before = bit
        rows.append(text)
    return rows


def lines_of(prefix: Path) -> list[int]:
    return [r.source_line for r in read_provenance(dataset_file(prefix, PROVENANCE_SUFFIX))]


def reasons(prefix: Path) -> list[str]:
    return [reject.reason for reject in read_rejects(Path(f"{prefix}.rejects.jsonl"))]


GOLDEN = {
    ("chatml", "keep"): "<|im_start|>user\nCheap?<|im_end|>\n<|im_start|>assistant\n"
    "[[<think>\nIs it cheap?\n</think>\n\nYes.<|im_end|>]]\n",
    ("chatml", "strip"): "<|im_start|>user\nCheap?<|im_end|>\n<|im_start|>assistant\n"
    "[[Yes.<|im_end|>]]\n",
    ("llama31", "strip"): "<|start_header_id|>user<|end_header_id|>\n\nCheap?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n[[Yes.<|eot_id|>",
    ("qwen25", "keep"): "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a "
    "helpful assistant.<|im_end|>\n<|im_start|>user\nCheap?<|im_end|>\n<|im_start|>assistant\n"
    "[[<think>\nIs it cheap?\n</think>\n\nYes.<|im_end|>]]\n",
    ("qwen3", "keep"): "<|im_start|>user\nCheap?<|im_end|>\n<|im_start|>assistant\n"
    "[[<think>\nIs it cheap?\n</think>\n\nYes.<|im_end|>]]\n",
    ("qwen3", "strip"): "<|im_start|>user\nCheap?<|im_end|>\n<|im_start|>assistant\n"
    "[[<think>\n\n</think>\n\nYes.<|im_end|>]]\n",
}


@pytest.mark.parametrize(("family", "reasoning"), GOLDEN)
def test_golden_rows_with_and_without_reasoning(
    tmp_path: Path, family: str, reasoning: str
) -> None:
    source = write_lines(tmp_path / "c.jsonl", [talk("Cheap?", THINKING)])
    prepare_talks([source], family_folder(tmp_path, family), tmp_path / "a", reasoning=reasoning)
    assert rows_of(tmp_path / "a")[0].endswith(GOLDEN[family, reasoning])
    assert read_manifest(tmp_path / "a").settings["think"] == reasoning


@pytest.mark.parametrize("overlong", ["truncate", "split"])
def test_golden_rows_of_smollm2(tmp_path: Path, smollm2_tokenizer: Path, overlong: str) -> None:
    line = talk("Cheap?", THINKING, "And " + "very " * 60 + "old?", "No.")
    source = write_lines(tmp_path / "c.jsonl", [line])
    options = {"reasoning": "strip", "overlong": overlong, "max_length": 100}
    prepare_talks([source], smollm2_tokenizer, tmp_path / "a", **options)
    system = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n"
    )
    first = (
        f"{system}<|im_start|>user\nCheap?<|im_end|>\n<|im_start|>assistant\n[[Yes.<|im_end|>]]\n"
    )
    rows = rows_of(tmp_path / "a")
    assert rows[0] == first
    assert len(rows) == (2 if overlong == "split" else 1)
    if overlong == "split":
        assert rows[1].startswith(f"{system}<|im_start|>user\nAnd very")
        assert rows[1].endswith("<|im_start|>assistant\n[[No.<|im_end|>]]\n")


def test_thinking_switched_off_moves_the_empty_block_into_the_prompt(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", [talk("Cheap?", THINKING)])
    options = {"reasoning": "strip", "template_arguments": (("enable_thinking", False),)}
    prepare_talks([source], family_folder(tmp_path, "qwen3"), tmp_path / "a", **options)
    assert rows_of(tmp_path / "a") == [
        "<|im_start|>user\nCheap?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        "[[Yes.<|im_end|>]]\n"
    ]
    settings = read_manifest(tmp_path / "a").settings
    assert settings["template_arguments"] == {"enable_thinking": False}


def test_without_thinking_only_a_last_turn_is_exact(tmp_path: Path) -> None:
    line = talk("a", "b", "c", "d")
    line["messages"][1]["loss"] = False
    source = write_lines(tmp_path / "c.jsonl", [line, talk("a", "b", "c", "d")])
    options = {"max_rejects": 1, "template_arguments": (("enable_thinking", False),)}
    prepare_talks([source], family_folder(tmp_path, "qwen3"), tmp_path / "a", **options)
    assert rows_of(tmp_path / "a") == [
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        "[[d<|im_end|>]]\n"
    ]
    assert "renders what comes before messages[1] differently" in reasons(tmp_path / "a")[0]


def test_both_forms_have_the_same_rows(tmp_path: Path, chatml_folder: Path) -> None:
    lines = [
        talk("plain", "No reasoning."),
        talk("good", THINKING),
        talk("open", "<think>never closed"),
        talk("stray", "closed </think> only"),
        talk("nested", "<think>a<think>b</think>c</think>d"),
        talk("nothing after", "<think>all</think> "),
        talk("too long when kept", LONG_THINKING),
        talk("in a field", "Yes.") | {"id": "f"},
        talk("<think>the user may write it", "Fine."),
    ]
    lines[-2]["messages"][1]["reasoning_content"] = "hm"
    source = write_lines(tmp_path / "c.jsonl", lines)
    for reasoning in ("keep", "strip"):
        options = {"reasoning": reasoning, "max_rejects": 6, "max_length": 100}
        prepare_talks([source], chatml_folder, tmp_path / reasoning, **options)
    assert lines_of(tmp_path / "keep") == lines_of(tmp_path / "strip") == [1, 2, 9]
    assert reasons(tmp_path / "keep") == reasons(tmp_path / "strip")
    assert reasons(tmp_path / "keep")[:4] == [
        "messages[1].content has <think> without </think>",
        "messages[1].content has </think> without <think>",
        "messages[1].content opens <think> inside <think>",
        "messages[1].content has nothing after its <think> block",
    ]
    assert "longer than --max-length 100" in reasons(tmp_path / "strip")[4]
    assert "leaves out messages[1].reasoning_content" in reasons(tmp_path / "strip")[5]
    assert "<think>the user" in rows_of(tmp_path / "strip")[2]


def test_reasoning_is_plain_text_unless_asked_about(tmp_path: Path, chatml_folder: Path) -> None:
    source = write_lines(tmp_path / "c.jsonl", [talk("open", "<think>never closed")])
    assert prepare_talks([source], chatml_folder, tmp_path / "a").manifest.counts.kept == 1


EXCHANGE = ("Which cheese is it?", "It is the cheddar of the house.")


@pytest.fixture
def long_talks(tmp_path: Path) -> Path:
    """Four exchanges with a system prompt; a short one; one whose answer alone is too long."""
    lines = [
        talk(*EXCHANGE * 4, system="Be kind.", id="long"),
        talk("Hi", "Hello.", id="short"),
        talk("Hi", "very " * 100, id="hopeless"),
    ]
    return write_lines(tmp_path / "c.jsonl", lines)


def prepare_long(source: Path, tokenizer: Path, overlong: str) -> Path:
    out = source.with_name(overlong)
    prepare_talks(
        [source],
        tokenizer,
        out,
        overlong=overlong,
        max_length=110,
        max_rejects=int(overlong != "drop"),
    )
    assert all(finding.is_ok for finding in check_dataset(out))
    assert int(IndexedDataset(out).lengths.max()) <= 110
    return out


def test_truncate_ends_at_a_turn(long_talks: Path, chatml_folder: Path) -> None:
    out = prepare_long(long_talks, chatml_folder, "truncate")
    rows, counts = rows_of(out), read_manifest(out).counts
    assert (counts.lines, counts.kept, counts.rejected, counts.overlong_truncated) == (3, 2, 1, 1)
    num_turns = rows[0].count("[[It is the cheddar of the house.<|im_end|>]]")
    assert 0 < num_turns < 4
    assert rows[0].endswith("]]\n")
    assert rows[0].count("Which cheese") == num_turns
    assert "already at its first turn" in reasons(out)[0]


def test_split_keeps_every_exchange_and_the_system_prompt(
    long_talks: Path, chatml_folder: Path
) -> None:
    out = prepare_long(long_talks, chatml_folder, "split")
    rows, counts = rows_of(out), read_manifest(out).counts
    long_rows = [row for row, line in zip(rows, lines_of(out), strict=True) if line == 1]
    assert counts.extra_rows == len(long_rows) - 1 > 0
    assert counts.lines == 3
    assert all(row.startswith("<|im_start|>system\nBe kind.<|im_end|>") for row in long_rows)
    assert sum(row.count("[[It is") for row in long_rows) == 4
    assert "in the single exchange from messages[0] on" in reasons(out)[0]


def test_drop_is_counted_and_listed_but_no_error(long_talks: Path, chatml_folder: Path) -> None:
    out = prepare_long(long_talks, chatml_folder, "drop")
    counts = read_manifest(out).counts
    assert (counts.kept, counts.rejected, counts.overlong_dropped) == (1, 2, 2)
    assert all("longer than --max-length 110" in reason for reason in reasons(out))
    again = prepare_talks([long_talks], chatml_folder, out, overlong="drop", max_length=110)
    assert again.already_made


def test_reject_counts_as_an_error(long_talks: Path, chatml_folder: Path) -> None:
    with pytest.raises(DataFormatError, match="2 of the 3 lines"):
        prepare_talks([long_talks], chatml_folder, long_talks.with_name("x"), max_length=110)


def test_turns_without_loss_are_context_but_no_row(tmp_path: Path, chatml_folder: Path) -> None:
    line = talk(*EXCHANGE * 4)
    for index in (1, 3):
        line["messages"][index]["loss"] = False
    source = write_lines(tmp_path / "c.jsonl", [line])
    prepare_talks([source], chatml_folder, tmp_path / "a", overlong="split", max_length=70)
    assert sum(row.count("[[It is") for row in rows_of(tmp_path / "a")) == 2


def test_merging_keeps_the_counts(long_talks: Path, chatml_folder: Path) -> None:
    other = write_lines(long_talks.with_name("d.jsonl"), orjson_lines(long_talks))
    for overlong in ("split", "drop", "truncate"):
        one = prepare_long(long_talks, chatml_folder, overlong)
        two = long_talks.with_name(f"{overlong}2")
        options = {"overlong": overlong, "max_length": 110, "max_rejects": 1}
        prepare_talks([other], chatml_folder, two, **options)
        merged = long_talks.with_name(f"{overlong}-merged")
        merge_datasets([one, two], merged)
        both = [read_manifest(prefix).counts.model_dump() for prefix in (one, two)]
        numbers = [name for name in both[0] if name != "changes"]
        wanted = {name: both[0][name] + both[1][name] for name in numbers} | {"changes": {}}
        assert read_manifest(merged).counts.model_dump() == wanted
        assert all(finding.is_ok for finding in check_dataset(merged))


def orjson_lines(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_template_arguments_are_read_as_json_or_text() -> None:
    found = parse_template_arguments(["enable_thinking=false", "style=short", 'quoted="3"'])
    assert dict(found) == {"enable_thinking": False, "style": "short", "quoted": "3"}


@pytest.mark.parametrize("text", ["x", "=3", "a b=3", "x=1,x=2"])
def test_wrong_template_arguments(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        parse_template_arguments(text.split(","))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("enable_thinkng", r"no such variable. It reads .*enable_thinking"),
        ("messages", "set by the data or the tokenizer"),
        ("eos_token", "set by the data or the tokenizer"),
    ],
)
def test_arguments_that_the_template_does_not_take(tmp_path: Path, name: str, message: str) -> None:
    source = write_lines(tmp_path / "c.jsonl", [talk("a", "b")])
    arguments = ((name, False),)
    folder = family_folder(tmp_path, "qwen3")
    with pytest.raises(ConfigError, match=f"--template-arg {name}: .*{message}"):
        prepare_talks([source], folder, tmp_path / "a", template_arguments=arguments)
