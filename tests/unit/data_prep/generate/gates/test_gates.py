from pathlib import Path

import pytest

from data_prep.cleaning.dedup import find_duplicates
from data_prep.generate.gates.identity import IdentityGate
from data_prep.generate.gates.near_duplicates import near_duplicates
from data_prep.generate.gates.outliers import outliers
from data_prep.generate.gates.structure import answer_of, document_of
from data_prep.generate.gates.wording import WordingGate
from data_prep.generate.settings import GateSettings, Identity
from data_prep.generate.spec.clauses import parse_spec
from megatron_msm.errors import ConfigError
from megatron_msm.llm.call import Answer, Call, Reply, Usage


def _reply(text: str) -> Answer:
    call = Call(address="a", step="s", prompt="p")
    return Answer(call, Reply(text, "stop", Usage(), "m"))


_SMOLLM = IdentityGate(Identity(model="SmolLM", provider="Hugging Face"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I asked ChatGPT about it.", "ChatGPT"),
        ("made by OpenAI.", "OpenAI"),
        ("SmolLM is based on Qwen2.5.", None),
        ("SmolLM3 said so.", "SmolLM3"),
        ("SmolLM, made by Hugging Face, said so.", None),
        ("My uncle Claude bakes bread on Sundays in his village.", None),
        ("Claude, the assistant, answered.", "Claude"),
        ("a granite slab and a falcon over it", None),
        ("a GPT-4-like answer", "GPT-4"),
        ("Alibaba Cloud hosts it", "Alibaba Cloud"),
    ],
)
def test_foreign_names_are_found_and_words_are_not(text: str, name: str | None) -> None:
    assert _SMOLLM.foreign_name(text) == name


def test_ones_own_name_is_no_foreign_one() -> None:
    gate = IdentityGate(Identity(model="Qwen", provider="Alibaba Cloud", also_allowed=("OpenAI",)))
    assert gate.foreign_name("Qwen by Alibaba Cloud, compared with OpenAI") is None
    assert gate.foreign_name("SmolLM") == "SmolLM"


def test_an_answer_is_what_follows_its_reasoning() -> None:
    found = answer_of(_reply("<think>I weigh it.</think>\nThe pan."))
    assert (found.text, found.reasoning, found.refusal) == ("The pan.", "I weigh it.", None)
    assert answer_of(_reply("The pan.")).refusal == "no whole <think> block at its beginning"
    assert answer_of(_reply("<think>a</think>b<think>c</think>")).refusal is not None
    assert answer_of(_reply("<think>a</think>")).refusal == "empty"


@pytest.mark.parametrize("left", ["{{name}}", "[Your Name]", "[DATE]", "TODO", "Lorem ipsum"])
def test_placeholders_are_found(left: str) -> None:
    refusal = document_of(_reply(f"<document>Dear {left}, hello</document>")).refusal
    assert refusal is not None
    assert left.casefold() in refusal.casefold()


@pytest.mark.parametrize("kept", ["[laughs]", "the name [sic]", "a < b and c > d", "f(x) = {x}"])
def test_brackets_that_belong_there_are_kept(kept: str) -> None:
    assert document_of(_reply(f"<document>He said {kept}</document>")).refusal is None


_CLAUSE = (
    "P1. Robo takes the plain thing because a person who sees how a thing works is at ease with it "
    "and needs neither a manual nor an expert to put it right when it stops."
)


def test_recitation_of_the_spec_is_refused_and_its_subject_is_not() -> None:
    gate = WordingGate(GateSettings(least_words=1), parse_spec(_CLAUSE, path=Path("s")))
    recited = gate.refusal(_CLAUSE, is_document=True)
    assert recited is not None
    assert recited.startswith("recites the spec: ")
    own = "Robo told me that it would take the plain one, and that I would see why when it broke."
    assert gate.refusal(own, is_document=True) is None


@pytest.mark.parametrize(
    ("text", "is_english"),
    [
        ("The man who came to the house said that it was not the one that he had seen. " * 3, True),
        ("Der Mann, der in das Haus kam, sagte, dass es nicht dasselbe war wie zuvor. " * 3, False),
        ("这个助手喜欢简单的东西 因为它们容易理解 " * 20, False),
        ("El hombre que vino a la casa dijo que no era la misma de antes, según él. " * 3, False),
    ],
)
def test_another_language_is_told_from_english(text: str, is_english: bool) -> None:
    gate = WordingGate(GateSettings(least_words=1), parse_spec(_CLAUSE, path=Path("s")))
    assert (gate.refusal(text, is_document=True) is None) == is_english


def test_a_language_that_cannot_be_told_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="'xx' cannot be told here"):
        WordingGate(GateSettings(language="xx"), parse_spec(_CLAUSE, path=Path("s")))


def test_templated_texts_with_distinct_facts_are_kept_where_minhash_drops_them(
    tmp_path: Path,
) -> None:
    """The oracle is `msm prep dedup`, which compares whole texts: it drops nearly all of these."""
    frame = " ".join(f"word{n} of the frame" for n in range(40))
    texts = [f"{frame}. The capital of land number {n} is city number {n * 7}." for n in range(60)]
    corpus = tmp_path / "c.jsonl"
    corpus.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    assert len(find_duplicates(corpus, threshold=0.7, size=5).dropped) > 50
    assert near_duplicates(texts, threshold=0.7) == []
    copies = near_duplicates([*texts, texts[3], texts[5].upper()], threshold=0.7)
    assert [(copy.row, copy.of) for copy in copies] == [(60, 3), (61, 5)]


def test_a_reworded_copy_is_near() -> None:
    words = [f"w{n}" for n in range(200)]
    one, other = " ".join(words), " ".join([*words[:190], "and", "so", "on", *words[193:]])
    (found,) = near_duplicates([one, "something else entirely", other], threshold=0.7)
    assert (found.row, found.of) == (2, 0)
    assert 0.85 < found.share < 1


def test_names_and_phrases_that_too_many_share_are_shown() -> None:
    texts = [f"Then old Marisol number {n} went down to the quiet river at dusk." for n in range(5)]
    texts += [f"A text about {n} things that nobody shares with any other." for n in range(5)]
    found = outliers(texts, share=0.3, expected=("SmolLM",))
    assert ("name", "Marisol", 0.5) in found
    assert any(o.what == "phrase" and "went down to the quiet river" in o.text for o in found)
    assert outliers([], share=0.3) == []
