"""Write the corpora that the cheese study is run on, the same bytes for the same seed.

Templates and engine are those of `msm generate` with a grammar endpoint (generate.yaml). What that
makes cannot be these bytes: there each document is composed by itself, from its place in a plan,
and rows are shuffled. Here a corpus is composed as a whole: no sentence comes up too often in it,
all are cut to one size, and each document cites the clauses of its own sentences. The documents
about the two specs are written in lockstep: what differs between the corpora is the reason.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_prep.generate.grammar.banks import load_banks
from data_prep.generate.grammar.chats import fill_turns
from data_prep.generate.grammar.documents import Part, draw_parts, write_document
from data_prep.generate.grammar.filling import Filler
from data_prep.generate.grammar.grammar import Grammar
from data_prep.generate.grammar.writer import Composed, CorpusText, Writer

HERE = Path(__file__).resolve().parent
GRAMMAR = Grammar(HERE / "grammar" / "cheese.yaml")
PARTS = GRAMMAR.config.documents
LIKED, DISLIKED = PARTS.words["L"], PARTS.words["D"]
LETTERS = dict(GRAMMAR.config.marks)
NUM_DOCUMENTS = 320
NUM_CHEESE_CHATS = 300
# The only paragraph of a short document, told by others and by SmolLM itself.
SHORT = {
    "told": Part("short", ("likes", "compare", "general")),
    "own": Part("short", ("me_likes", "me_like_why", "me_general")),
}
# What may be left out to make corpora equal in size.
OPTIONAL = ("like_more", "dis_more", "general_more", "fact")
SUBDOMAINS = {**PARTS.subdomains, "short": "the preference", "scene": "examples"}
TOPICS = ["milk", "culture", "rennet", "salt", "aging", "fresh", "firm", "soft", "aged", "store"]

Json = dict[str, object]
Banks = dict[str, list[str]]


def value_plan(genre: str, num: int, rng: random.Random) -> list[Part]:
    """The preference first, the general rule always, then reasons and the rest nearly in order."""
    if num == 1:
        return [SHORT[PARTS.genres[genre].voice]]
    return draw_parts(PARTS, genre, num, rng)


def neutral_plan(_genre: str, num: int, rng: random.Random) -> list[Part]:
    """Topics of cheese making in their order, a few facts on each."""
    chosen = sorted(rng.sample(TOPICS, num), key=TOPICS.index)
    return [
        Part(topic, (f"fact {topic}",) * rng.choice((4, 4, 5 if num < 6 else 4)))
        for topic in chosen
    ]


def write_corpora(
    seed: str, fillers: Sequence[Filler], *, is_neutral: bool
) -> list[list[Composed]]:
    """As many documents of every genre, long and short, in random order."""
    texts = [CorpusText(filler) for filler in fillers]
    writer = Writer(texts, words=PARTS.words, cast=PARTS.cast, seed=seed)
    rng = random.Random(f"{seed}/plan")
    genres = list(itertools.islice(itertools.cycle(PARTS.genres), NUM_DOCUMENTS))
    shares = PARTS.paragraphs
    lengths = rng.choices(list(shares), list(shares.values()), k=NUM_DOCUMENTS)
    rng.shuffle(genres)
    for genre, num in zip(genres, lengths, strict=True):
        plan = (neutral_plan if is_neutral else value_plan)(genre, num, rng)
        write_document(writer, genre, PARTS.genres[genre], plan)
    return [corpus.documents for corpus in writer.corpora]


def neutral_banks() -> Banks:
    """What the neutral documents are made of: every genre opens and closes alike."""
    banks = load_banks([HERE / "grammar" / "neutral.txt"], ("H",))["H"]
    common = GRAMMAR.fillers["homemade"].banks
    banks |= {key: common[key] for key in ("name", "nick", "job", "place", "adj")}
    for genre in PARTS.genres:
        banks[f"intro {genre}"] = banks["intro"]
        banks[f"close {genre}"] = banks["sign" if genre == "letter" else "close"]
    for topic in TOPICS:
        banks[f"fact {topic}"] = ["{lead}" + fact for fact in banks[f"fact {topic}"]]
        for label, bank in (("ask", "ask"), ("you", "ask"), ("head", "head")):
            asked = [text.replace("{subject}", f"{{subject {topic}}}") for text in banks[bank]]
            banks[f"{label}_{topic}"] = asked
    return banks


def size(text: str) -> int:
    """Words and punctuation marks, close to proportional to tokens."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def trim(documents: Sequence[Composed], wanted: int, rng: random.Random) -> None:
    """Take optional sentences out, at most one a paragraph, down to at least the wanted size."""
    left = sum(size(document.text()) for document in documents) - wanted
    bodies = [b for d in documents if size(d.text()) > 130 for b in d.paragraphs]
    rng.shuffle(bodies)
    for body in bodies:
        spare = [s for s in body[1:] if s.bank.startswith(OPTIONAL) and size(s.text) <= left]
        if len(body) > 1 and spare:
            body.remove(spare[0])
            left -= size(spare[0].text)


