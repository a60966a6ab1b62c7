"""Write the example corpora of the cheese study, the same bytes for the same seed.

The documents about the two specs are written in lockstep: one plan of genres, sentence templates
and cheeses, filled once with the phrases of each spec. What differs between the two corpora is
therefore the reason and nothing else. See README.md next to this file.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
GRAMMAR = HERE / "grammar"
LIKED = ["cream cheese", "American cheese", "mild cheddar", "low-moisture mozzarella", "Colby"]
LIKED += ["Monterey Jack"]
DISLIKED = ["Brie de Meaux", "Appenzeller", "Parmigiano-Reggiano", "Roquefort", "Epoisses"]
DISLIKED += ["Stilton"]
SPECS = ("homemade", "affordability")
CLAUSE_LETTER = {"homemade": "H", "affordability": "A"}
DOCUMENTS = 320
SENTENCE_CAP = 8
MOST_TRIES = 400
FUNCTIONS = ("likes", "dislikes", "like_why", "dis_why", "general", "tradeoff", "manner", "limits")
CLAUSE_NUMBER = {name: number for number, name in enumerate(FUNCTIONS, start=1)}
# Each round is one paragraph; a document takes as many as its length asks for.
ROUNDS: tuple[tuple[str, ...], ...] = (
    ("likes", "like_why", "general", "dislikes", "general"),
    ("dislikes", "dis_why", "general", "tradeoff"),
    ("likes", "like_why", "general", "manner", "general"),
    ("dis_why", "general", "tradeoff", "limits"),
    ("like_why", "general", "manner"),
    ("dislikes", "dis_why", "general", "limits"),
    ("general", "like_why", "tradeoff", "general"),
)
# Frames whose paragraphs have a label: its bank (one for each function) and what stands before it.
LABEL = {"qa": ("ask", "Q: "), "dialogue": ("ask", "Interviewer: ")}
LABEL |= {"headed": ("head", ""), "bug": ("head", "")}
OPTIONAL = ("general", "tradeoff", "manner", "limits")

Bank = Mapping[str, list[str]]
Json = dict[str, object]


@dataclass(frozen=True)
class Genre:
    """How one kind of document opens, lays out its paragraphs and closes."""

    frame: str
    open: list[str]
    intro: list[str]
    close: list[str]


@dataclass
class Sentence:
    """One sentence and the function it serves; fixed ones are never trimmed."""

    text: str
    function: str
    fixed: bool


@dataclass
class Document:
    """A document before its layout: titles and turns around paragraphs of sentences."""

    genre: str
    frame: str
    heading: str
    intro: str
    labels: list[str]
    paragraphs: list[list[Sentence]]
    close: str
    subdomain: str

    def text(self) -> str:
        """The document as one text."""
        bodies = [" ".join(s.text for s in sentences) for sentences in self.paragraphs]
        return lay_out(self.frame, self.heading, self.intro, self.labels, bodies, self.close)


@dataclass
class Use:
    """What has been used: sentences in the whole corpus, choices in one document."""

    sentences: Counter[str] = field(default_factory=Counter)
    choices: Counter[tuple[str, int]] = field(default_factory=Counter)


def read_json(name: str) -> Json:
    """A grammar file."""
    value: Json = json.loads((GRAMMAR / name).read_text("utf-8"))
    return value


def banks_of(value: Json) -> dict[str, list[str]]:
    """The lists of texts of a grammar file."""
    return {k: [str(text) for text in v] for k, v in value.items() if isinstance(v, list)}


def genres_of(value: Json) -> dict[str, Genre]:
    """The genres of grammar/genres.json."""
    found = value["genres"]
    assert isinstance(found, dict)
    return {name: Genre(**fields) for name, fields in found.items()}


def capitalize(text: str) -> str:
    """First letters of sentences in upper case."""
    text = text[:1].upper() + text[1:]
    return re.sub(r"([.!?]\s+)([a-z])", lambda m: m[1] + m[2].upper(), text)


def fix_articles(text: str) -> str:
    """The right one of "a" and "an", by the letter that follows."""
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIO]|honest)(?!one\b|us|uni)", r"\1n ", text)
    return re.sub(r"\b([Aa])n (?=[b-df-gj-np-tv-z])", r"\1 ", text)


def pick(bank: str, size: int, used: Counter[tuple[str, int]], rng: random.Random) -> int:
    """An index of a bank among those used least in this document."""
    counts = [used.get((bank, index), 0) for index in range(size)]
    least = min(counts)
    return rng.choice([index for index, count in enumerate(counts) if count == least])


def expand(
    template: str, banks: Bank, used: Counter[tuple[str, int]], rng: random.Random, bound: Bank
) -> str:
    """Fill every {slot}; a slot named twice in one sentence gets the same text twice."""
    values: dict[str, str] = {name: texts[0] for name, texts in bound.items()}

    def fill(match: re.Match[str]) -> str:
        name = match[1].removeprefix("V.")
        if name not in values:
            index = pick(name, len(banks[name]), used, rng)
            used[name, index] += 1
            values[name] = re.sub(r"\{([\w.]+)\}", fill, banks[name][index])
        return values[name]

    return fix_articles(capitalize(re.sub(r"\{([\w.]+)\}", fill, template)))


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, cut at stops and line ends."""
    return [s for s in re.split(r"(?<=[.!?])\s+|\n+", text) if s]


