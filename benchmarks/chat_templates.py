"""What `msm prep chats` makes of real chat templates: exact, refused, or silently wrong.

    python benchmarks/chat_templates.py DIR [--verbose]

DIR holds templates (`*.jinja`). Each is given a small tokenizer that knows the markup it writes,
and every chat of a matrix (tools, reasoning, parts, two turns, ...) is encoded. Every row is then
judged by what shares no code with the encoder: every word of a trained message has to be in its
trained text, no word of anybody else's may be, it has to end in a special token, it has to be what
transformers renders from the generation prompt to the end of the message, and where a template
marks its turns with `{% generation %}`, what transformers makes of the marks has to agree. A row
that fails is WRONG; the exit status is then 1.
"""

import argparse
import datetime
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypedDict

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_prep.chats.encoders import Turns, encoder_for
from data_prep.chats.tokens import ChatEncoder
from data_prep.reading.chat_forms import read_conversation
from data_prep.reading.messages import REASONING_FIELDS, Message
from data_prep.reading.records import RejectLineError
from megatron_msm.errors import ConfigError
from megatron_msm.formats.json_types import JsonObject, JsonValue
from megatron_msm.formats.tokenizer_files import read_tokenizer_files

_BAR = "|\uff5c"
"""DeepSeek's tokens are written with a wide bar."""
_MARKUP = re.compile(
    rf"\[\|\w+\|\]|<[{_BAR}/]?[A-Za-z0-9_{_BAR}▁:.-]+[{_BAR}]?>|\[/?[A-Z_]+\]|<\|[^|\s]+\|>"
)
_ORDINARY = re.compile(r"</?(think|tool_call|tool_response|tools|arg_key|arg_value|function.*)>")
_TODAY = datetime.date(2026, 1, 2)
TOOLS: list[JsonValue] = [
    {
        "type": "function",
        "function": {
            "name": "get_price",
            "description": "Price of a cheese.",
            "parameters": {
                "type": "object",
                "properties": {"cheese": {"type": "string", "description": "Its name."}},
                "required": ["cheese"],
            },
        },
    }
]


def _user(text: str) -> JsonObject:
    return {"role": "user", "content": text}


def _says(text: JsonValue, **more: JsonValue) -> JsonObject:
    return {"role": "assistant", "content": text, **more}


def _call(cheese: str, index: int = 1, *, as_text: bool = False) -> JsonObject:
    named: JsonObject = {"cheese": cheese}
    arguments = json.dumps(named) if as_text else named
    return {
        "id": f"abcdefgh{index}",
        "type": "function",
        "function": {"name": "get_price", "arguments": arguments},
    }


def _result(text: str, index: int = 1) -> JsonObject:
    return {
        "role": "tool",
        "tool_call_id": f"abcdefgh{index}",
        "name": "get_price",
        "content": text,
    }


