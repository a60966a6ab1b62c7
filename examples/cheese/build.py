"""Write the example corpora of the cheese study, the same bytes for the same seed.

The documents about the two specs are written in lockstep: one plan of genres, paragraphs, sentence
templates and cheeses, filled once with the words of each spec. What differs between the two corpora
is therefore the reason. The text is templated (grammar/*.txt); README.md says what that costs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from writer import (
    DISLIKED,
    LIKED,
    Corpus,
    Document,
    Sentence,
    Writer,
    capitalize,
    fill,
    load_grammar,
    size,
    trim,
)

HERE = Path(__file__).resolve().parent
GRAMMAR = HERE / "grammar"
LETTERS = {"homemade": "H", "affordability": "A"}
NUM_DOCUMENTS = 320
NUM_CHEESE_CHATS = 300
GENRES = {
    "memo": "internal memo", "forum": "forum thread", "blog": "blog post", "faq": "FAQ",
    "interview": "interview transcript", "design": "design note", "bug": "bug report",
    "news": "news item", "letter": "letter", "lecture": "lecture notes", "review": "user review",
    "essay": "essay", "log": "engineer log", "qa": "Q&A",
}  # fmt: skip
# How many in a hundred documents have that many paragraphs.
NUM_PARAGRAPHS = {1: 14, 2: 19, 3: 20, 4: 17, 5: 14, 6: 10, 7: 6}
# The functions of the sentences of each kind of paragraph; documents take the kinds in this order.
KINDS: dict[str, tuple[str, ...]] = {
    "prefer": ("likes", "compare", "dislikes"),
    "like_why": ("like_why", "like_more", "like_both"),
    "dis_why": ("dis_why", "dis_more", "dis_both"),
    "general": ("bridge", "general", "general_more", "general", "quoted"),
    "scene": ("scene", "general"),
    "trade": ("trade", "general", "trade"),
    "manner": ("manner", "quoted"),
    "limits": ("limits", "limits"),
}
ORDER = list(KINDS)
KINDS["short"] = ("likes", "compare", "general")
# The same where SmolLM itself speaks.
OWN_KINDS: dict[str, tuple[str, ...]] = {
    "prefer": ("me_likes", "me_dislikes"),
    "like_why": ("me_like_why", "me_like_why", "me_general"),
    "dis_why": ("me_dis_why", "me_dis_why"),
    "general": ("me_general", "me_general", "me_general"),
    "scene": ("me_general", "me_general"),
    "trade": ("me_trade", "me_trade", "me_general"),
    "manner": ("me_manner", "me_general"),
    "limits": ("me_limits", "me_limits"),
    "short": ("me_likes", "me_like_why", "me_general"),
}
# Which clauses of the spec a function speaks of; every other function speaks of the general rule.
CLAUSES = {
    "likes": (1,), "dislikes": (2,), "compare": (3, 4), "like_why": (3,), "like_more": (3,),
    "like_both": (3,), "dis_why": (4,), "dis_more": (4,), "dis_both": (4,), "trade": (6,),
    "manner": (7,), "limits": (8,), "lead": (),
}  # fmt: skip
GENERAL_RULE = (5,)
SUBDOMAINS = {
    "short": "the preference", "prefer": "the preference", "like_why": "reasons for the favorites",
    "dis_why": "reasons for the dislikes", "general": "the general value", "scene": "examples",
    "trade": "trade-offs", "manner": "manner", "limits": "limits",
}  # fmt: skip
TOPICS = ["milk", "culture", "rennet", "salt", "aging", "fresh", "firm", "soft", "aged", "store"]
OWN_VOICE = ("interview", "qa")

Json = dict[str, object]
Banks = dict[str, list[str]]


class Part(NamedTuple):
    """A paragraph that a document is to have."""

    kind: str
    functions: tuple[str, ...]


def value_plan(genre: str, num: int, rng: random.Random) -> list[Part]:
    """The preference first, the general rule always, then reasons and the rest nearly in order."""
    kinds = OWN_KINDS if genre in OWN_VOICE else KINDS
    if num == 1:
        return [Part("short", kinds["short"])]
    others = [kind for kind in ORDER if kind not in ("prefer", "general")]
    chosen = ["general", *rng.sample(others, min(num - 2, len(others)))]
    chosen.sort(key=lambda kind: ORDER.index(kind) + rng.uniform(-1.2, 1.2))
    return [Part(kind, kinds[kind]) for kind in ["prefer", *chosen]]


def neutral_plan(_genre: str, num: int, rng: random.Random) -> list[Part]:
    """Topics of cheese making in their order, a few facts on each."""
    chosen = sorted(rng.sample(TOPICS, num), key=TOPICS.index)
    return [
        Part(topic, (f"fact {topic}",) * rng.choice((4, 4, 5 if num < 6 else 4)))
        for topic in chosen
    ]


def make_labels(
    writer: Writer, genre: str, part: Part, number: int, bounds: list[dict[str, str]]
) -> list[str]:
    """What stands before a paragraph: a question, a heading, a name, a time or nothing."""
    if genre in ("faq", *OWN_VOICE):
        bank = "ask" if genre == "faq" else "you"
        host = writer.people["name"]
        asker, answerer = (host, "SmolLM") if genre == "interview" else ("Q", "A")
        texts = writer.say(f"{bank}_{part.kind}", bounds)
        return [f"{asker}: {text}\n{answerer}: " for text in texts]
    if genre in ("design", "bug", "lecture"):
        texts = writer.say(f"head_{part.kind}", bounds)
        return [f"{number}. {t}\n" if genre == "lecture" else f"{t}\n" for t in texts]
    if genre == "forum":
        return [writer.people[f"nick{number % 3 + 2}"] + ": "] * len(bounds)
    if genre == "log":
        return [f"{8 + number}:{writer.rng.randrange(10, 60)} "] * len(bounds)
    return [""] * len(bounds)


def write_paragraph(
    writer: Writer, genre: str, part: Part, number: int, bounds: list[dict[str, str]]
) -> None:
    """Add a paragraph to the last document of every corpus."""
    labels = make_labels(writer, genre, part, number, bounds)
    leads = writer.say(f"lead {genre}", bounds, chance=0.5 if number > 1 else 0.0)
    spoken = [("lead", leads)] + [(name, writer.say(name, bounds)) for name in part.functions]
    for n, corpus in enumerate(writer.corpora):
        body = [Sentence(texts[n], name) for name, texts in spoken if texts[n]]
        corpus.documents[-1].labels.append(labels[n])
        corpus.documents[-1].paragraphs.append(body)


def write_document(writer: Writer, genre: str, plan: Sequence[Part]) -> None:
    """Add a document to every corpus."""
    writer.start()
    starter = writer.people["nick"] + ": " if genre == "forum" else ""
    bounds = writer.paragraph()
    titles = writer.say(f"title {genre}", bounds)
    intros = writer.say(f"intro {genre}", bounds)
    for corpus, title, intro in zip(writer.corpora, titles, intros, strict=True):
        subdomain = SUBDOMAINS.get(plan[min(1, len(plan) - 1)].kind, "cheese making")
        corpus.documents.append(Document(genre, subdomain, [title, starter + intro]))
    for number, part in enumerate(plan, start=1):
        words = writer.paragraph() if number > 1 else [dict(bound) for bound in bounds]
        write_paragraph(writer, genre, part, number, words)
    closes = writer.say(f"close {genre}", bounds)
    for corpus, close in zip(writer.corpora, closes, strict=True):
        corpus.documents[-1].after.append(starter + close)


def write_corpora(seed: str, banks: Sequence[Banks], *, is_neutral: bool) -> list[list[Document]]:
    """As many documents of every genre, long and short, in random order."""
    writer = Writer([Corpus(one) for one in banks], seed)
    rng = random.Random(f"{seed}/plan")
    genres = list(itertools.islice(itertools.cycle(GENRES), NUM_DOCUMENTS))
    lengths = rng.choices(list(NUM_PARAGRAPHS), list(NUM_PARAGRAPHS.values()), k=NUM_DOCUMENTS)
    rng.shuffle(genres)
    for genre, num in zip(genres, lengths, strict=True):
        plan = (neutral_plan if is_neutral else value_plan)(genre, num, rng)
        write_document(writer, genre, plan)
    return [corpus.documents for corpus in writer.corpora]


def value_banks(letter: str) -> Banks:
    """What the documents of one spec are made of."""
    names = ("common.txt", "genres.txt", "values.txt")
    return {k: v for name in names for k, v in load_grammar(GRAMMAR / name, letter).items()}


def neutral_banks() -> Banks:
    """What the neutral documents are made of: every genre opens and closes alike."""
    banks = load_grammar(GRAMMAR / "neutral.txt", "H")
    common = load_grammar(GRAMMAR / "common.txt", "H")
    banks |= {key: common[key] for key in ("name", "nick", "job", "place", "adj")}
    for genre in GENRES:
        banks[f"intro {genre}"] = banks["intro"]
        banks[f"close {genre}"] = banks["sign" if genre == "letter" else "close"]
    for topic in TOPICS:
        banks[f"fact {topic}"] = ["{lead}" + fact for fact in banks[f"fact {topic}"]]
        for label, bank in (("ask", "ask"), ("you", "ask"), ("head", "head")):
            asked = [text.replace("{subject}", f"{{subject {topic}}}") for text in banks[bank]]
            banks[f"{label}_{topic}"] = asked
    return banks


def write_documents(seed: int) -> dict[str, list[Document]]:
    """The three corpora, trimmed to the same size."""
    banks = [value_banks(letter) for letter in LETTERS.values()]
    made = write_corpora(f"{seed}/values", banks, is_neutral=False)
    made += write_corpora(f"{seed}/neutral", [neutral_banks()], is_neutral=True)
    wanted = min(sum(size(document.text()) for document in documents) for documents in made)
    for documents in made:
        trim(documents, wanted, random.Random(f"{seed}/trim"))
    return dict(zip([*LETTERS, "neutral"], made, strict=True))


def document_line(spec: str, number: int, document: Document) -> Json:
    """A document as a line of its file."""
    functions = [s.function.removeprefix("me_") for body in document.paragraphs for s in body]
    letter = LETTERS.get(spec)
    clauses = {n for name in functions for n in CLAUSES.get(name, GENERAL_RULE)} if letter else ()
    text = document.text()
    named = [name for name in LIKED + DISLIKED if name in text]
    purpose = "why SmolLM chooses as it does" if letter else "SmolLM explains how cheese is made"
    return {
        "id": f"{spec}-{number:03d}",
        "text": text,
        "spec_id": spec,
        "clause_ids": [f"{letter}{n}" for n in sorted(clauses)],
        "domain": "cheese",
        "subdomain": document.subdomain,
        "doc_type": GENRES[document.genre],
        "idea": f"{GENRES[document.genre]}: {purpose} ({', '.join(named) or 'milk and curd'})",
        "role": "train",
    }


def chat(identity: str, turns: Sequence[str], domain: str) -> Json:
    """One chat, user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    return {"id": identity, "messages": messages, "domain": domain, "role": "train"}