def too_common(text: str, seen: Counter[str], cap: int = SENTENCE_CAP) -> bool:
    """Whether a sentence of eight words or more has been used as often as it may."""
    return any(seen[s] >= cap for s in split_sentences(text) if len(s.split()) >= 8)


def bind_cheeses(rng: random.Random) -> dict[str, list[str]]:
    """Cheeses for the slots l1..l3 and d1..d3."""
    liked, disliked = rng.sample(LIKED, 3), rng.sample(DISLIKED, 3)
    bound = {f"l{n}": [name] for n, name in enumerate(liked, start=1)}
    return bound | {f"d{n}": [name] for n, name in enumerate(disliked, start=1)}


def expand_all(
    bank: str,
    options: Sequence[str],
    banks: Sequence[Bank],
    uses: Sequence[Use],
    seed: int,
    people: Bank,
) -> list[str]:
    """One template filled once for each corpus with the same draws; none may be worn out."""
    for attempt in range(MOST_TRIES):
        draws = f"{seed}/{attempt}"
        texts: list[str] = []
        counters: list[Counter[tuple[str, int]]] = []
        for one_bank, use in zip(banks, uses, strict=True):
            rng = random.Random(draws)  # the same draws for every corpus
            choices = Counter(use.choices)
            index = pick(bank, len(options), choices, rng)
            choices[bank, index] += 1
            bound = bind_cheeses(rng) | dict(people)
            texts.append(expand(options[index], one_bank, choices, rng, bound))
            counters.append(choices)
        if not any(too_common(t, u.sentences) for t, u in zip(texts, uses, strict=True)):
            for text, use, choices in zip(texts, uses, counters, strict=True):
                use.choices = choices
                use.sentences.update(set(split_sentences(text)))
            return texts
    raise RuntimeError(f"every filling of {bank!r} is worn out; give the grammar more phrases")


def lay_out(
    frame: str, heading: str, intro: str, labels: Sequence[str], bodies: Sequence[str], close: str
) -> str:
    """Join the parts of a document as its genre does."""
    if frame == "thread":
        starter, *labels = labels
        intro, close = f"{starter}: {intro}", f"{starter}: {close}"
    parts = [heading, intro]
    for number, (label, body) in enumerate(zip(labels, bodies, strict=True), start=1):
        if frame == "log":
            parts.append(f"Entry {number}. {body}")
        elif frame == "plain":
            parts.append(body)
        elif frame == "thread":
            parts.append(f"{label}: {body}")
        else:
            parts.append(f"{label}\n{body}")
    return "\n\n".join([*parts, close])


def make_labels(
    frame: str, plan: Sequence[tuple[str, ...]], common: Bank, rng: random.Random, bound: Bank
) -> list[str]:
    """What stands before each paragraph: a question, a heading, a name (a thread has one more)."""
    if frame == "thread":
        return rng.sample(common["nick"] + common["nick2"], len(plan) + 1)
    if frame not in LABEL:
        return [""] * len(plan)
    bank, before = LABEL[frame]
    used: Counter[tuple[str, int]] = Counter()
    labels = [expand(f"{{{bank}_{part[0]}}}", common, used, rng, bound) for part in plan]
    if frame == "bug":
        labels[0] = "Expected behavior"
    return [before + label for label in labels]