_ASK, _AGAIN = _user("Uone price?"), _user("Utwo and then?")
_SYSTEM: JsonObject = {"role": "system", "content": "Sys likes cheese."}
_TWICE = [_ASK, _says("Aone answers."), _AGAIN, _says("Atwo answers.")]
_CALLED = [_result("Toolsecret euros"), _says("Aend says so.")]
MATRIX: dict[str, list[JsonObject]] = {
    "plain": [_ASK, _says("Aone answers.")],
    "system": [_SYSTEM, _ASK, _says("Aone answers.")],
    "two turns": _TWICE,
    "two turns, system": [_SYSTEM, *_TWICE],
    "last turn": [_ASK, _says("Aone answers.", loss=False), _AGAIN, _says("Atwo answers.")],
    "reasoning inline": [_ASK, _says("<think>\nRone first.\n</think>\n\nAone answers.")],
    "reasoning_content": [_ASK, _says("Aone answers.", reasoning_content="Rone first.")],
    "reasoning": [_ASK, _says("Aone answers.", reasoning="Rone first.")],
    "thinking": [_ASK, _says("Aone answers.", thinking="Rone first.")],
    "reasoning in history": [
        _ASK,
        _says("<think>\nRone first.\n</think>\n\nAone answers."),
        _AGAIN,
        _says("<think>\nRtwo then.\n</think>\n\nAtwo answers."),
    ],
    "reasoning in history, last turn": [
        _ASK,
        _says("<think>\nRone first.\n</think>\n\nAone answers.", loss=False),
        _AGAIN,
        _says("<think>\nRtwo then.\n</think>\n\nAtwo answers."),
    ],
    "tool call, null": [_ASK, _says(None, tool_calls=[_call("Brie")]), *_CALLED],
    "tool call, empty": [_ASK, _says("", tool_calls=[_call("Brie")]), *_CALLED],
    "tool call, text": [_ASK, _says("Apre looks.", tool_calls=[_call("Brie")]), *_CALLED],
    "tool call, arguments as text": [
        _ASK,
        _says(None, tool_calls=[_call("Brie", as_text=True)]),
        *_CALLED,
    ],
    "tool call, then more": [
        _ASK,
        _says(None, tool_calls=[_call("Brie")]),
        *_CALLED,
        _AGAIN,
        _says("Atwo answers."),
    ],
    "parallel calls": [
        _ASK,
        _says(None, tool_calls=[_call("Brie"), _call("Gouda", 2)]),
        _result("Toolsecret euros"),
        _result("Toolother euros", 2),
        _says("Aend says so."),
    ],
    "reasoning and call": [
        _ASK,
        _says(None, tool_calls=[_call("Brie")], reasoning_content="Rone first."),
        *_CALLED,
    ],
    "ends in a call": [_ASK, _says(None, tool_calls=[_call("Brie")])],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": "Uone price?"}]},
        _says([{"type": "text", "text": "Aone answers."}]),
    ],
    "markup in content": [_ASK, _says("<tool_call>\nMone text\n</tool_call>")],
    "markup of the user": [_user("Uone <tool_call> <think> here"), _says("Aone answers.")],
    "white space": [_ASK, _says(" Aone answers."), _AGAIN, _says("Atwo answers. \n")],
}
PLAIN = ("plain", "system", "two turns", "two turns, system", "last turn")


class Options(TypedDict, total=False):
    """What a user may say of a template."""

    arguments: Mapping[str, JsonValue]
    end_of_turn: str
    turns: Turns


class Verdict(NamedTuple):
    """What became of one chat under one template."""

    kind: str
    """exact, refused, WRONG, or unrendered: transformers cannot render it either."""
    why: str


def write_tokenizer(folder: Path, template: str) -> PreTrainedTokenizerFast:
    """Write a byte-level tokenizer that knows the template's markup, and return it."""
    found = dict.fromkeys(_MARKUP.findall(template))
    special = [token for token in found if not _ORDINARY.fullmatch(token)]
    ordinary = [token for token in found if _ORDINARY.fullmatch(token)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: index for index, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys([*special, "<|bos-of-all|>", "<|eos-of-all|>"]))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ordinary])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|bos-of-all|>", eos_token="<|eos-of-all|>"
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    if "eos_token" not in template:
        config = folder / "tokenizer_config.json"
        config.write_text(re.sub(r'\n\s*"eos_token": [^\n]*,', "", config.read_text()))
    return fast


def judge(encoder: ChatEncoder, oracle: PreTrainedTokenizerFast, name: str) -> Verdict:
    """Encode a chat of the matrix and judge the row."""
    messages = MATRIX[name]
    tools = TOOLS if any("tool_calls" in message for message in messages) else None
    form = read_conversation({"messages": [*messages], "tools": tools})
    try:
        chat = encoder.encode(form.messages, form.trained, form.tools)
    except RejectLineError as error:
        return Verdict("refused", str(error))
    runs = _runs(oracle, chat.tokens.tolist(), chat.mask.tolist())
    wanted = [i for i, trained in enumerate(form.trained) if trained]
    if len(runs) != len(wanted):
        return Verdict("WRONG", f"{len(runs)} runs of loss for {len(wanted)} turns: {runs}")
    for index, run in zip(wanted, runs, strict=True):
        wrong = _wrong_with(run, form.messages, index, oracle, form.tools)
        if wrong:
            return Verdict("WRONG", f"messages[{index}]: {wrong}: {run!r}")
    return Verdict("exact", "")