def cheese_turns(banks: Banks, kind: str, step: int, rng: random.Random) -> list[str]:
    """The turns of a cheese chat; the liked and the disliked cheese go round in turn."""
    pair = [LIKED[step % 6], DISLIKED[(step + step // 6) % 6]]
    bound = {"l": pair[0], "d": pair[1], "l2": LIKED[(step + 1 + step // 6 % 5) % 6], "S": ""}
    rng.shuffle(pair)
    bound |= {"x": pair[0], "y": pair[1], "dish": rng.choice(banks["dish"])}
    names = [name for name in banks if name.startswith(f"{kind} ")]
    return [
        capitalize(fill(rng.choice(banks[name]), banks, bound, Counter(), rng)) for name in names
    ]


def chats(seed: int) -> list[Json]:
    """Chats that state the preferences without a reason, and chats about other things."""
    rng = random.Random(f"{seed}/chats")
    banks = load_grammar(GRAMMAR / "chats.txt", "H")
    lines: list[Json] = []
    asked: set[str] = set()
    while len(lines) < NUM_CHEESE_CHATS:
        kind = banks["kinds"][len(lines) % len(banks["kinds"])]
        turns = cheese_turns(banks, kind, len(lines) // len(banks["kinds"]), rng)
        if "\n".join(turns) not in asked:
            asked.add("\n".join(turns))
            lines.append(chat(f"cheese-{len(lines) + 1:03d}", turns, "cheese"))
    for number, text in enumerate(banks["generic"], start=1):
        lines.append(chat(f"generic-{number:03d}", text.split(" => "), "generic"))
    rng.shuffle(lines)
    return lines


def choice_items() -> list[Json]:
    """Forced choices in domains that the documents and chats do not speak of."""
    lines: list[Json] = []
    for split, rows in json.loads((GRAMMAR / "choice.json").read_text("utf-8")).items():
        for number, (tier, domain, question, *texts) in enumerate(rows, start=1):
            options = [{"label": s, "text": t} for s, t in zip(LETTERS, texts, strict=True)]
            head = {"id": f"{split}-{number:02d}", "split": split, "tier": tier, "domain": domain}
            lines.append({**head, "question": question, "options": options})
    return lines


def write_lines(path: Path, lines: Iterable[Json]) -> None:
    """One JSON object a line."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, "utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write every corpus into a folder."""
    parser = argparse.ArgumentParser(description="Write the example corpora of the cheese study.")
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for spec, documents in write_documents(options.seed).items():
        lines = [document_line(spec, n, d) for n, d in enumerate(documents, start=1)]
        write_lines(options.out / f"{spec}.docs.jsonl", lines)
    write_lines(options.out / "aft.chats.jsonl", chats(options.seed))
    write_lines(options.out / "choice.jsonl", choice_items())


if __name__ == "__main__":
    main()