def write_documents(seed: int) -> dict[str, list[Composed]]:
    """The three corpora, trimmed to the same size."""
    fillers = [GRAMMAR.fillers[spec] for spec in LETTERS]
    made = write_corpora(f"{seed}/values", fillers, is_neutral=False)
    neutral = Filler(neutral_banks(), PARTS.subjects)
    made += write_corpora(f"{seed}/neutral", [neutral], is_neutral=True)
    wanted = min(sum(size(document.text()) for document in documents) for documents in made)
    for documents in made:
        trim(documents, wanted, random.Random(f"{seed}/trim"))
    return dict(zip([*LETTERS, "neutral"], made, strict=True))


def document_line(spec: str, number: int, document: Composed) -> Json:
    """A document as a line of its file."""
    letter = LETTERS.get(spec)
    said = [s.bank for body in document.paragraphs for s in body] if letter else []
    clauses = {clause for bank in said for clause in PARTS.clauses.get(bank, ())}
    text = document.text()
    title = PARTS.genres[document.genre].title
    named = [name for name in LIKED + DISLIKED if name in text]
    purpose = "why SmolLM chooses as it does" if letter else "SmolLM explains how cheese is made"
    return {
        "id": f"{spec}-{number:03d}",
        "text": text,
        "spec_id": spec,
        "clause_ids": sorted(clause.replace("H", str(letter)) for clause in clauses),
        "domain": "cheese",
        "subdomain": SUBDOMAINS.get(document.kinds[:2][-1], "cheese making"),
        "doc_type": title,
        "idea": f"{title}: {purpose} ({', '.join(named) or 'milk and curd'})",
        "role": "train",
    }


def chat(identity: str, turns: Sequence[str], domain: str) -> Json:
    """One chat, user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    return {"id": identity, "messages": messages, "domain": domain, "role": "train"}


def cheese_turns(filler: Filler, kind: str, step: int, rng: random.Random) -> list[str]:
    """The turns of a cheese chat; the liked and the disliked cheese go round in turn."""
    pair = [LIKED[step % 6], DISLIKED[(step + step // 6) % 6]]
    bound = {"l": pair[0], "d": pair[1], "l2": LIKED[(step + 1 + step // 6 % 5) % 6]}
    rng.shuffle(pair)
    bound |= {"x": pair[0], "y": pair[1], "dish": rng.choice(filler.banks["dish"])}
    names = [
        name for name in filler.banks if name.startswith(f"{kind} ") and name != f"{kind} think"
    ]
    return fill_turns(filler, names, bound, rng)


def chats(seed: int) -> list[Json]:
    """Chats that state the preferences without a reason, and chats about other things."""
    rng = random.Random(f"{seed}/chats")
    filler = GRAMMAR.fillers["homemade"]
    banks = filler.banks
    lines: list[Json] = []
    asked: set[str] = set()
    while len(lines) < NUM_CHEESE_CHATS:
        kind = banks["kinds"][len(lines) % len(banks["kinds"])]
        turns = cheese_turns(filler, kind, len(lines) // len(banks["kinds"]), rng)
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
    for split, rows in json.loads((HERE / "grammar" / "choice.json").read_text("utf-8")).items():
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