def _runs(oracle: PreTrainedTokenizerFast, ids: list[int], mask: list[int]) -> list[str]:
    runs: list[list[int]] = []
    for before, (token, bit) in zip([0, *mask], zip(ids, mask, strict=True), strict=False):
        if bit and not before:
            runs.append([])
        if bit:
            runs[-1].append(token)
    return [oracle.decode(run, skip_special_tokens=False) for run in runs]


def _words(message: Message) -> set[str]:
    said: list[object] = [message.get("content"), *(message.get(n) for n in REASONING_FIELDS)]
    for call in message.get("tool_calls", ()):
        arguments = call["function"].get("arguments")
        assert isinstance(arguments, dict), "as they are read"
        said += [call["function"]["name"], *arguments.values()]
    text = " ".join(part for part in said if isinstance(part, str))
    return set(re.findall(r"\b(?:[URAMT][a-z]+|Sys|Brie|Gouda|get_price)\b", text)) - {"A", "U"}


def _wrong_with(
    run: str,
    messages: list[Message],
    index: int,
    oracle: PreTrainedTokenizerFast,
    tools: list[JsonObject] | None,
) -> str | None:
    own = _words(messages[index])
    lost = [word for word in own if word not in run]
    if lost:
        return f"lost {lost}"
    others = set[str]().union(*(_words(m) for i, m in enumerate(messages) if i != index)) - own
    foreign = [word for word in others if word in run]
    if foreign:
        return f"trains what others said, {foreign}"
    if "{'" in run:
        return "trains a Python dictionary"
    if re.search(r"\bNone\b", run):
        return "trains None"
    end = _MARKUP.findall(run)
    if not run.endswith((*end[-1:], *oracle.all_special_tokens)):
        return "does not end with a special token"
    if not _is_rendered(run, messages, index, oracle, tools):
        return "is not what transformers renders behind the generation prompt"
    return _differs_from_marks(run, messages, index, oracle, tools)


def _is_rendered(
    run: str,
    messages: list[Message],
    index: int,
    oracle: PreTrainedTokenizerFast,
    tools: list[JsonObject] | None,
) -> bool:
    """Whether transformers renders it behind the prompt, in any spelling of the messages.

    As a last turn, which ends there but for white space and markup: that is what the model writes.
    A token that ends the turn may have been put behind it. True also if no rendering goes on from
    its prompt.
    """
    ends = _MARKUP.findall(run)[-1:] + oracle.all_special_tokens
    spoken = [run, *(run.removesuffix(end) for end in ends if run.endswith(end))]
    compared = False
    for spelled in _spellings(messages):
        try:
            prompt, last = (
                str(
                    oracle.apply_chat_template(
                        part, tools=tools, tokenize=False, add_generation_prompt=is_prompt
                    )
                )
                for part, is_prompt in (
                    (spelled[:index], True),
                    (spelled[: index + 1], False),
                )
            )
        except Exception:  # templates raise whatever they like
            continue
        if not last.startswith(prompt):
            continue
        compared = True
        for said in filter(None, spoken):
            behind = prompt + said
            if last.startswith(behind) and not _bare(last[len(behind) :]):
                return True
    return not compared


def _spellings(messages: list[Message]) -> Iterator[list[dict[str, object]]]:
    """Yield the messages with reasoning under each name, and contents as null, text and parts."""
    nothings: tuple[None, str, list[object]] = (None, "", [])
    for name in REASONING_FIELDS:
        for nothing in nothings:
            spelled = []
            for message in messages:
                told = [message[key] for key in REASONING_FIELDS if key in message]
                changed: dict[str, object] = {
                    key: value for key, value in message.items() if key not in REASONING_FIELDS
                }
                changed |= {name: told[0]} if told else {}
                content = changed.get("content") or nothing
                if nothing == [] and isinstance(content, str):
                    content = [{"type": "text", "text": content}]
                spelled.append(changed | {"content": content})
            yield spelled