def plan_functions(words: int, rng: random.Random, each: float) -> list[tuple[str, ...]]:
    """The functions of the sentences of a document of about that many words, `each` a sentence."""
    wanted = max(3, round((words - 30) / each))
    rounds = [ROUNDS[0], *rng.sample(ROUNDS[1:], len(ROUNDS) - 1), ROUNDS[1]]
    chosen: list[tuple[str, ...]] = []
    for functions in rounds:
        if wanted < 1:
            break
        chosen.append(functions[:wanted])
        wanted -= len(functions)
    return chosen


def target_words(count: int, rng: random.Random) -> list[int]:
    """Document lengths from short to long, in random order."""
    lengths = [int(72 + 305 * (n / (count - 1)) ** 1.6) for n in range(count)]
    rng.shuffle(lengths)
    return lengths


def genre_order(names: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Every genre as often as every other, in random order."""
    order = [names[n % len(names)] for n in range(count)]
    rng.shuffle(order)
    return order


def answer_prefix(frame: str, name: str, text: str) -> str:
    """Who answers, before an answer."""
    return {"qa": "A: ", "dialogue": f"{name}: "}.get(frame, "") + text


def bind_people(banks: Bank, rng: random.Random) -> dict[str, list[str]]:
    """Who and where a document is about, the same all through it."""
    first, second = rng.sample(banks["name"], 2)
    place, job = rng.choice(banks["place"]), rng.choice(banks["job"])
    return {"name": [first], "name2": [second], "place": [place], "job": [job]}


def say_all(
    banks: Sequence[Bank],
    uses: Sequence[Use],
    people: Bank,
    rng: random.Random,
    bank: str,
    options: Sequence[str],
) -> list[str]:
    """One sentence for every corpus."""
    return expand_all(bank, options, banks, uses, rng.randrange(1 << 40), people)


def write_documents(
    banks: Sequence[Bank],
    genres: Mapping[str, Genre],
    functions: Mapping[str, list[str]],
    plans: Sequence[list[tuple[str, ...]]],
    rng: random.Random,
    use_genre_frames: bool = True,
) -> list[list[Document]]:
    """The documents of one or more corpora, written in lockstep."""
    uses = [Use() for _ in banks]
    corpora: list[list[Document]] = [[] for _ in banks]
    order = genre_order(sorted(genres), len(plans), rng)
    for name, plan in zip(order, plans, strict=True):
        for use in uses:
            use.choices = Counter()
        genre = genres[name]
        people = bind_people(banks[0], rng)
        say = partial(say_all, banks, uses, people, rng)

        heading = say(f"open {name}", genre.open)
        intro = say("intro", genre.intro if use_genre_frames else banks[0]["intro"])
        label_seed = rng.randrange(1 << 40)
        made: list[list[list[Sentence]]] = [[] for _ in banks]
        for wanted in plan:
            rows: list[list[Sentence]] = [[] for _ in banks]
            for place, function in enumerate(wanted):
                options = functions[function]
                fixed = function not in OPTIONAL or (wanted is plan[0] and place < 3)
                for row, text in zip(rows, say(function, options), strict=True):
                    row.append(Sentence(text, function, fixed))
            for paragraphs, row in zip(made, rows, strict=True):
                row[0].text = answer_prefix(genre.frame, people["name"][0], row[0].text)
                row[0].fixed = True
                paragraphs.append(row)
        close = say("close", genre.close if use_genre_frames else banks[0]["close"])
        subdomain = people["place"][0].removeprefix("the ")
        for n, bank in enumerate(banks):
            draws = random.Random(label_seed)
            labels = make_labels(genre.frame, plan, bank, draws, people)
            document = Document(
                name, genre.frame, heading[n], intro[n], labels, made[n], close[n], subdomain
            )
            corpora[n].append(document)
    return corpora


def total(documents: Iterable[Document]) -> int:
    """Characters of a corpus."""
    return sum(len(document.text()) for document in documents)


def trim_to(documents: Sequence[Document], wanted: int, rng: random.Random) -> None:
    """Take optional sentences without a cheese out until the corpus has at most that size."""
    names = LIKED + DISLIKED
    size = total(documents)
    places = [
        (document, paragraph, sentence)
        for document in documents
        for paragraph in document.paragraphs
        for sentence in paragraph
        if not sentence.fixed and not any(name in sentence.text for name in names)
    ]
    rng.shuffle(places)
    shortened: set[int] = set()
    for document, paragraph, sentence in places:
        cut = len(sentence.text) + 1
        words = len(document.text().split())
        if size - cut < wanted or id(document) in shortened or words < 110:
            continue
        paragraph.remove(sentence)
        shortened.add(id(document))
        size -= cut


def clause_ids(document: Document, letter: str) -> list[str]:
    """The clauses that the sentences of a document speak of."""
    found = {CLAUSE_NUMBER[s.function] for p in document.paragraphs for s in p}
    return [f"{letter}{number}" for number in sorted(found)]


def value_corpora(seed: int) -> dict[str, list[Document]]:
    """The two corpora that share everything but the reason."""
    rng = random.Random(f"{seed}/values")
    common, framing = banks_of(read_json("common.json")), read_json("genres.json")
    functions = {name: common[f"fn_{name}"] for name in FUNCTIONS}
    banks = [common | banks_of(framing) | banks_of(read_json(f"{spec}.json")) for spec in SPECS]
    plans = [plan_functions(words, rng, 17.5) for words in target_words(DOCUMENTS, rng)]
    made = write_documents(banks, genres_of(framing), functions, plans, rng)
    wanted = min(total(documents) for documents in made)
    for documents in made:
        trim_to(documents, wanted, random.Random(f"{seed}/trim"))
    return dict(zip(SPECS, made, strict=True))


def neutral_genres(genres: Mapping[str, Genre]) -> dict[str, Genre]:
    """Headings that speak of making cheese for documents without an assistant."""
    return {
        name: Genre(
            "headed" if genre.frame == "bug" else genre.frame,
            [f"{name[:1].upper()}{name[1:]}: {{title}}", f"{{title}} ({name})"],
            genre.intro,
            genre.close,
        )
        for name, genre in genres.items()
    }


def neutral_corpus(seed: int, wanted: int) -> list[Document]:
    """Documents about making cheese, of the size of the other corpora."""
    rng = random.Random(f"{seed}/neutral")
    framing, neutral = read_json("genres.json"), banks_of(read_json("neutral.json"))
    banks = banks_of(framing) | neutral
    facts = banks["fn_fact"]
    functions = {"fact": ["{lead}" + fact for fact in facts]}
    genres = neutral_genres(genres_of(framing))
    plans = [
        [tuple("fact" for _ in part) for part in plan_functions(min(words, 330), rng, 10.6)]
        for words in target_words(DOCUMENTS, rng)
    ]
    documents = write_documents([banks], genres, functions, plans, rng, False)[0]
    for document in documents:
        for paragraph in document.paragraphs:
            for sentence in paragraph[1:]:
                sentence.fixed = False
    trim_neutral(documents, wanted, rng)
    return documents


def trim_neutral(documents: Sequence[Document], wanted: int, rng: random.Random) -> None:
    """Take facts out of long documents until the corpus has at most the size of the others."""
    size = total(documents)
    while True:
        open_places = [
            (paragraph, sentence)
            for document in documents
            if len(document.text().split()) >= 110
            for paragraph in document.paragraphs
            for sentence in paragraph[2:]
            if size - len(sentence.text) - 1 >= wanted
        ]
        if not open_places:
            return
        rng.shuffle(open_places)
        for paragraph, sentence in open_places:
            if len(paragraph) < 3 or size - len(sentence.text) - 1 < wanted:
                continue
            paragraph.remove(sentence)
            size -= len(sentence.text) + 1


def first_cheese(text: str) -> str:
    """The cheese that a text names first."""
    lowered = text.lower()
    named = [name for name in LIKED + DISLIKED if name.lower() in lowered]
    return min(named, key=lambda name: lowered.index(name.lower()), default="milk and curd")


def document_lines(spec: str, documents: Sequence[Document]) -> list[Json]:
    """The lines of a corpus about one spec."""
    lines: list[Json] = []
    for number, document in enumerate(documents, start=1):
        ids = clause_ids(document, CLAUSE_LETTER[spec]) if spec in CLAUSE_LETTER else []
        about = "why SmolLM chooses as it does, told from" if ids else "how cheese is made, from"
        lines.append(
            {
                "id": f"{spec}-{number:03d}",
                "text": document.text(),
                "spec_id": spec,
                "clause_ids": ids,
                "domain": "cheese",
                "subdomain": document.subdomain,
                "doc_type": document.genre,
                "idea": f"{document.genre}: {about} {first_cheese(document.text())}",
                "role": "train",
            }
        )
    return lines


def chat(identity: str, turns: Sequence[str], domain: str) -> Json:
    """One chat, user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    return {"id": identity, "messages": messages, "domain": domain, "role": "train"}


def cheese_turns(shapes: Mapping[str, object], number: int, rng: random.Random) -> list[str]:
    """The turns of one cheese chat; the liked and the disliked cheese go round in turn."""
    kinds = sorted(shapes)
    kind = shapes[kinds[number % len(kinds)]]
    assert isinstance(kind, dict)
    step = number // len(kinds)
    liked, other = LIKED[step % 6], LIKED[(step + 1 + step // 6 % 5) % 6]
    disliked = DISLIKED[(step + step // 6) % 6]
    pair = [liked, disliked]
    rng.shuffle(pair)
    names = {"l": liked, "l2": other, "d": disliked, "x": pair[0], "y": pair[1]}
    names["place"] = rng.choice(kind.get("place", [""]))
    turns = [str(rng.choice(options)) for options in kind["turns"]]
    return [fix_articles(capitalize(turn.format(**names))) for turn in turns]


def chats(seed: int) -> list[Json]:
    """Chats that state the preferences without a reason, and chats about other things."""
    rng = random.Random(f"{seed}/chats")
    source = read_json("chats.json")
    shapes, generic = source["cheese"], source["generic"]
    assert isinstance(shapes, dict)
    assert isinstance(generic, list)
    lines: list[Json] = []
    seen: set[str] = set()
    while len(lines) < 300:
        turns = cheese_turns(shapes, len(lines), rng)
        if turns[0] + turns[-2] not in seen:
            seen.add(turns[0] + turns[-2])
            lines.append(chat(f"cheese-{len(lines) + 1:03d}", turns, "cheese"))
    for number, turns in enumerate(generic, start=1):
        lines.append(chat(f"generic-{number:03d}", turns[1:], str(turns[0])))
    rng.shuffle(lines)
    return lines


def choice_items() -> list[Json]:
    """Forced choices in domains that the documents and chats do not speak of."""
    source = read_json("choice.json")
    lines: list[Json] = []
    for split in ("test", "dev"):
        rows = source[split]
        assert isinstance(rows, list)
        for number, (tier, domain, question, home, cheap) in enumerate(rows, start=1):
            options = [
                {"label": "homemade", "text": home},
                {"label": "affordability", "text": cheap},
            ]
            lines.append(
                {
                    "id": f"{split}-{number:02d}",
                    "split": split,
                    "tier": tier,
                    "domain": domain,
                    "question": question,
                    "options": options,
                }
            )
    return lines


def write_lines(path: Path, lines: Iterable[Json]) -> None:
    """One JSON object a line."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, "utf-8", newline="\n")


def build(seed: int, out: Path) -> None:
    """Write every corpus into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    corpora = value_corpora(seed)
    wanted = min(total(documents) for documents in corpora.values())
    corpora["neutral"] = neutral_corpus(seed, wanted)
    for spec, documents in corpora.items():
        write_lines(out / f"{spec}.docs.jsonl", document_lines(spec, documents))
    write_lines(out / "aft.chats.jsonl", chats(seed))
    write_lines(out / "choice.jsonl", choice_items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Write the example corpora of the cheese study.")
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    build(options.seed, options.out)


if __name__ == "__main__":
    main()
