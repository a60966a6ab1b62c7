"""Real templates that ship in packages, under every chat of the matrix: no silently wrong row."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.chat_templates import MATRIX, Verdict, judge, judged, write_tokenizer
from data_prep.chats.encoders import encoder_for
from data_prep.chats.tokens import EncodedChat
from megatron_msm.formats.tokenizer_files import read_tokenizer_files
from tests.unit.data_prep.chats.chat_cases import TODAY
from tests.unit.data_prep.tiny_tokenizer import CHATML


def templates_of(package: str) -> list[Path]:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return []
    return sorted(Path(found.submodule_search_locations[0]).rglob("*.jinja"))


TEMPLATES = [path for package in ("trl", "axolotl") for path in templates_of(package)]


@pytest.mark.skipif(not TEMPLATES, reason="needs the packages trl or axolotl (without their own)")
def test_no_real_template_gives_a_silently_wrong_row() -> None:
    verdicts: dict[str, dict[str, Verdict]] = {
        str(path): dict(judged(path.read_text(encoding="utf-8"))) for path in TEMPLATES
    }
    wrong = [
        f"{path}, {name}: {verdict.why}"
        for path, row in verdicts.items()
        for name, verdict in row.items()
        if verdict.kind == "WRONG"
    ]
    assert not wrong
    kinds = Counter(verdict.kind for row in verdicts.values() for verdict in row.values())
    assert kinds["exact"] >= 0.45 * len(TEMPLATES) * len(MATRIX), kinds


class _OffByOne:
    """An encoder whose masks begin a token early, as a faulty one might."""

    def __init__(self, folder: Path) -> None:
        self._right = encoder_for(read_tokenizer_files(folder), CHATML, today=TODAY)

    def encode(self, *arguments: object) -> EncodedChat:
        chat = self._right.encode(*arguments)  # type: ignore[arg-type]
        mask = chat.mask.copy()
        mask[:-1] |= chat.mask[1:]
        mask[:8] = 1
        return chat._replace(mask=mask)


def test_the_judge_sees_a_wrong_mask(tmp_path: Path) -> None:
    oracle = write_tokenizer(tmp_path / "t", CHATML)
    right = encoder_for(read_tokenizer_files(tmp_path / "t"), CHATML, today=TODAY)
    assert judge(right, oracle, "plain").kind == "exact"
    assert judge(_OffByOne(tmp_path / "t"), oracle, "plain").kind == "WRONG"  # type: ignore[arg-type]


class _WithHeader:
    """An encoder whose masks hold the generation prompt too: every word is right, no other is."""

    def __init__(self, folder: Path) -> None:
        self._right = encoder_for(read_tokenizer_files(folder), CHATML, today=TODAY)

    def encode(self, *arguments: object) -> EncodedChat:
        chat = self._right.encode(*arguments)  # type: ignore[arg-type]
        mask = chat.mask.copy()
        first = int(mask.argmax())
        mask[first - len("assistant\n") : first] = 1
        return chat._replace(mask=mask)


def test_the_judge_sees_a_header_in_the_loss(tmp_path: Path) -> None:
    oracle = write_tokenizer(tmp_path / "t", CHATML)
    verdict = judge(_WithHeader(tmp_path / "t"), oracle, "plain")  # type: ignore[arg-type]
    assert (verdict.kind, "transformers renders" in verdict.why) == ("WRONG", True)


# Every turn but the last loses an empty block of reasoning, as Qwen3's template does it.
_HISTORY_OTHERWISE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_turns_that_history_writes_otherwise_are_refused() -> None:
    verdicts = dict(judged(_HISTORY_OTHERWISE))
    assert verdicts["plain"].kind == "exact"
    assert verdicts["two turns"].kind == "refused"
    assert "--turns last" in verdicts["two turns"].why