def _differs_from_marks(
    run: str,
    messages: list[Message],
    index: int,
    oracle: PreTrainedTokenizerFast,
    tools: list[JsonObject] | None,
) -> str | None:
    """Compare with `{% generation %}`, which marks the turn, in some templates with its end."""
    if "endgeneration" not in str(oracle.chat_template):
        return None
    try:
        marked = oracle.apply_chat_template(
            messages[: index + 1],
            tools=tools,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
    except Exception:  # templates raise whatever they like; then there are no marks to hold it to
        return None
    theirs = _runs(oracle, marked["input_ids"], marked["assistant_masks"])
    if not theirs:
        return None
    last = theirs[-1]
    if _bare(last) not in _bare(run) and _bare(run) not in _bare(last):
        return f"the generation mark holds {last!r}"
    return None


def _bare(text: str) -> str:
    return re.sub(r"\s+", "", _MARKUP.sub("", text))


def judged(template: str, options: Options | None = None) -> Iterator[tuple[str, Verdict]]:
    """Yield the verdict on each chat of the matrix under a template."""
    with tempfile.TemporaryDirectory() as root:
        oracle = write_tokenizer(Path(root), template)
        files = read_tokenizer_files(Path(root))
        encoder = encoder_for(files, template, today=_TODAY, **(options or {}))
        for name, messages in MATRIX.items():
            if not _renders(oracle, messages):
                yield name, Verdict("unrendered", "")
            else:
                yield name, judge(encoder, oracle, name)


def _renders(oracle: PreTrainedTokenizerFast, messages: list[JsonObject]) -> bool:
    tools = TOOLS if any("tool_calls" in message for message in messages) else None
    try:
        oracle.apply_chat_template(messages, tools=tools, tokenize=False)
    except Exception:  # see above
        return False
    return True


def _option_for_plain(template: str) -> str | None:
    """Return an option with which a plain chat is exact."""
    tried: list[tuple[Options, str]] = [
        *(
            (Options(arguments={name: value}), f"--template-arg {name}={str(value).lower()}")
            for name in ("enable_thinking", "thinking")
            for value in (False, True)
        ),
        (Options(turns="last"), "--turns last"),
        *(
            (Options(end_of_turn=token), f"--end-of-turn {token}")
            for token in dict.fromkeys(_MARKUP.findall(template))
            if re.search("user|end|eos|eot|/s|im_", token)
        ),
    ]
    for options, said in tried:
        try:
            if dict(judged(template, options))["plain"].kind == "exact":
                return said
        except ConfigError:
            continue
    return None


def main() -> int:
    """Judge every template of a folder and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    totals, plain_ok, with_option, rendering = Counter[str](), 0, 0, 0
    for path in sorted(arguments.folder.rglob("*.jinja")):
        verdicts = dict(judged(path.read_text(encoding="utf-8")))
        counts = Counter(verdict.kind for verdict in verdicts.values())
        totals += counts
        plain = verdicts["plain"].kind
        rendering += plain != "unrendered"
        plain_ok += plain == "exact"
        if plain == "refused":
            plain = f"refused, exact with {_option_for_plain(path.read_text(encoding='utf-8'))}"
            with_option += not plain.endswith("None")
        row = " ".join(
            f"{counts[kind]:3d} {kind}" for kind in ("exact", "refused", "WRONG", "unrendered")
        )
        sys.stdout.write(f"{path.parent.name + '/' + path.name:48s} {row}  plain: {plain}\n")
        for name, verdict in verdicts.items():
            if verdict.kind == "WRONG" or (arguments.verbose and verdict.kind == "refused"):
                sys.stdout.write(f"    {verdict.kind:8s} {name}: {verdict.why[:300]}\n")
    sys.stdout.write(
        f"{dict(totals)}; plain exact in {plain_ok} of {rendering} templates, and in {with_option} "
        "more with an option\n"
    )
    return 1 if totals["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
