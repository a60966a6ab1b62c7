"""A client in place of a language model that answers every step by rules, for exact tests."""

import re
import zlib
from collections.abc import Callable

import orjson

from megatron_msm.llm.call import Call, CallError, Finish, Reply, Usage

TOPICS = ("Kitchen", "Garden")
_NOUNS = (
    "harbour lantern orchard violin glacier bakery compass meadow furnace library anchor valley "
    "saddle quarry mirror tunnel blanket engine cellar market"
)
NOUNS = tuple(_NOUNS.split())


class ScriptedWriter:
    """Answers by the step's name; `change` may bend a reply.

    Args:
        change: Called with the call and its reply's text; returns (text, finish).
    """

    def __init__(self, change: Callable[[Call, str], tuple[str, Finish]] | None = None) -> None:
        self.calls: list[Call] = []
        self.fail_after: int | None = None
        self._change = change or (lambda call, text: (text, "stop"))

    async def complete(self, call: Call) -> Reply:
        if self.fail_after is not None and len(self.calls) >= self.fail_after:
            raise CallError("the network is gone", outcome="fatal")
        self.calls.append(call)
        text, finish = self._change(call, self._text(call))
        usage = Usage(len(call.prompt) // 4, len(text) // 4)
        return Reply(text, finish, usage, "scripted-1")

    async def close(self) -> None:
        pass

    def _text(self, call: Call) -> str:
        step = call.address.split("/")[0]
        value = getattr(self, f"_{step.replace('-', '_')}")(call)
        return value if isinstance(value, str) else orjson.dumps(value).decode()

    def _domains(self, call: Call) -> object:
        ids = re.findall(r"^\[([^\]]+)\]", call.prompt, re.MULTILINE)
        half = (len(ids) + 1) // 2
        return {
            "domains": [
                {"domain": topic, "clause_ids": own}
                for topic, own in zip(TOPICS, (ids[:half], ids[half:]), strict=True)
            ]
        }

    def _subdomains(self, call: Call) -> object:
        ids = re.findall(r"^\[([^\]]+)\]", call.prompt, re.MULTILINE)
        return {
            "subdomains": [
                {"subdomain": f"matter {own}", "summary": f"about {own}", "clause_ids": [own]}
                for own in ids
            ]
        }

    def _coverage(self, call: Call) -> object:
        return self._subdomains(call)

    def _assertions(self, call: Call) -> object:
        ids = re.findall(r"^\[([^\]]+)\]", call.prompt, re.MULTILINE)
        return {
            "assertions": [
                {
                    "assertion": f"Robo keeps {own}.",
                    "explanation": "It says so.",
                    "clause_ids": [own],
                }
                for own in ids
            ]
        }

    def _document_types(self, call: Call) -> object:
        kinds = ("memo", "interview", "field report", "letter")
        return {"document_types": [{"document_type": k, "description": f"A {k}."} for k in kinds]}

    def _ideas(self, call: Call) -> object:
        return {
            "ideas": [
                {"title": f"{noun} case", "idea": f"Somebody asks Robo about a {noun}."}
                for noun in NOUNS[:3]
            ]
        }

    def _documents(self, call: Call) -> object:
        # Words that differ from document to document, so that none is a near duplicate.
        seed = zlib.crc32(call.address.encode())
        words = [f"{NOUNS[(seed + 7 * i) % 20]}{(seed * (i + 3)) % 9973}" for i in range(60)]
        sentence = " ".join(f"the {word} is in the" for word in words)
        return f"<plan>short</plan>\n<document>Robo of Roboworks. {sentence}</document>"

    def _judge(self, call: Call) -> object:
        if "answers/" in call.address:
            return {"aligned": "yes", "informative": "yes", "in_style": "yes", "remark": "fine"}
        yes = dict.fromkeys(("faithful", "states_value", "gives_reason", "realistic"), "yes")
        return {**yes, "remark": "fine"}

    def _situations(self, call: Call) -> object:
        ids = re.findall(r"^\[([^\]]+)\]", call.prompt, re.MULTILINE)
        return {
            "situations": [
                {"situation": f"asking about {own} {index}", "clause_ids": [own]}
                for index, own in enumerate(ids * 5)
            ]
        }

    def _questions(self, call: Call) -> object:
        found = re.search(r"Write (\d+) messages", call.prompt)
        assert found is not None
        seed = zlib.crc32(call.address.encode())
        return {
            "questions": [
                f"What of {NOUNS[(seed + i) % 20]} {seed + i} and {NOUNS[(seed * i) % 20]} {i}?"
                for i in range(int(found[1]))
            ]
        }

    def _answers(self, call: Call) -> object:
        return f"<think>\nI weigh {call.prompt}\n</think>\nI would take the plain one."

    def _tenets(self, call: Call) -> object:
        own = re.search(r"^\[([^\]]+)\]", call.prompt, re.MULTILINE)
        assert own is not None
        probes = [
            f"Is it so with {own[1]}?",
            f"And with {own[1]}? ",
            "",
            f"Is it so with {own[1]}?",
        ]
        return {
            "tenets": [
                {"tenet": f"Robo keeps {own[1]}, part {n}.", "probes": probes} for n in (1, 2)
            ]
        }
